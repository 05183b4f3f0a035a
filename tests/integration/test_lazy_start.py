"""Where no lifespan ever comes: `lazy_start=True` under real clients and servers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from asgi_lifespan_guard import LifespanGuard, Phase, resource
from examples.demo import wait_until
from examples.demo.servers import COMMANDS, ServerProcess
from tests.recorder import Recorder
from tests.support.frameworks import Story, fastapi, starlette
from tests.support.resources import Tap


EVENT = {
    "version": "2.0",
    "routeKey": "$default",
    "rawPath": "/",
    "rawQueryString": "",
    "headers": {"host": "example.org"},
    "requestContext": {
        "http": {"method": "GET", "path": "/", "sourceIp": "127.0.0.1"},
    },
    "isBase64Encoded": False,
}

APP = """
import json, os, sys
from asgi_lifespan_guard import Gate, LifespanGuard, resource

opened = []

@resource
async def db():
    opened.append("db")
    print("db opens", flush=True)
    try:
        yield "a pool"
    finally:
        print("db closes", flush=True)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        print("app starts", flush=True)
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        print("app shuts down", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = json.dumps([db.get(scope), opened]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})

guard = LifespanGuard(app, [db], lazy_start=True)
"""


@resource
async def db() -> AsyncGenerator[str, None]:
    """Be a pool."""
    yield "a pool"


@pytest.mark.anyio
@pytest.mark.parametrize("make", [starlette, fastapi])
async def test_httpx(recorder: Recorder, make: Any) -> None:
    """Concurrent first requests through httpx's transport start everything once."""
    story = Story()
    tap = Tap(recorder)
    guard = LifespanGuard(make(story), [tap.recipe], lazy_start=True)
    transport = httpx.ASGITransport(guard)
    answers: list[Any] = []

    async def visit(client: httpx.AsyncClient) -> None:
        answers.append((await client.get("/")).json())

    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(visit, client)
        assert (await client.get("/readyz")).status_code == 200
    assert answers == [[["starts"], {"own": "yielded", "db": "db 1"}]] * 20
    assert recorder.marks == ["open db"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_httpx_is_closed_with_its_event_loop(backend: str) -> None:
    """What is open is closed when the event loop ends, and opened in the next."""
    story = Story()
    guard = LifespanGuard(starlette(story), [db], lazy_start=True)

    async def visit() -> None:
        transport = httpx.ASGITransport(guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
            assert (await http.get("/")).status_code == 200
            assert guard.phase is Phase.SERVING

    for _ in range(2):
        anyio.run(visit, backend=backend)
        assert guard.phase is Phase.STOPPED
    assert story.told.count("starts") == 2


def test_starlettes_test_client_that_is_not_entered(recorder: Recorder) -> None:
    """Each of its requests has an event loop of its own, and so a start."""
    from starlette.testclient import TestClient

    story = Story()
    guard = LifespanGuard(starlette(story), [db], lazy_start=True)
    client = TestClient(guard)
    for _ in range(2):
        assert client.get("/").json()[1] == {"own": "yielded", "db": "a pool"}
    client.close()
    assert story.told.count("starts") == 2


def test_mangum(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by the first invocation, it serves the others on the same loop."""
    from mangum import Mangum

    monkeypatch.setattr("atexit.register", lambda _: None)
    story = Story()
    guard: Any = LifespanGuard(starlette(story), [db], lazy_start=True)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    handler = Mangum(guard, lifespan="off")
    context: Any = None
    try:
        for _ in range(3):
            answer = handler(EVENT, context)
            assert answer["statusCode"] == 200
            told, state = json.loads(answer["body"])
            assert told == ["starts"]
            assert state == {"own": "yielded", "db": "a pool"}
    finally:
        loop.run_until_complete(_cancel_others())
        loop.close()
        asyncio.set_event_loop(None)
    assert guard.phase is Phase.STOPPED


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a directory with a guarded app in it."""
    (tmp_path / "lazy.py").write_text(APP)
    return tmp_path


@pytest.mark.slow
def test_mangum_at_the_end_of_the_process(folder: Path) -> None:
    """A process that ends by itself closes what its invocations have opened."""
    script = (
        "from mangum import Mangum; from lazy import guard;"
        f"handler = Mangum(guard, lifespan='off'); event = {EVENT!r};"
        "print(*(handler(event, None)['statusCode'] for _ in range(3)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "app starts",
        "db opens",
        "200 200 200",
        "app shuts down",
        "db closes",
    ]
    assert done.stderr == ""


@pytest.mark.slow
def test_daphne(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Concurrent first requests start it once; SIGTERM closes what it can."""
    monkeypatch.setitem(COMMANDS, "daphne", "daphne {app} -b 127.0.0.1 -p {port}")
    with ServerProcess("daphne", "lazy:guard", cwd=folder) as server:
        server.wait_bound()
        with ThreadPoolExecutor(20) as clients:
            answers = list(clients.map(get, [server.url("/")] * 20))
        assert {answer.status_code for answer in answers} == {200}
        assert answers[-1].json() == ["a pool", ["db"]]
        assert get(server.url("/readyz")).status_code == 200
        server.terminate()
        server.wait()
    assert server.output.count("app starts") == 1
    assert server.output.index("app shuts down") < server.output.index("db closes")
    assert "Traceback" not in server.output
    assert "ERROR" not in server.output


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uvicorn-asyncio", "uvicorn-uvloop"])
def test_a_server_whose_lifespan_is_off(folder: Path, kind: str) -> None:
    """SIGTERM is the stop: it goes to the server when everything is closed."""
    server = ServerProcess(kind, "lazy:guard", cwd=folder, args=["--lifespan", "off"])
    with server:
        server.wait_bound()
        assert get(server.url("/")).status_code == 200
        server.terminate()
        server.wait()
    assert server.output.index("app shuts down") < server.output.index("db closes")
    assert server.output.index("db closes") < server.output.index("Shutting down")


@pytest.mark.slow
def test_a_probe_starts_it_under_daphne(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orchestrator that asks for readiness gets it, without any other request."""
    monkeypatch.setitem(COMMANDS, "daphne", "daphne {app} -b 127.0.0.1 -p {port}")
    with ServerProcess("daphne", "lazy:guard", cwd=folder) as server:
        server.wait_bound()
        ready = server.url("/readyz")
        assert wait_until(lambda: get(ready).status_code == 200, 30)


def get(url: str) -> httpx.Response:
    """Make one GET request."""
    return httpx.get(url, trust_env=False, timeout=30)
