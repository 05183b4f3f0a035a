"""Real servers with a resource that goes wrong in the worst way: the others go on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.demo import wait_until
from examples.demo.servers import ServerProcess
from tests.recorder import PATIENCE


pytestmark = pytest.mark.slow

WORST = """
import logging, sys
from contextlib import asynccontextmanager
import anyio
from tenacity import wait_fixed
from asgi_lifespan_guard import Check, LifespanGuard, Probes, Retry, resource

logging.basicConfig(level=logging.INFO)

def mark(text):
    sys.stdout.write(f"mark {text}\\n")  # one write, unlike print()

async def answer(send):
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-length", b"0")]})
    await send({"type": "http.response.body"})

class Switch:
    event = None
    is_on = False
    async def wait(self):
        self.event = anyio.Event()
        await self.event.wait()
        raise ConnectionResetError("the connection is gone")

failing, crashing = Switch(), Switch()

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/fail":
        failing.is_on = True
    if scope["path"] == "/crash":
        crashing.is_on = True
        crashing.event.set()
    await answer(send)

@resource
async def db():
    mark("open db")
    yield "db"
    await anyio.sleep(0.1)  # is cancelled where there is no time left
    mark("close db")

# An optional resource that panics.

class Panic(BaseException):
    pass

@resource(required=False)
async def model():
    raise Panic("index out of bounds")
    yield

panicking = LifespanGuard(app, [db, model])

# One that swallows what is raised into it.

def refuse(value):
    raise OSError("no answer")

@resource(check=refuse)
@asynccontextmanager
async def forgiving():
    try:
        yield "value"
    except Exception:
        mark("swallowed")

swallowing = LifespanGuard(app, [db, forgiving], probes=Probes(details=True))

# One that fails its checks, and then crashes, while another waits for its attempt.

def ask(value):
    if failing.is_on:
        raise OSError("no answer")

@resource(required=False, retry=None, check=Check(ask, every=0.05, failures=1))
async def need():
    if crashing.is_on:
        raise OSError("cannot come back")
    async with anyio.create_task_group() as group:
        group.start_soon(crashing.wait)
        yield "need"

@resource(required=False, needs=[need], retry=Retry(wait=wait_fixed(3600)))
async def dependent(need):
    raise OSError("not yet")
    yield

losing = LifespanGuard(app, [db, need, dependent], probes=Probes(details=True))

# An app that hangs at its shutdown.

async def hangs(scope, receive, send):
    if scope["type"] == "http":
        await answer(send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    mark("app hangs")
    await anyio.sleep_forever()

hanging = LifespanGuard(hangs, [db])
hanging_briefly = LifespanGuard(hangs, [db], shutdown_timeout=4)
"""

on_each_server = pytest.mark.parametrize("kind", ["uvicorn", "hypercorn", "granian"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a directory with the guarded apps in it."""
    (tmp_path / "worst.py").write_text(WORST)
    return tmp_path


def get(server: ServerProcess, path: str) -> httpx.Response:
    """Make one GET request."""
    return httpx.get(server.url(path), trust_env=False, timeout=PATIENCE)


def wait_ready(server: ServerProcess) -> None:
    """Wait until it says that it is ready."""
    server.wait_bound()
    ready = wait_until(lambda: get(server, "/readyz").status_code == 200, PATIENCE)
    assert ready, server.output


def assert_serves(server: ServerProcess) -> None:
    """See that it lives, is ready, and answers requests."""
    paths = ("/", "/readyz", "/livez")
    assert [get(server, path).status_code for path in paths] == [200] * 3


def marks(server: ServerProcess) -> list[str]:
    """Return what the app has marked, in order."""
    return re.findall(r"^mark (.*)$", server.output, re.MULTILINE)


@on_each_server
def test_a_panic_in_an_optional_resource(kind: str, folder: Path) -> None:
    """It is given up, the log says why, and everything else goes on."""
    with ServerProcess(kind, "worst:panicking", cwd=folder) as server:
        wait_ready(server)
        server.wait_output(
            r"^ERROR:asgi_lifespan_guard:model: gave up after 1 attempt\(s\),"
            r" a permanent error in worst\.py:\d+: .*Panic: index out of bounds$"
        )
        assert_serves(server)
        assert get(server, "/readyz/model").status_code == 503
        server.terminate()
        server.wait()
    assert marks(server) == ["open db", "close db"]


@on_each_server
def test_a_context_manager_that_swallows_a_failing_check(
    kind: str, folder: Path
) -> None:
    """It is tried again after waits that are told, and nobody else notices."""
    failed = r"forgiving: attempt (\d+) failed.*, next in .* s: OSError: no answer$"
    with ServerProcess(kind, "worst:swallowing", cwd=folder) as server:
        server.wait_output(failed.replace(r"(\d+)", "4"))
        told = [int(n) for n in re.findall(failed, server.output, re.MULTILINE)]
        after = shown(server, "forgiving")["attempts"]
        assert get(server, "/readyz").status_code == 503
        assert get(server, "/livez").status_code == 200
        assert get(server, "/readyz/db").status_code == 200
        server.terminate()
        server.wait()
    assert told == [2**power for power in range(len(told))]  # Thinned out.
    assert told[-1] <= after < 100
    assert len(server.output.splitlines()) < 1000


def shown(server: ServerProcess, name: str) -> Any:
    """Return what the resource's own probe shows of it."""
    answer = get(server, f"/readyz/{name}")
    assert answer.status_code == 503
    return answer.json()


@on_each_server
def test_a_failing_need_that_crashes_and_gives_up(kind: str, folder: Path) -> None:
    """What waits for its next attempt is lost with it, and nothing else."""
    with ServerProcess(kind, "worst:losing", cwd=folder) as server:
        server.wait_output("dependent: attempt 1 failed")
        wait_ready(server)
        assert get(server, "/fail").status_code == 200
        server.wait_output("need: down: OSError: no answer")
        assert shown(server, "need")["phase"] == "failing"
        assert get(server, "/crash").status_code == 200
        server.wait_output(r"need: crashed in \S+: .*the connection is gone")
        server.wait_output("need: gave up after")
        server.wait_output("dependent: gave up: .*'need'")
        assert shown(server, "need")["phase"] == "failed"
        assert shown(server, "dependent")["phase"] == "failed"
        assert_serves(server)
        server.terminate()
        server.wait()
    assert marks(server) == ["open db", "close db"]


# An app that hangs at its shutdown


@on_each_server
def test_an_app_that_hangs_leaves_the_database_time_to_close(
    kind: str, folder: Path
) -> None:
    """The app is cut before the deadline, and what is left is for the others."""
    with ServerProcess(kind, "worst:hanging_briefly", cwd=folder) as server:
        wait_ready(server)
        server.terminate()
        server.wait()
    assert marks(server) == ["open db", "app hangs", "close db"]
    assert "app: closing failed: " in server.output
    assert "db: closed after " in server.output


def test_the_defaults_leave_the_database_time_to_close(folder: Path) -> None:
    """All is over within the shutdown_timeout of 15 seconds."""
    with ServerProcess("uvicorn", "worst:hanging", cwd=folder) as server:
        wait_ready(server)
        server.terminate()
        server.wait_output("^mark close db$", timeout=15)
        server.wait()
    assert marks(server) == ["open db", "app hangs", "close db"]
