"""Every example keeps the promise, on a real server and a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Any

import asyncpg
import httpx
import pytest
from websockets import ConnectionClosed
from websockets.sync.client import connect

from examples.demo import wait_until
from examples.demo.postgres import Postgres
from examples.demo.servers import ServerProcess


pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
APPS = (
    "fastapi_app",
    "litestar_app",
    "quart_app",
    "starlette_app",
    "django_app",
    "plain_asgi",
)
GOODBYE_APP = "plain_asgi"
FAILED_ATTEMPT = "db: attempt "
SERVICE_RESTART = 1012
# More than the gate reads ahead, so a part of it waits in the server.
LONG_TEXT = "buy milk " * 10_000
# More patience than any gate has here; and no certificates to load for each request.
HTTP: Any = {"timeout": 40, "trust_env": False, "verify": False}

Serve = Callable[..., ServerProcess]


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest) -> str:
    """Name one of the examples."""
    return str(request.param)


@pytest.fixture(params=["uvicorn", "hypercorn"])
def kind(request: pytest.FixtureRequest) -> str:
    """Name one of the servers."""
    return str(request.param)


@pytest.fixture
def serve(postgres: Postgres, upstream: str) -> Serve:
    """Return what plans a server for an example."""
    env = {
        "DATABASE_URL": postgres.dsn,
        "UPSTREAM_URL": upstream,
        "NO_PROXY": "127.0.0.1",
    }

    def plan(kind: str, app: str, **more_env: str) -> ServerProcess:
        name = f"examples.{app}:app"
        return ServerProcess(kind, name, env={**env, **more_env}, cwd=ROOT)

    return plan


def get(server: ServerProcess, path: str) -> httpx.Response:
    """Ask for a path."""
    return httpx.get(server.url(path), **HTTP)


def post(server: ServerProcess, text: str) -> httpx.Response:
    """Post one note."""
    return httpx.post(server.url("/notes"), json={"text": text}, **HTTP)


def wait_ready(server: ServerProcess) -> None:
    """Wait until the server is ready."""
    assert wait_until(lambda: get(server, "/readyz").status_code == 200, timeout=30)


def stop(server: ServerProcess) -> None:
    """End the server with SIGTERM, and make sure that it went well."""
    server.terminate()
    wait_ended_well(server)


def wait_ended_well(server: ServerProcess) -> None:
    """Wait until the server is gone; it had to cut nothing, and did not complain."""
    assert server.wait() in (0, -SIGTERM)
    assert ": cut" not in server.output
    assert "Traceback" not in server.output
    assert wait_until(lambda: not server.processes(), timeout=30)


@contextmanager
def events(server: ServerProcess) -> Iterator[Iterator[str]]:
    """Listen to a service's events; give their lines that are not comments."""
    headers = {"accept": "text/event-stream"}
    with httpx.stream("GET", server.url("/notes/events"), headers=headers, **HTTP) as r:
        assert r.status_code == 200
        assert r.headers["content-type"].startswith("text/event-stream")
        yield (line for line in r.iter_lines() if line and not line.startswith(":"))


def in_database(postgres: Postgres, *statements: str) -> None:
    """Execute statements."""

    async def run() -> None:
        connection = await asyncpg.connect(postgres.dsn, timeout=30)
        try:
            await connection.execute(";".join(statements))
        finally:
            await connection.close()

    asyncio.run(run())


def test_answers_what_it_can_while_the_database_is_away(
    kind: str, app: str, serve: Serve
) -> None:
    """The port is open, liveness is good, what needs no database works."""
    with serve(kind, app, GATE_WAIT="0.1") as server:
        server.wait_bound()
        assert get(server, "/livez").status_code == 200
        assert get(server, "/readyz").status_code == 503
        assert "needs nothing" in get(server, "/about").json()["about"]
        assert get(server, "/upstream").json() == {"upstream": 418}

        refused = get(server, "/notes")
        assert refused.status_code == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 5
        assert refused.headers["content-type"] == "application/problem+json"
        stop(server)


def test_holds_a_request_until_the_database_is_up(
    kind: str, app: str, serve: Serve, postgres: Postgres
) -> None:
    """A note that is posted too early is kept, whole, as soon as that is possible."""
    postgres.initialise()  # so that it starts in no time
    with ThreadPoolExecutor() as pool, serve(kind, app, GATE_WAIT="30") as server:
        server.wait_bound()
        held = pool.submit(post, server, LONG_TEXT)
        wait_for_another_attempt(server, held)
        postgres.start()

        note = {"id": 1, "text": LONG_TEXT, "tag": "shopping"}
        assert held.result().status_code == 201
        assert held.result().json() == note
        wait_ready(server)
        assert post(server, "ünexpected").json()["tag"] == "other"
        second = {"id": 2, "text": "ünexpected", "tag": "other"}
        assert get(server, "/notes").json() == [note, second]
        stop(server)


def wait_for_another_attempt(server: ServerProcess, held: Future[Any]) -> None:
    """Wait until the database was tried again, in vain, while a request is held."""
    assert get(server, "/livez").status_code == 200  # so the request is there, too
    so_far = server.output.count(FAILED_ATTEMPT)
    assert wait_until(lambda: server.output.count(FAILED_ATTEMPT) > so_far, timeout=30)
    assert not held.done()


# Not hypercorn's usual worker: it keeps signals from its app.
@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn-w0"], indirect=True)
def test_streams_live_until_the_end(
    kind: str, app: str, serve: Serve, postgres: Postgres
) -> None:
    """Events and a WebSocket tell of new notes until SIGTERM, and end properly."""
    postgres.start()
    with serve(kind, app) as server:
        server.wait_bound()
        url = server.url("/notes/live").replace("http", "ws")
        with events(server) as lines, connect(url, proxy=None) as live:
            assert next(lines) == "data: 0"
            assert post(server, "water the plants").status_code == 201
            assert next(lines) == "data: 1"
            live.send("buy milk")
            note = {"id": 2, "text": "buy milk", "tag": "shopping"}
            assert json.loads(live.recv()) == note
            assert next(lines) == "data: 2"

            server.terminate()
            goodbye = ["event: goodbye", "data:"] if app == GOODBYE_APP else []
            assert list(lines) == goodbye  # raises where the body has no proper end
            with pytest.raises(ConnectionClosed) as closed:
                live.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == SERVICE_RESTART
        wait_ended_well(server)


def test_a_missing_model_fails_the_startup(app: str, serve: Serve) -> None:
    """Without its model no example serves, and it says which one is missing."""
    with serve("uvicorn", app, MODEL_FILE="no-such-file.json") as server:
        assert server.wait() == 3
        assert server.bound_at is None
        assert "'model'" in server.output
        assert "no-such-file.json" in server.output


def test_the_cleanup_deletes_orphans(serve: Serve, postgres: Postgres) -> None:
    """What a former life left behind is gone after the next start."""
    postgres.start()
    with serve("uvicorn", "plain_asgi") as server:
        server.wait_bound()
        assert post(server, "").status_code == 201
        assert post(server, "call me").status_code == 201
        stop(server)
    with serve("uvicorn", "plain_asgi") as server:
        server.wait_bound()
        assert wait_until(lambda: len(get(server, "/notes").json()) == 1, timeout=30)
        assert get(server, "/notes").json()[0]["text"] == "call me"


def test_a_failing_cleanup_stops_nobody(serve: Serve, postgres: Postgres) -> None:
    """The clean-up may fail: that is logged, and the service is ready without it."""
    postgres.start()
    in_database(
        postgres,
        "CREATE TABLE notes (id int, text text, tag text)",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE 'nothing is deleted here'; END $$",
        "CREATE TRIGGER refuse BEFORE DELETE ON notes EXECUTE FUNCTION refuse()",
    )
    with serve("uvicorn", "plain_asgi") as server:
        server.wait_output("cleanup: gave up after 1 attempt.*nothing is deleted here")
        wait_ready(server)
        assert get(server, "/notes").json() == []
