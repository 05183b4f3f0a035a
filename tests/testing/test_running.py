"""An app runs inside `running`, and its requests are as from a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from quart import Quart, request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_lifespan_guard import LifespanGuard, NotReadyError, resource
from asgi_lifespan_guard.testing import Flaky, LifespanError, MemoryServer, running
from tests.support.resources import LivedIn, Watcher, hello


pytestmark = pytest.mark.anyio

REFUSED = OSError("refused")


def client_of(app: Any) -> httpx.AsyncClient:
    """Make a client that sends no lifespan."""
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def shown(request: Request) -> JSONResponse:
    """Show the texts in the state."""
    state = request.scope["state"]
    return JSONResponse({k: v for k, v in state.items() if isinstance(v, str)})


@asynccontextmanager
async def lifespan(app: Any) -> AsyncGenerator[dict[str, str], None]:
    """Yield into the state."""
    yield {"own": "yielded"}


async def test_starlette_with_a_guard_as_middleware() -> None:
    """The guard is found by what it leaves in the state, and waited for."""
    flaky = Flaky(REFUSED, REFUSED, "pool", name="db")
    guard = Middleware(LifespanGuard, resources=[flaky.recipe])
    app = Starlette(routes=[Route("/", shown)], middleware=[guard], lifespan=lifespan)
    async with running(app) as served, client_of(served) as client:
        assert flaky.is_open
        assert (await client.get("/")).json() == {"own": "yielded", "db": "pool"}
    assert not flaky.is_open


async def test_fastapi_without_a_guard() -> None:
    """Any app will do."""
    app = FastAPI(lifespan=lifespan)
    app.router.add_route("/", shown)
    async with running(app) as served, client_of(served) as client:
        assert (await client.get("/")).json() == {"own": "yielded"}


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_quart() -> None:
    """Quart's app object passes the lifespan through its guard."""
    flaky = Flaky("pool", name="db")
    app = Quart(__name__)
    app.asgi_app = LifespanGuard(  # type: ignore[method-assign]
        app.asgi_app, [flaky.recipe]
    )

    @app.get("/")
    async def home() -> str:
        return flaky.recipe.get(request)  # type: ignore[no-any-return]

    async with running(app) as served, client_of(served) as client:
        assert (await client.get("/")).text == "pool"


async def test_each_request_has_a_state_of_its_own() -> None:
    """What a request puts into its state no other one sees."""
    app = Watcher()
    guard = LifespanGuard(app, [resource(value, name="db")])
    async with running(guard) as served, client_of(served) as client:
        await client.get("/")
        app.scopes[-1]["state"]["body"] = b"mine"
        await client.get("/")
        states = [scope["state"] for scope in app.scopes[-2:]]
    assert states[0] is not states[1]
    assert "body" not in states[1]
    assert states[1]["db"] == "value"


async def value() -> str:
    """Be a step."""
    return "value"


async def test_an_app_without_a_lifespan() -> None:
    """It is served, with an empty state; what raises later on is not taken for it."""
    async with running(hello) as served, client_of(served) as client:
        assert (await client.get("/")).text == "hello"


async def test_without_waiting() -> None:
    """With ``ready=False`` it can be seen how requests are treated meanwhile."""
    go = anyio.Event()
    flaky = Flaky(go, "pool")
    guard = LifespanGuard(hello, [flaky.recipe])
    async with running(guard, ready=False) as served, client_of(served) as client:
        assert (await client.get("/readyz")).status_code == 503
        go.set()
        assert (await client.get("/")).status_code == 200


async def test_not_ready_in_time() -> None:
    """After the timeout it says what is missing, and closes what is open."""
    open_one, shut = Flaky(name="cache"), Flaky(anyio.Event(), name="db")
    guard = LifespanGuard(hello, [open_one.recipe, shut.recipe])
    with pytest.raises(NotReadyError, match=r"after 0\.05 s.* db") as caught:
        async with running(guard, timeout=0.05):
            pytest.fail("it was ready")
    assert caught.value.__notes__ == ["db is opening: no attempt has failed"]
    assert not open_one.is_open


async def test_never_to_be_ready() -> None:
    """What has given up is not waited for."""
    flaky = Flaky(REFUSED, name="db", retry=None)
    guard = LifespanGuard(hello, [flaky.recipe])
    with pytest.raises(NotReadyError) as caught:
        async with running(guard, timeout=3600.0):
            pytest.fail("it was ready")
    assert caught.value.__notes__ == ["db is failed: OSError: refused"]
    assert caught.value.timeout < 3600


async def test_a_failing_startup(recorder: Any) -> None:
    """It is raised as the server's tests have it."""
    app = LivedIn(recorder, errors=[REFUSED])
    with pytest.raises(LifespanError) as caught:
        async with running(app):
            pytest.fail("it started")
    assert caught.value.__cause__ is REFUSED


async def test_an_app_that_forgets_the_shutdown() -> None:
    """Nobody has to be told twice that it did not start, or did not end well."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    with pytest.raises(LifespanError, match=r"without an answer to lifespan\.shutdown"):
        async with running(app):
            await anyio.wait_all_tasks_blocked()


async def test_an_app_that_returns_from_its_startup() -> None:
    """Having received, it has a lifespan, and that did not start."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    with pytest.raises(LifespanError, match=r"without an answer to lifespan\.startup"):
        async with running(app):
            pytest.fail("it started")


async def test_a_body_that_raises() -> None:
    """Its error is its own, and everything is closed."""
    flaky = Flaky()
    with pytest.raises(KeyError, match="mine"):
        async with running(LifespanGuard(hello, [flaky.recipe])):
            raise KeyError("mine")
    assert (flaky.opened, flaky.closed) == (1, 1)


async def test_a_body_that_is_cancelled() -> None:
    """Everything is closed then, too."""
    flaky = Flaky()
    with anyio.CancelScope() as scope:
        async with running(LifespanGuard(hello, [flaky.recipe])):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert (flaky.opened, flaky.closed) == (1, 1)


class Outcome(BaseException):
    """As pytest's own outcomes, it is no `Exception`."""


async def test_what_is_no_exception_comes_through() -> None:
    """``pytest.fail()`` inside an app's shutdown fails the test."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise Outcome

    with pytest.raises(Outcome):
        async with MemoryServer(app):
            await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("use_uvloop", [False, True], ids=["asyncio", "uvloop"])
def test_left_in_another_task(use_uvloop: bool) -> None:
    """A fixture of pytest-asyncio is entered in one task and left in another."""
    flaky = Flaky("pool", name="db")
    guard = LifespanGuard(hello, [flaky.recipe])
    context = running(guard)

    async def main() -> None:
        served = await asyncio.ensure_future(context.__aenter__())
        async with client_of(served) as client:
            assert (await client.get("/")).text == "hello"
        await asyncio.ensure_future(context.__aexit__(None, None, None))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    options = {"use_uvloop": use_uvloop}
    anyio.run(main, backend="asyncio", backend_options=options)
    assert (flaky.opened, flaky.closed) == (1, 1)


async def test_no_task_is_left() -> None:
    """Not even of an app that goes on after its shutdown, as Quart does."""
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            received.append((await receive())["type"])
            await send({"type": f"{received[-1]}.complete"})

    before = len(anyio.get_running_tasks())
    async with running(app):
        assert received == ["lifespan.startup"]
    assert received == ["lifespan.startup", "lifespan.shutdown"]
    assert len(anyio.get_running_tasks()) == before
