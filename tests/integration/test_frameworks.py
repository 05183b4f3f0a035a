"""Frameworks and their test clients, with a guard put in as each recommends it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager

from asgi_lifespan_guard import (
    AppCannotRestartError,
    LifespanGuard,
    lifespan_of,
    resource,
)
from asgi_lifespan_guard.events import ResourceGaveUp, ResourceOpened
from tests.recorder import Recorder
from tests.support.django_site import application_of
from tests.support.frameworks import Story, fastapi, litestar, quart, starlette
from tests.support.memory_server import LifespanError, MemoryServer
from tests.support.resources import SOON, Tap, hello


ON_ASYNCIO = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {})], ids=["asyncio"]
)
OWN = '{"own":"yielded"}'


@resource
async def db() -> AsyncGenerator[str, None]:
    """Be a pool."""
    yield "a pool"


@pytest.fixture
def story() -> Story:
    """Return the story of an app that lives well."""
    return Story()


# Starlette and FastAPI.


@pytest.mark.parametrize("make", [starlette, fastapi])
def test_as_middleware_under_the_test_client(story: Story, make: Any) -> None:
    """`add_middleware` and `with TestClient(app)`, twice: lifespan, state, probes."""
    from starlette.testclient import TestClient

    app = make(story)
    app.add_middleware(LifespanGuard, resources=[db])
    for life in (1, 2):
        with TestClient(app) as client:
            told, state = client.get("/").json()
            assert state == {"own": "yielded", "db": "a pool"}
            assert told == ["starts", "stops"] * (life - 1) + ["starts"]
            with client.websocket_connect("/ws") as websocket:
                assert websocket.receive_json() == state
            assert client.get("/readyz").status_code == 200
    assert story.told == ["starts", "stops"] * 2


@pytest.mark.parametrize("make", [starlette, fastapi])
def test_test_client_that_is_not_entered(story: Story, make: Any) -> None:
    """Without `with`, where nothing was started, the answer says what to do."""
    from starlette.testclient import TestClient, WebSocketDenialResponse

    client = TestClient(LifespanGuard(make(story), [db]))
    answer = client.get("/")
    assert answer.status_code == 503
    assert "with TestClient(app)" in answer.json()["detail"]
    with pytest.raises(WebSocketDenialResponse) as denied:
        client.websocket_connect("/ws").__enter__()
    assert denied.value.status_code == 503
    client.close()


def test_below_other_middleware(story: Story) -> None:
    """Below middleware that was added later, the guard works as well."""
    from starlette.middleware.cors import CORSMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.testclient import TestClient

    app = starlette(story)
    app.add_middleware(LifespanGuard, resources=[db])
    app.add_middleware(GZipMiddleware)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    with TestClient(app) as client:
        answer = client.get("/", headers={"origin": "https://example.org"})
        assert answer.json()[1]["db"] == "a pool"
        assert answer.headers["access-control-allow-origin"] == "*"


def test_starlette_lifespan_is_given_its_app() -> None:
    """As a middleware the guard passes the `app` in the scope on to the lifespan."""
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    given = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[None, None]:
        given.append(app)
        yield

    app = Starlette(lifespan=lifespan)
    app.add_middleware(LifespanGuard, resources=[db])
    with TestClient(app):
        assert given == [app]


def test_startup_that_fails_reaches_the_test_client() -> None:
    """The test client raises what the app's own startup raised."""
    from starlette.testclient import TestClient

    app = starlette(Story(OSError("refused")))
    app.add_middleware(LifespanGuard, resources=[db])
    with pytest.raises(OSError, match="refused"), TestClient(app):
        pytest.fail("it started")


@pytest.mark.anyio
@pytest.mark.parametrize("make", [starlette, fastapi, litestar])
async def test_a_slow_lifespan_is_retried_behind_the_port(
    recorder: Recorder, make: Any
) -> None:
    """`app_lifespan="background"` mends an app whose lifespan fails, untouched."""
    story = Story(OSError("1"), OSError("2"))
    background = lifespan_of(retry=SOON)
    guard = LifespanGuard(make(story), app_lifespan=background, observers=[recorder])
    async with MemoryServer(guard) as server:
        told, state = (await server.get("/")).json()
        assert told == ["starts"] * 3
        assert state == ({} if make is litestar else {"own": "yielded"})
    assert story.told == ["starts", "starts", "starts", "stops"]


@pytest.mark.anyio
async def test_crash_of_a_task_group_in_a_lifespan(recorder: Recorder) -> None:
    """Starlette's early `shutdown.failed` makes the guard unready."""
    import anyio
    from starlette.applications import Starlette

    crash = anyio.Event()

    async def consume() -> None:
        await crash.wait()
        raise ConnectionResetError("the queue is gone")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[None, None]:
        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            yield
            group.cancel_scope.cancel()

    guard = LifespanGuard(Starlette(lifespan=lifespan), observers=[recorder])
    async with MemoryServer(guard) as server:
        assert (await server.get("/readyz")).status == 200
        crash.set()
        await recorder.wait_for(ResourceGaveUp)
        assert (await server.get("/readyz")).status == 503
        assert (await server.get("/livez")).status == 200
    assert server.said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# Litestar.


def test_litestar_test_client(story: Story) -> None:
    """Litestar's test client runs the guard's lifespan, twice, and sees its state."""
    from litestar.testing import TestClient

    guard: Any = LifespanGuard(litestar(story), [db])
    for _ in range(2):
        with TestClient(app=guard) as client:
            assert client.get("/").json()[1] == {"db": "a pool"}
            with client.websocket_connect("/ws") as websocket:
                assert websocket.receive_json() == {"db": "a pool"}
    assert story.told == ["starts", "stops"] * 2


@pytest.mark.anyio
async def test_litestar_keeps_bodies_apart(recorder: Recorder) -> None:
    """Litestar keeps a request's body in the state: no two requests share one."""
    from litestar import Litestar, Request, post

    async def echo(request: Any) -> str:
        return bytes(await request.body()).decode()

    echo.__annotations__ = {"request": Request, "return": str}
    guard = LifespanGuard(Litestar([post("/")(echo)]), [db], observers=[recorder])
    async with MemoryServer(guard, state_for_request=lambda shared: shared) as server:
        bodies = [
            (await server.http("/", method="POST", body=[text]).run()).body
            for text in (b"one", b"two")
        ]
    assert bodies == [b"one", b"two"]


# Quart.


@pytest.mark.anyio
@ON_ASYNCIO
async def test_quart_test_app(story: Story) -> None:
    """Quart's own idiom, `app.asgi_app = Guard(app.asgi_app)`, and its `test_app()`."""
    app = quart(story)
    app.asgi_app = LifespanGuard(app.asgi_app, [db])
    for _ in range(2):
        async with app.test_app() as running:
            client = running.test_client()
            answer = await client.get("/")
            assert (await answer.get_json())[1] == {"db": "a pool"}
            async with client.websocket("/ws") as websocket:
                assert await websocket.receive_json() == {"db": "a pool"}
    assert story.told == ["starts", "stops"] * 2


@pytest.mark.anyio
@ON_ASYNCIO
async def test_quart_test_client_alone(story: Story) -> None:
    """`test_client()` without `test_app()` starts nothing, and hears what to do."""
    app = quart(story)
    app.asgi_app = LifespanGuard(app.asgi_app, [db])
    answer = await app.test_client().get("/")
    assert answer.status_code == 503
    assert "test_app()" in (await answer.get_json())["detail"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("trio", {})], ids=["trio"])
async def test_quart_trio(recorder: Recorder) -> None:
    """On trio Quart's sibling is run, retried and closed."""
    from quart_trio import QuartTrio

    story = Story(OSError("refused"))
    app = QuartTrio(__name__)

    async def begin() -> None:
        story.begin()

    async def end() -> None:
        story.end()

    app.before_serving(begin)
    app.after_serving(end)
    background = lifespan_of(retry=SOON)
    guard = LifespanGuard(app, app_lifespan=background, observers=[recorder])
    async with MemoryServer(guard):
        await recorder.wait_for(ResourceOpened)
    assert story.told == ["starts", "stops", "starts", "stops"]


# Apps that cannot be started twice.


def _refuse() -> None:
    raise OSError("refused")


def _quart_while_serving() -> Any:
    from quart import Quart

    app = Quart(__name__)

    @app.while_serving
    async def serve() -> AsyncGenerator[None, None]:
        _refuse()
        yield

    return app


def _litestar_with_an_instance() -> Any:
    from litestar import Litestar

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None, None]:
        _refuse()
        yield

    return Litestar(lifespan=[lifespan()])


def _mcp_session_manager() -> Any:
    from mcp.server.lowlevel import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.applications import Starlette

    manager = StreamableHTTPSessionManager(Server("tests"))

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[None, None]:
        async with manager.run():
            _refuse()
            yield

    return Starlette(lifespan=lifespan)


@pytest.mark.anyio
@ON_ASYNCIO
@pytest.mark.parametrize(
    "make", [_quart_while_serving, _litestar_with_an_instance, _mcp_session_manager]
)
async def test_apps_that_cannot_be_started_twice(recorder: Recorder, make: Any) -> None:
    """Quart's generators, an instance in Litestar, MCP's manager: told, not retried."""
    background = lifespan_of(retry=SOON)
    guard = LifespanGuard(make(), app_lifespan=background, observers=[recorder])
    async with MemoryServer(guard):
        gave_up = await recorder.wait_for(ResourceGaveUp)
    assert isinstance(gave_up.error, AppCannotRestartError)
    assert gave_up.attempts == 2


@pytest.mark.anyio
async def test_a_group_is_told_by_what_is_in_it(recorder: Recorder) -> None:
    """Litestar fails with a group; the last line of its traceback says nothing."""
    app = litestar(Story(OSError("refused")))
    server = MemoryServer(LifespanGuard(app, observers=[recorder]))
    with pytest.raises(LifespanError):
        async with server:
            pytest.fail("it started")
    assert "OSError: refused" in str(recorder.of(ResourceGaveUp)[0].error)


# Django, Channels, ASGI 2.


@pytest.fixture(scope="session")
def django() -> Any:
    """Return Django's ASGI app, with one view that shows the state."""
    from django.http import JsonResponse

    def home(request: Any) -> Any:
        state = request.scope["state"]
        return JsonResponse({key: state[key] for key in state if key == "db"})

    return application_of(home)


@pytest.mark.anyio
@ON_ASYNCIO
async def test_django(recorder: Recorder, django: Any) -> None:
    """Django has no lifespan of its own; its views see the state."""
    guard = LifespanGuard(django, [db], observers=[recorder])
    async with MemoryServer(guard) as server:
        request = await server.get("/", (b"host", b"localhost"))
        assert request.json() == {"db": "a pool"}
    assert server.said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.anyio
@ON_ASYNCIO
async def test_channels(recorder: Recorder, django: Any) -> None:
    """A Channels router has none either; its consumers see the state."""
    from channels.generic.websocket import AsyncJsonWebsocketConsumer
    from channels.routing import ProtocolTypeRouter

    base: Any = AsyncJsonWebsocketConsumer

    class Consumer(base):  # type: ignore[misc]
        async def connect(self) -> None:
            await self.accept()
            await self.send_json({"db": db.get(self.scope)})
            await self.close()

    router = ProtocolTypeRouter({"http": django, "websocket": Consumer.as_asgi()})
    guard = LifespanGuard(router, [db], observers=[recorder])
    async with MemoryServer(guard) as server:
        handshake = server.websocket("/")
        handshake.scope["query_string"] = b""
        async with _in_the_background(handshake):
            await handshake.wait_until(lambda: handshake.phase == "closed")
            handshake.feed({"type": "websocket.disconnect", "code": 1000})
    assert handshake.sent[1]["text"] == '{"db": "a pool"}'


@asynccontextmanager
async def _in_the_background(exchange: Any) -> AsyncGenerator[None, None]:
    import anyio

    async with anyio.create_task_group() as group:
        group.start_soon(exchange.run)
        yield


@pytest.mark.anyio
async def test_an_asgi_2_class(recorder: Recorder) -> None:
    """An ASGI 2 class with a lifespan is run, and fails, as any other app."""

    class App:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            if self.scope["type"] != "lifespan":
                await hello(self.scope, receive, send)
                return
            for stage in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{stage}"
                recorder.mark(stage)
                await send({"type": f"lifespan.{stage}.complete"})

    async with MemoryServer(LifespanGuard(App, [db])) as server:
        assert (await server.get("/")).body == b"hello"
    assert recorder.marks == ["startup", "shutdown"]


# Clients without sockets.


@pytest.mark.anyio
async def test_httpx_with_asgi_lifespan(recorder: Recorder) -> None:
    """`LifespanManager` and httpx's transport: the guard is started and stopped."""
    tap = Tap(recorder)
    guard = LifespanGuard(hello, [tap.recipe])
    async with LifespanManager(guard) as manager:
        transport = httpx.ASGITransport(manager.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://t"
        ) as client:
            assert (await client.get("/")).text == "hello"
    assert recorder.marks == ["open db", "close db"]


@pytest.mark.anyio
async def test_httpx_alone() -> None:
    """Of itself httpx's transport never sends a lifespan: the answer says so."""
    transport = httpx.ASGITransport(LifespanGuard(hello, [db]))
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        answer = await client.get("/")
        assert (await client.get("/livez")).status_code == 200
    assert answer.status_code == 503
    assert "lifespan" in answer.json()["detail"]
