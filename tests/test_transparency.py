"""What an app may do, and what a scope may lack, without the guard being in the way."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse

from asgi_lifespan_guard import Gate, LifespanGuard, resource
from asgi_lifespan_guard._requests import Requests
from asgi_lifespan_guard.events import LifespanUnsupported, RequestHeld
from tests.recorder import PATIENCE, Recorder
from tests.support.memory_server import MemoryServer
from tests.support.resources import LATER, LivedIn, Tap, Watcher, hello


pytestmark = pytest.mark.anyio


@resource
async def db() -> Any:
    """Be up at once."""
    yield "pool"


HTTP = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []}


class Echo:
    """An app that returns something, which no app should."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        self.scopes.append(scope)
        if isinstance(scope, dict) and scope.get("type") == "lifespan":
            raise NotImplementedError
        return "an odd answer"


async def nothing(*_: Any) -> Any:
    """Be a receive or a send that nobody calls."""
    pytest.fail("nobody should call it")


# What the app returns.


@pytest.mark.parametrize("drain", [False, True])
@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("changes", [{}, {"type": "websocket"}, {"type": "mqtt"}])
async def test_what_the_app_returns_is_returned(
    drain: bool, registered: bool, changes: dict[str, Any]
) -> None:
    """A server may look at it: uvicorn closes the connection, and says so."""
    options: Any = {} if drain else {"drain": None}
    guard = LifespanGuard(Echo(), [db] if registered else [], **options)
    async with MemoryServer(guard) as server:
        await guard.wait_ready(PATIENCE)
        state = dict(server.lifespan.scope["state"])
        for extra in ({}, {"state": state}, {"root_path": "/api"}):
            scope = {**HTTP, **changes, **extra}
            assert await guard(scope, nothing, nothing) == "an odd answer"


async def test_a_request_in_a_request_returns_too() -> None:
    """An app that calls itself in its own task gets what it returns."""

    async def app(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        inner = {**scope, "path": "/inner"}
        return "inner" if scope["path"] != "/" else await guard(inner, receive, send)

    guard = LifespanGuard(app)
    async with MemoryServer(guard):
        assert await guard(dict(HTTP), nothing, nothing) == "inner"


# Scopes that lack what they should have.


ODD = [
    pytest.param({}, id="empty"),
    pytest.param(None, id="none"),
    pytest.param([], id="list"),
    pytest.param({"path": "/"}, id="no-type"),
    pytest.param({"type": None, "path": "/livez"}, id="type-none"),
    pytest.param({"type": []}, id="type-list"),
    pytest.param({"type": "http"}, id="http-no-path"),
    pytest.param({"type": "http", "path": None}, id="path-none"),
    pytest.param({"type": "http", "path": b"/livez"}, id="path-bytes"),
    pytest.param({"type": "http", "path": []}, id="path-list"),
    pytest.param({"type": "http", "path": "/a"}, id="no-root-path"),
    pytest.param({**HTTP, "root_path": b"/api"}, id="root-path-bytes"),
    pytest.param({**HTTP, "root_path": None}, id="root-path-none"),
    pytest.param({**HTTP, "headers": None}, id="headers-none"),
    pytest.param({"type": "websocket"}, id="websocket-no-path"),
    pytest.param({"type": "websocket", "root_path": b"/"}, id="websocket-bytes"),
]


@pytest.mark.parametrize("drain", [False, True])
@pytest.mark.parametrize("scope", ODD)
async def test_an_odd_scope_is_the_apps_business(scope: Any, drain: bool) -> None:
    """What a scope lacks is no error of the guard's, started or not."""
    app, options = Echo(), {} if drain else {"drain": None}
    guard = LifespanGuard(app, **options)  # type: ignore[arg-type]
    assert await guard(scope, nothing, nothing) == "an odd answer"
    async with MemoryServer(guard):
        assert await guard(scope, nothing, nothing) == "an odd answer"
    assert await guard(scope, nothing, nothing) == "an odd answer"
    assert all(given is scope for given in (app.scopes[0], *app.scopes[2:]))


@pytest.mark.parametrize("state", [None, {}, {"own": 1}])
@pytest.mark.parametrize("scope", ODD)
async def test_an_odd_scope_with_resources(scope: Any, state: Any) -> None:
    """With resources registered it is judged as any path that is not listed."""
    app = Echo()
    guard = LifespanGuard(app, [db])
    given = {**scope, "state": state} if isinstance(scope, dict) and state else scope
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
        assert await guard(given, nothing, nothing) == "an odd answer"
    known = isinstance(scope, dict) and scope.get("type") in ("http", "websocket")
    assert (isinstance(app.scopes[-1], dict) and "state" in app.scopes[-1]) is (
        known or given is not scope
    )


ODD_PARTS: list[dict[str, Any]] = [
    {"method": None, "headers": None, "extensions": None, "query_string": None},
    {"method": 5, "headers": [5], "extensions": 5, "query_string": 5, "state": 5},
    {"headers": [(b"accept", "text/html")], "extensions": object(), "state": []},
    {"http_version": None, "headers": 5, "query_string": b"\xff", "state": object()},
]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("parts", ODD_PARTS)
@pytest.mark.parametrize("draining", [False, True])
async def test_an_odd_scope_is_refused_like_any(
    recorder: Recorder, kind: str, parts: dict[str, Any], draining: bool
) -> None:
    """The guard's own answer needs nothing of a scope but its type."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    away = Tap(recorder, errors=[OSError("refused")], retry=LATER)
    guard = LifespanGuard(Echo(), [away.recipe], gate=Gate(wait=0))
    async with MemoryServer(guard):
        if draining:
            guard.begin_drain()
        await guard({"type": kind, "path": "/x", **parts}, receive, send)
    answer = ["http.response.start", "http.response.body"]
    assert sent == (answer if kind == "http" else ["websocket.close"])


@pytest.mark.parametrize("parts", ODD_PARTS)
async def test_an_odd_probe(parts: dict[str, Any]) -> None:
    """What is no GET is not allowed, whatever it is; the rest is not looked at."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message.get("status"))

    guard = LifespanGuard(Echo())
    scope = {"type": "http", "path": "/livez", **parts}
    await guard(scope, nothing, send)
    await guard({**scope, "method": "GET"}, nothing, send)
    assert sent == [405, None, 200, None]


@pytest.mark.parametrize("message", [None, 5, {}, {"type": None}, {"body": None}])
async def test_odd_messages_are_handed_on(recorder: Recorder, message: Any) -> None:
    """What a server gives is what the app gets, held or not, and the other way."""
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got.append(await receive())
        await send(message)

    async def receive() -> Any:
        await checkpoint()
        return message

    async def send(message: Any) -> None:
        got.append(message)

    tap = Tap(recorder, shut=True)
    gate = Gate(wait=PATIENCE)
    guard = LifespanGuard(
        app, [tap.recipe], app_lifespan="off", gate=gate, observers=[recorder]
    )
    async with MemoryServer(guard), create_task_group() as group:
        group.start_soon(guard, dict(HTTP), receive, send)
        await recorder.wait_for(RequestHeld)
        tap.let()
        await guard.wait_ready(PATIENCE)
        await guard({**HTTP, "type": "websocket"}, receive, send)
    assert got == [message] * 4


async def test_odd_messages_about_a_lifespan() -> None:
    """They are passed over, and told once each."""
    said: list[str] = []
    messages = [
        None,
        {},
        {"type": "lifespan.startup"},
        5,
        {"type": "lifespan.shutdown"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        said.append(message["type"])

    await LifespanGuard(Echo())({"type": "lifespan"}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# Behind a root path.


@pytest.mark.parametrize("in_path", [False, True])
async def test_a_root_path_is_as_fast_as_none(
    monkeypatch: pytest.MonkeyPatch, in_path: bool
) -> None:
    """From the second request with one root path on, nothing is looked at twice."""
    slow: list[str] = []
    serve = Requests.serve

    async def watched(self: Any, scope: Any, *args: Any) -> Any:
        slow.append(scope["path"])
        return await serve(self, scope, *args)

    monkeypatch.setattr(Requests, "serve", watched)
    guard = LifespanGuard(hello, [db], drain=None)
    server = MemoryServer(guard, root_path="/api")
    prefix = "/api" if in_path else ""
    async with server:
        await guard.wait_ready(PATIENCE)
        slow.clear()
        paths = ["/first", "/second", "/livez", "/third"]
        answers = [await server.get(prefix + path) for path in paths]
    assert [answer.status for answer in answers] == [200] * 4
    assert [answer.body == b"hello" for answer in answers] == [True, True, False, True]
    # Without the prefix the probe's path is known for what it is at first sight.
    assert slow == [f"{prefix}/first", *(["/api/livez"] if in_path else [])]


async def test_root_paths_may_change() -> None:
    """A probe is found below whichever root path a request has."""
    guard = LifespanGuard(Watcher(), [db])
    for root_path in ("/a", "/b", "", "/b/", "/a"):
        server = MemoryServer(guard, root_path=root_path)
        probe = root_path.rstrip("/") + "/readyz"
        async with server:
            await guard.wait_ready(PATIENCE)
            for path in ("/", "/x", probe, "/x", probe):
                answer = await server.get(path)
                assert (answer.body == b"hello") is (path != probe)


# The state.


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy])
async def test_a_state_can_be_copied(make_copy: Any) -> None:
    """A copy of a request's state is up to date, as the state itself."""
    app = Watcher()
    guard = LifespanGuard(app, [db])
    async with MemoryServer(guard) as server:
        await guard.wait_ready(PATIENCE)
        await server.get("/")
        copied = make_copy(app.scopes[-1]["state"])
        assert copied == app.scopes[-1]["state"]
        scope = {**app.scopes[-1], "state": copied}
        assert LifespanGuard.of(scope) is guard
        await server.get("/")


# Log lines.


async def test_an_app_with_a_lifespan_adds_no_line_to_the_log(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """What the server says of an app's life is not said again, but for who debugs."""
    caplog.set_level(logging.INFO)
    async with MemoryServer(LifespanGuard(LivedIn(recorder))) as server:
        await server.get("/")
    assert caplog.records == []
    caplog.set_level(logging.DEBUG)
    async with MemoryServer(LifespanGuard(LivedIn(recorder))):
        pass
    lines = " ".join(caplog.messages)
    assert "app: up after" in lines
    assert "app: closed after" in lines


async def test_an_app_in_the_background_says_that_it_is_up(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Of what happens behind the open port no server says a word."""
    caplog.set_level(logging.INFO)
    guard = LifespanGuard(LivedIn(recorder), app_lifespan="background")
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
    assert [line.partition(" after")[0] for line in caplog.messages] == [
        "app: up",
        "app: closed",
    ]


class Middleware:
    """A middleware that somebody forgot to give its secret."""

    def __init__(self, app: Any, secret: str) -> None:
        pytest.fail("it was given one")


async def test_a_mistake_at_once_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Starlette builds its middleware when it is first called: with its lifespan."""
    app = Starlette()
    app.add_middleware(Middleware)  # type: ignore[arg-type]
    async with MemoryServer(LifespanGuard(app)):
        pass
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "missing 1 required positional argument: 'secret'" in record.getMessage()
    assert "build_middleware_stack" in (record.exc_text or "")


# Apps that know requests only.


async def test_a_stream_for_every_scope(recorder: Recorder) -> None:
    """An app that answers its lifespan with a stream, too, is served all the same."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"chunk"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(chunks())(scope, receive, send)

    async with MemoryServer(LifespanGuard(app, observers=[recorder])) as server:
        assert (await server.get("/")).body == b"chunk"
    assert server.said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    (event,) = recorder.of(LifespanUnsupported)
    assert not event.unexpected


async def test_an_endpoint_as_the_whole_app() -> None:
    """Starlette's `HTTPEndpoint` is a class, and an app."""

    class Home(HTTPEndpoint):
        async def get(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("home")

    async with MemoryServer(LifespanGuard(Home)) as server:
        assert (await server.get("/")).body == b"home"
