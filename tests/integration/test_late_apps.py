"""Apps that are imported or made behind the open port."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_lifespan_guard import (
    AppCannotRestartError,
    LifespanGuard,
    lifespan_of,
    resource,
)
from asgi_lifespan_guard.events import AttemptFailed, ResourceGaveUp, ResourceOpened
from examples.demo import wait_until
from examples.demo.servers import ServerProcess
from tests.recorder import Recorder
from tests.support.memory_server import MemoryServer
from tests.support.modules import Modules
from tests.support.resources import SOON


ON_ASYNCIO = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {})], ids=["asyncio"]
)


@resource
async def db() -> AsyncGenerator[str, None]:
    """Be a pool."""
    yield "a pool"


# Real servers, real imports.

BUSY = """
import os

number = 0
while number % 1_000_000 or not os.path.exists("imported"):
    number += 1  # pure Python, and nothing else
if "raise" in __name__:
    raise ValueError("the settings are wrong")

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"imported"})
"""
GUARDED = """
from asgi_lifespan_guard import Gate, LifespanGuard

def tell(event):
    print(type(event).__name__, flush=True)

guard = LifespanGuard("busy:app", gate=Gate(wait=60), observers=[tell])
broken = LifespanGuard("missing_import:app")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a directory with an app whose import ends when told, and one that fails."""
    (tmp_path / "busy.py").write_text(BUSY)
    (tmp_path / "missing_import.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "guarded.py").write_text(GUARDED)
    return tmp_path


def get(server: ServerProcess, path: str) -> httpx.Response:
    """Make one GET request."""
    return httpx.get(server.url(path), trust_env=False, timeout=30)


def end_import(folder: Path) -> None:
    """Let the busy import come to its end."""
    (folder / "imported").touch()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn-trio-w0", "granian"])
def test_probes_are_answered_during_a_busy_import(kind: str, folder: Path) -> None:
    """The port opens before an import of pure Python, which lets probes through."""
    with ServerProcess(kind, "guarded:guard", cwd=folder) as server:
        server.wait_bound()
        for _ in range(5):
            assert get(server, "/livez").status_code == 200
            assert get(server, "/readyz").status_code == 503
        end_import(folder)
        assert get(server, "/").text == "imported"
        assert get(server, "/readyz").status_code == 200


@pytest.mark.slow
def test_a_request_is_held_during_a_busy_import(folder: Path) -> None:
    """Who comes while the app is being imported waits for it."""
    with (
        ThreadPoolExecutor() as clients,
        ServerProcess("uvicorn", "guarded:guard", cwd=folder) as server,
    ):
        server.wait_bound()
        held = clients.submit(get, server, "/")
        server.wait_output("RequestHeld")
        end_import(folder)
        assert held.result().text == "imported"


@pytest.mark.slow
def test_sigterm_during_a_busy_import(folder: Path) -> None:
    """The stop does not wait for the import's end, which never comes."""
    with ServerProcess("uvicorn", "guarded:guard", cwd=folder) as server:
        server.wait_bound()
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_an_import_error_is_a_failed_resource(folder: Path) -> None:
    """Its traceback is in the log; the process lives on, unready."""
    with ServerProcess("uvicorn", "guarded:broken", cwd=folder) as server:
        server.wait_bound()
        server.wait_output("app: gave up")
        server.wait_output("No module named 'not_installed_anywhere'")
        assert get(server, "/livez").status_code == 200
        assert get(server, "/readyz").status_code == 503
        assert get(server, "/").status_code == 503
        server.terminate()
        server.wait()
    assert "missing_import.py" in server.output
    assert server.output.count("Traceback") == 1


# Frameworks as import strings.


@pytest.mark.anyio
async def test_starlette_by_its_name(recorder: Recorder, modules: Modules) -> None:
    """Its lifespan is run behind the port, with retry; its state reaches requests."""
    modules.write(
        "tests_starlette",
        """
        from tests.support.frameworks import Story, starlette
        app = starlette(Story(OSError("refused")))
        """,
    )
    retried = lifespan_of(retry=SOON)
    guard = LifespanGuard("tests_starlette:app", [db], app_lifespan=retried)
    async with MemoryServer(guard) as server:
        told, state = (await server.get("/")).json()
    assert told == ["starts", "starts"]
    assert state == {"own": "yielded", "db": "a pool"}


@pytest.fixture
def django_project(modules: Modules) -> Iterator[None]:
    """Write a Django project whose ASGI module has yet to be imported."""
    from django.conf import settings
    from django.test import override_settings

    modules.write(
        "tests_project_urls",
        """
        from django.http import JsonResponse
        from django.urls import path
        from tests.integration.test_late_apps import db

        def home(request):
            return JsonResponse({"db": db.get(request)})

        urlpatterns = [path("", home)]
        """,
    )
    modules.write(
        "tests_project_asgi",
        """
        from django.core.asgi import get_asgi_application
        application = get_asgi_application()
        """,
    )
    if not settings.configured:
        settings.configure(SECRET_KEY="tests")
    with override_settings(ALLOWED_HOSTS=["*"], ROOT_URLCONF="tests_project_urls"):
        yield


@pytest.mark.anyio
@ON_ASYNCIO
@pytest.mark.usefixtures("django_project")
async def test_django_by_its_name(recorder: Recorder) -> None:
    """`django.setup()` and all that it imports happen behind the port."""
    guard = LifespanGuard("tests_project_asgi:application", [db])
    async with MemoryServer(guard) as server:
        request = await server.get("/", (b"host", b"localhost"))
    assert request.json() == {"db": "a pool"}


@pytest.mark.anyio
async def test_asgi_2_by_its_name(recorder: Recorder, modules: Modules) -> None:
    """A class is recognised after its import, and its lifespan is run."""
    modules.write(
        "tests_asgi_2",
        """
        from tests.support.resources import hello

        said = []

        class App:
            def __init__(self, scope):
                self.scope = scope

            async def __call__(self, receive, send):
                if self.scope["type"] != "lifespan":
                    return await hello(self.scope, receive, send)
                for stage in ("startup", "shutdown"):
                    said.append((await receive())["type"])
                    await send({"type": f"lifespan.{stage}.complete"})
        """,
    )
    async with MemoryServer(LifespanGuard("tests_asgi_2:App", [db])) as server:
        assert (await server.get("/")).body == b"hello"
    said = sys.modules["tests_asgi_2"].said
    assert said == ["lifespan.startup", "lifespan.shutdown"]


# Apps that cannot be started twice, made anew for each attempt.


class Weather:
    """Refuses as often as it is told to."""

    def __init__(self) -> None:
        self.refusals = 1

    def ask(self) -> None:
        """Pass, or refuse."""
        if self.refusals:
            self.refusals -= 1
            raise OSError("refused")


def _quart_while_serving(weather: Weather) -> Any:
    from quart import Quart

    app = Quart(__name__)

    @app.while_serving
    async def serve() -> AsyncGenerator[None, None]:
        weather.ask()
        yield

    async def hello() -> str:
        return "hello"

    app.get("/")(hello)
    return app


def _litestar_with_an_instance(weather: Weather) -> Any:
    from litestar import Litestar, get

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None, None]:
        weather.ask()
        yield

    async def hello() -> str:
        return "hello"

    hello.__annotations__ = {"return": str}
    return Litestar([get("/")(hello)], lifespan=[lifespan()])


def _mcp(weather: Weather) -> Any:
    from mcp.server.lowlevel import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    manager = StreamableHTTPSessionManager(Server("tests"))

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[None, None]:
        async with manager.run():
            weather.ask()
            yield

    async def hello(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    return Starlette(routes=[Route("/", hello)], lifespan=lifespan)


USED_UP = pytest.mark.parametrize(
    "make", [_quart_while_serving, _litestar_with_an_instance, _mcp]
)


@pytest.mark.anyio
@ON_ASYNCIO
@USED_UP
async def test_a_fresh_app_for_each_attempt(
    recorder: Recorder, make: Callable[[Weather], Any]
) -> None:
    """The first attempt fails, the second succeeds; and so in every cycle."""
    weather = Weather()
    guard = LifespanGuard(
        lambda: make(weather),
        app_factory=True,
        app_lifespan=lifespan_of(retry=SOON),
        observers=[recorder],
    )
    for cycle in (1, 2):
        weather.refusals = 1
        async with MemoryServer(guard) as server:
            assert (await server.get("/")).body == b"hello"
        assert len(recorder.of(AttemptFailed)) == cycle
    assert recorder.of(ResourceGaveUp) == []
    assert [event.attempt for event in recorder.of(ResourceOpened)] == [2, 2]


@pytest.mark.anyio
@ON_ASYNCIO
@USED_UP
async def test_the_same_app_for_each_attempt(
    recorder: Recorder, make: Callable[[Weather], Any]
) -> None:
    """Without a factory the second attempt is the last, and says what to do."""
    guard = LifespanGuard(
        make(Weather()), app_lifespan=lifespan_of(retry=SOON), observers=[recorder]
    )
    async with MemoryServer(guard) as server:
        gave_up = await recorder.wait_for(ResourceGaveUp)
        assert (await server.get("/")).status == 503
    assert isinstance(gave_up.error, AppCannotRestartError)
    assert "app_factory=True" in str(gave_up.error)
    assert (gave_up.attempts, gave_up.permanent) == (2, True)


@pytest.mark.slow
def test_a_factory_by_its_name(folder: Path) -> None:
    """`app_factory=True` with an import string, in a real server."""
    (folder / "made.py").write_text(
        "from asgi_lifespan_guard import LifespanGuard\n"
        "guard = LifespanGuard('making:make', app_factory=True)\n"
    )
    (folder / "making.py").write_text(
        "from starlette.applications import Starlette\n"
        "def make():\n    return Starlette()\n"
    )
    with ServerProcess("uvicorn", "made:guard", cwd=folder) as server:
        server.wait_bound()
        assert wait_until(lambda: get(server, "/readyz").status_code == 200, 30)
        assert get(server, "/").status_code == 404
