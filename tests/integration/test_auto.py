"""`asgi_lifespan_guard.auto:app` under real servers."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from examples.demo import wait_until
from examples.demo.servers import ServerProcess


pytestmark = pytest.mark.slow

SERVERS = pytest.mark.parametrize(
    "kind", ["uvicorn", "hypercorn", "hypercorn-trio-w0", "granian"]
)
TARGET = "asgi_lifespan_guard.auto:app"
APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["greeting"] = "hello from the lifespan"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        print("app shuts down", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    assert scope["type"] == "http"
    body = scope["state"]["greeting"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

def make():
    return app
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a directory with an app that knows nothing of a guard."""
    (tmp_path / "plain.py").write_text(APP)
    return tmp_path


def get(server: ServerProcess, path: str) -> httpx.Response:
    """Make one GET request."""
    return httpx.get(server.url(path), trust_env=False, timeout=30)


@SERVERS
def test_a_guard_without_any_code(kind: str, folder: Path) -> None:
    """The app is imported behind the port, runs its lifespan, and is shut down."""
    env = {"LIFESPAN_GUARD_APP": "plain:app"}
    with ServerProcess(kind, TARGET, cwd=folder, env=env) as server:
        server.wait_bound()
        assert get(server, "/livez").status_code == 200
        assert get(server, "/").text == "hello from the lifespan"
        assert wait_until(lambda: get(server, "/readyz").status_code == 200, 30)
        server.terminate()
        server.wait()
    assert "app shuts down" in server.output
    assert "Traceback" not in server.output


def test_settings_and_a_factory(folder: Path) -> None:
    """Other variables are the guard's options."""
    env = {
        "LIFESPAN_GUARD_APP": "plain:make",
        "LIFESPAN_GUARD_FACTORY": "1",
        "LIFESPAN_GUARD_LIVE": "/alive",
    }
    with ServerProcess("uvicorn", TARGET, cwd=folder, env=env) as server:
        server.wait_bound()
        assert get(server, "/alive").status_code == 200
        assert get(server, "/livez").text == "hello from the lifespan"


@SERVERS
@pytest.mark.parametrize(
    ("env", "text"),
    [
        pytest.param({}, "LIFESPAN_GUARD_APP is not set", id="missing"),
        pytest.param(
            {"LIFESPAN_GUARD_APP": "plain.py"},
            "LIFESPAN_GUARD_APP='plain.py': must be 'module:attribute'",
            id="malformed",
        ),
    ],
)
def test_a_mistake_ends_the_server(
    kind: str, env: dict[str, str], text: str, folder: Path
) -> None:
    """What is missing or malformed is said, and nothing is served."""
    with ServerProcess(kind, TARGET, cwd=folder, env=env) as server:
        server.wait()
    assert text in server.output


def test_an_app_that_does_not_exist(folder: Path) -> None:
    """A module that is not there is a failed resource, told with its traceback."""
    env = {"LIFESPAN_GUARD_APP": "elsewhere:app"}
    with ServerProcess("uvicorn", TARGET, cwd=folder, env=env) as server:
        server.wait_output("No module named 'elsewhere'")
        assert get(server, "/livez").status_code == 200
        assert get(server, "/readyz").status_code == 503
