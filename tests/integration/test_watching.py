"""A real database that goes away and comes back, and processes that give up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.demo import wait_until
from examples.demo.postgres import Postgres
from examples.demo.servers import ServerProcess


pytestmark = pytest.mark.slow

WATCHED = """
import logging, os
import asyncpg
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from asgi_lifespan_guard import Check, Gate, LifespanGuard, Probes, resource

logging.basicConfig(level=logging.INFO)
DSN = os.environ["DSN"]

def watched(ask):
    check = Check(
        ask, every=0.2, timeout=0.5, failures=int(os.environ["FAILURES"]),
        then=os.environ["THEN"],
    )
    return resource(check=check, timeout=2, close_timeout=0.5)

async def ask_asyncpg(pool):
    return await pool.fetchval("SELECT 1")

@watched(ask_asyncpg)
async def with_asyncpg():
    async with asyncpg.create_pool(DSN, min_size=1, max_size=4) as pool:
        yield pool

async def ask_psycopg(pool):
    async with pool.connection() as connection:
        await connection.execute("SELECT 1")

@watched(ask_psycopg)
async def with_psycopg():
    async with AsyncConnectionPool(DSN, min_size=1, max_size=4, open=False) as pool:
        await pool.wait(timeout=2)
        yield pool

async def ask_sqlalchemy(engine):
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))

@watched(ask_sqlalchemy)
async def with_sqlalchemy():
    engine = create_async_engine(DSN.replace(":", "+asyncpg:", 1), pool_size=4)
    try:
        yield engine  # lazy: only the first check shows whether it works
    finally:
        await engine.dispose()

ASK = {
    "/asyncpg": (with_asyncpg, ask_asyncpg),
    "/psycopg": (with_psycopg, ask_psycopg),
    "/sqlalchemy": (with_sqlalchemy, ask_sqlalchemy),
}

async def app(scope, receive, send):
    assert scope["type"] == "http"
    status = 200
    if scope["path"] in ASK:
        used, ask = ASK[scope["path"]]
        try:
            await ask(used.get(scope))
        except Exception as error:
            status = 500
    await send({"type": "http.response.start", "status": status, "headers": [
        (b"content-length", b"0")]})
    await send({"type": "http.response.body"})

needs = {path: [used] for path, (used, _) in ASK.items()}
guard = LifespanGuard(
    app,
    [used for used, _ in ASK.values()],
    gate=Gate(wait=0.1, needs={**needs, "/free": ()}),
    probes=Probes(details=True),
)
"""

PATHS = ("/asyncpg", "/psycopg", "/sqlalchemy")
NAMES = tuple(f"with_{path[1:]}" for path in PATHS)


def status(server: ServerProcess, path: str) -> int:
    """Make one GET request, and return its status."""
    return httpx.get(server.url(path), trust_env=False, timeout=30).status_code


class Load:
    """Requests to some paths, one after the other, until the block is left.

    Attributes:
        statuses: What each path was answered, in order.
    """

    def __init__(self, server: ServerProcess, *paths: str) -> None:
        self.statuses: dict[str, list[int]] = {path: [] for path in paths}
        self._server = server
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(path,)) for path in paths
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_served(self) -> None:
        """Wait until the last answer of every path is a 200."""
        assert wait_until(self._is_served, 30), self.statuses

    def _is_served(self) -> bool:
        return all(statuses[-1:] == [200] for statuses in self.statuses.values())

    def _ask(self, path: str) -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not self._over.wait(0.01):
                answer = client.get(self._server.url(path))
                self.statuses[path].append(answer.status_code)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    """Run a database of our own."""
    with Postgres(tmp_path) as database:
        database.start()
        yield database


def wait_status(server: ServerProcess, path: str, wanted: int) -> None:
    """Ask until the answer has the status *wanted*."""
    if not wait_until(lambda: status(server, path) == wanted, 30):
        shown = httpx.get(server.url("/readyz?verbose"), trust_env=False).text
        pytest.fail(f"{path} is never {wanted}: {shown}\n{server.output}")


def assert_falls(server: ServerProcess) -> None:
    """Wait until each resource has been noticed to be away, and readiness with it."""
    for name in NAMES:
        wait_status(server, f"/readyz/{name}", 503)
    assert status(server, "/readyz") == 503
    assert status(server, "/livez") == 200


def assert_returns(server: ServerProcess) -> None:
    """Wait until everything is ready, and each path is served again."""
    for path in ("/readyz", *PATHS):
        wait_status(server, path, 200)


def kill_and_start(database: Postgres, server: ServerProcess) -> None:
    """End the database without a word, and start it again."""
    database.kill()
    assert_falls(server)
    database.start()


def freeze_and_continue(database: Postgres, server: ServerProcess) -> None:
    """Have the database answer nothing for a while: checks run into their timeout."""
    database.pause()
    assert_falls(server)
    database.resume()


def restart(database: Postgres, server: ServerProcess) -> None:
    """Make every pooled connection stale at once."""
    database.stop()
    database.start()


@pytest.mark.parametrize("fail", [kill_and_start, freeze_and_continue, restart])
@pytest.mark.parametrize(
    ("then", "failures", "kind"),
    [
        pytest.param("report", "2", "uvicorn-asyncio", id="report"),
        pytest.param("reopen", "1", "uvicorn-uvloop", id="reopen"),
    ],
)
def test_a_database_goes_away_and_comes_back(
    postgres: Postgres,
    tmp_path: Path,
    fail: Callable[[Postgres, ServerProcess], None],
    then: str,
    failures: str,
    kind: str,
) -> None:
    """Under load: readiness falls and returns, and nobody else loses a request."""
    (tmp_path / "watched.py").write_text(WATCHED)
    env = {"DSN": postgres.dsn, "THEN": then, "FAILURES": failures}
    quiet = ("--no-access-log",)
    with ServerProcess(
        kind, "watched:guard", cwd=tmp_path, env=env, args=quiet
    ) as server:
        server.wait_bound()
        assert_returns(server)
        with Load(server, "/free", *PATHS) as load:
            load.wait_served()
            fail(postgres, server)
            assert_returns(server)
        assert status(server, "/livez") == 200
        server.terminate()
        server.wait()
    assert set(load.statuses.pop("/free")) == {200}
    assert "s3cret" not in server.output
    if fail is not restart:
        assert server.output.count(": down: ") >= len(NAMES)
        word = "recovered" if then == "report" else "reopening in"
        assert all(f"{name}: {word}" in server.output for name in NAMES)


# Giving up

DOOMED = """
import os, sys, anyio
from asgi_lifespan_guard import Gate, LifespanGuard, resource

class Doom:
    event = None
    async def wait(self):
        self.event = anyio.Event()
        await self.event.wait()

doom = Doom()

def mark(text):
    # One write: print() has two, between which another worker may write.
    sys.stdout.write(f"mark {text} {os.getpid()}\\n")

@resource
async def db():
    mark("open")
    yield "db"
    mark("close")

@resource(needs=[db], retry=None, on_give_up="exit", timeout=None)
async def doomed(db):
    await doom.wait()
    raise OSError("no licence")
    yield

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/doom":
        doom.event.set()
    if scope["path"] == "/slow":
        mark("slow")
        await guard.draining.wait()
        mark("finished")
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})

guard = LifespanGuard(app, [db, doomed], gate=Gate(needs={"/": [db]}))
"""


def get(server: ServerProcess, path: str) -> httpx.Response:
    """Make one GET request."""
    return httpx.get(server.url(path), trust_env=False, timeout=30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a directory with an app in it that gives up."""
    (tmp_path / "doomed.py").write_text(DOOMED)
    return tmp_path


def marks(server: ServerProcess) -> list[str]:
    """Return what the app has marked, without the process."""
    lines = server.output.splitlines()
    return [line.split()[1] for line in lines if line.startswith("mark ")]


@pytest.mark.parametrize(
    "kind", ["uvicorn-asyncio", "hypercorn-w0", "hypercorn-trio-w0", "granian"]
)
def test_giving_up_ends_the_process(kind: str, folder: Path) -> None:
    """With status 1, after the request in flight was served and all was closed."""
    with ServerProcess(kind, "doomed:guard", cwd=folder) as server:
        server.wait_bound()
        server.wait_output("mark open")
        with ThreadPoolExecutor() as clients:
            slow = clients.submit(get, server, "/slow")
            server.wait_output("mark slow")
            get(server, "/doom")
            assert slow.result(30).status_code == 200
        assert server.wait() == 1
    assert marks(server) == ["open", "slow", "finished", "close"]
    assert "doomed: gave up after 1 attempt(s)" in server.output
    assert "OSError: no licence" in server.output


def test_a_process_manager_starts_another_worker(folder: Path) -> None:
    """Under `uvicorn --workers 2` the worker that gave up is replaced."""
    with ServerProcess(
        "uvicorn", "doomed:guard", cwd=folder, args=("--workers", "2")
    ) as server:
        assert wait_until(lambda: marks(server).count("open") == 2, 30)
        ended = int(get(server, "/doom").text)
        assert wait_until(lambda: marks(server).count("open") == 3, 30), server.output
        assert marks(server).count("close") == 1
        assert f"mark close {ended}" in server.output
        assert wait_until(lambda: _answers(server, other_than=ended), 30)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def _answers(server: ServerProcess, *, other_than: int) -> bool:
    try:
        answer: Any = get(server, "/")
    except httpx.TransportError:
        return False
    return bool(answer.status_code == 200 and int(answer.text) != other_than)
