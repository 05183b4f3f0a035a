"""Who a guard lets in, while its resources come and go."""

from __future__ import annotations

from itertools import chain
from typing import Any

import anyio
import pytest
from tenacity import wait_fixed

from asgi_lifespan_guard import Gate, LifespanGuard, Retry
from asgi_lifespan_guard.events import (
    AttemptFailed,
    RequestAbandoned,
    RequestHeld,
    RequestRefused,
    ResourceGaveUp,
    ResourceOpened,
)
from tests.recorder import Recorder
from tests.support.memory_server import LifespanError, MemoryServer
from tests.support.resources import LATER, Tap, Watcher, hello


pytestmark = pytest.mark.anyio

PATIENT = Gate(wait=3600.0)
REFUSED = OSError("refused")


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_holds_until_everything_required_is_up(
    recorder: Recorder, kind: str
) -> None:
    """A request is held until the last required resource is up, then let in."""
    app = Watcher()
    db, cache = Tap(recorder, "db", shut=True), Tap(recorder, "cache", shut=True)
    docs = Tap(recorder, "docs", required=False, shut=True)
    guard = LifespanGuard(
        app,
        [db.recipe, cache.recipe, docs.recipe],
        gate=PATIENT,
        observers=[recorder],
    )
    async with MemoryServer(guard) as server:
        request: Any = getattr(server, kind)("/")
        async with anyio.create_task_group() as group:
            group.start_soon(request.run)
            await recorder.wait_for(RequestHeld)
            db.let()
            await recorder.wait_for_mark("open db")
            await anyio.wait_all_tasks_blocked()
            assert [scope["type"] for scope in app.scopes] == ["lifespan"]
            cache.let()
        assert request.phase in ("answered", "closed")
    assert app.state == {"db": "db 1", "cache": "cache 1"}


async def test_keeps_a_held_body_whole(recorder: Recorder) -> None:
    """What a client sends while it is held reaches the app, piece by piece."""
    pieces = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            more = True
            while more:
                message = await receive()
                pieces.append(message["body"])
                more = message["more_body"]
        await hello(scope, receive, send)

    db = Tap(recorder, shut=True)
    guard = LifespanGuard(app, [db.recipe], gate=PATIENT, observers=[recorder])
    async with MemoryServer(guard) as server, anyio.create_task_group() as group:
        request = server.http("/", method="POST", body=[b"a", b"", b"bc", b"d"])
        group.start_soon(request.run)
        await recorder.wait_for(RequestHeld)
        db.let()
    assert b"".join(pieces) == b"abcd"


async def test_refuses_at_once_when_the_next_attempt_is_far(recorder: Recorder) -> None:
    """Retry-After comes from the retry schedule."""
    db = Tap(recorder, errors=[REFUSED], retry=Retry(wait=wait_fixed(90)))
    guard = LifespanGuard(hello, [db.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(AttemptFailed)
        request = await server.get("/")
        assert (request.status, request.headers["retry-after"]) == (503, "90")
        page = await server.get("/", (b"accept", b"text/html"))
        assert b'http-equiv="refresh" content="90"' in page.body
        handshake = await server.websocket("/").run()
        assert (handshake.status, handshake.headers["retry-after"]) == (503, "90")
    assert {e.reason for e in recorder.of(RequestRefused)} == {"not ready"}


async def test_a_dependent_is_as_far_away_as_what_it_needs(recorder: Recorder) -> None:
    """What waits for a need is not to be expected before that need."""
    db = Tap(recorder, errors=[REFUSED], retry=Retry(wait=wait_fixed(90)))
    cache = Tap(recorder, "cache", needs=[db.recipe])
    gate = Gate(needs={"/": [cache.recipe]})
    guard = LifespanGuard(
        hello, [db.recipe, cache.recipe], gate=gate, observers=[recorder]
    )
    async with MemoryServer(guard) as server:
        await recorder.wait_for(AttemptFailed)
        assert (await server.get("/")).headers["retry-after"] == "90"


async def test_a_graph_of_many_ways_is_walked_once(recorder: Recorder) -> None:
    """Refusing a request is no more work for three to the twentieth ways."""
    away: dict[str, Any] = {"errors": [REFUSED], "retry": Retry(wait=wait_fixed(600))}
    layers = [[Tap(recorder, f"r0_{i}", **away).recipe for i in range(3)]]
    for depth in range(1, 20):
        names = [f"r{depth}_{i}" for i in range(3)]
        layers.append([Tap(recorder, name, needs=layers[-1]).recipe for name in names])
    guard = LifespanGuard(hello, list(chain(*layers)), observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(AttemptFailed, 3)
        refused = await server.get("/")
    assert (refused.status, refused.headers["retry-after"]) == (503, "600")
    assert recorder.marks == []


async def test_given_up_is_refused_without_a_retry_after(recorder: Recorder) -> None:
    """Where a resource has given up nothing is promised."""
    db = Tap(recorder, errors=[REFUSED], retry=None)
    guard = LifespanGuard(hello, [db.recipe], gate=PATIENT, observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceGaveUp)
        request = await server.get("/")
        assert (request.status, request.headers.get("retry-after")) == (503, None)


async def test_the_held_are_refused_when_it_gives_up(recorder: Recorder) -> None:
    """Who is held when a resource gives up is answered at once."""
    db = Tap(recorder, errors=[REFUSED], retry=None, shut=True)
    guard = LifespanGuard(hello, [db.recipe], gate=PATIENT, observers=[recorder])
    async with MemoryServer(guard) as server:
        request = server.http("/")
        async with anyio.create_task_group() as group:
            group.start_soon(request.run)
            await recorder.wait_for(RequestHeld)
            db.let()
        assert request.status == 503


async def test_paths_need_what_is_listed(recorder: Recorder) -> None:
    """Longest prefix, segment boundary, `()` for open; all others need everything."""
    db = Tap(recorder)
    index = Tap(recorder, "index", errors=[REFUSED], retry=LATER)
    gate = Gate(
        needs={"/search": [index.recipe], "/docs": (), "/docs/live": [db.recipe]}
    )
    recipes = [db.recipe, index.recipe]
    guard = LifespanGuard(hello, recipes, gate=gate, observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(AttemptFailed)
        await recorder.wait_for_mark("open db")
        expected = {
            "/": 503,
            "/search": 503,
            "/docs": 200,
            "/docs/": 200,
            "/docs/any": 200,
            "/docs/live": 200,
            "/docsearch": 503,
        }
        statuses = {path: (await server.get(path)).status for path in expected}
    assert statuses == expected


@pytest.mark.parametrize("in_path", [True, False])
async def test_paths_are_below_the_root_path(recorder: Recorder, in_path: bool) -> None:
    """Prefixes are matched without the root path, wherever the server puts that."""
    gate = Gate(needs={"/docs": ()})
    db = Tap(recorder, errors=[REFUSED], retry=LATER)
    guard = LifespanGuard(hello, [db.recipe], gate=gate, observers=[recorder])
    prefix = "/api" if in_path else ""
    async with MemoryServer(guard, root_path="/api") as server:
        await recorder.wait_for(AttemptFailed)
        assert (await server.get(f"{prefix}/docs")).status == 200
        assert (await server.get(f"{prefix}/x")).status == 503
        assert (await server.get(f"{prefix}/livez")).status == 200


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_open_paths_pass_before_any_startup(
    recorder: Recorder, kind: str
) -> None:
    """A path that needs nothing is served even where no lifespan ever comes."""
    app = Watcher()
    gate = Gate(needs={"/docs": ()})
    guard = LifespanGuard(app, [Tap(recorder).recipe], gate=gate)
    request: Any = getattr(MemoryServer(guard), kind)("/docs")
    await request.run()
    assert request.phase in ("answered", "closed")
    assert app.scopes[-1] is request.scope


async def test_never_started(recorder: Recorder) -> None:
    """Where no lifespan ever came, the answer names the remedies."""
    guard = LifespanGuard(hello, [Tap(recorder).recipe], observers=[recorder])
    server = MemoryServer(guard)
    request = await server.get("/")
    assert (request.status, request.headers.get("retry-after")) == (503, None)
    assert "with TestClient(app)" in request.json()["detail"]
    assert (await server.websocket("/").run()).status == 503
    assert {e.reason for e in recorder.of(RequestRefused)} == {"never started"}
    assert (await server.get("/livez")).status == 200
    assert (await server.get("/readyz")).status == 503


async def test_never_started_with_nothing_required(recorder: Recorder) -> None:
    """Without anything required the app is served with or without a lifespan."""
    docs = Tap(recorder, "docs", required=False)
    for resources in ([], [docs.recipe]):
        server = MemoryServer(LifespanGuard(hello, resources))
        assert (await server.get("/")).status == 200


async def test_stopped(recorder: Recorder) -> None:
    """After the shutdown, and after a failed startup, nobody is let in."""
    model = Tap(recorder, startup="blocking", errors=[REFUSED])
    guard = LifespanGuard(hello, [model.recipe], observers=[recorder])
    server = MemoryServer(guard)
    with pytest.raises(LifespanError):
        async with server:
            pytest.fail("it started")
    assert "has stopped" in (await server.get("/")).json()["detail"]
    async with MemoryServer(guard) as again:
        assert (await again.get("/")).status == 200
    assert "has stopped" in (await again.get("/")).json()["detail"]


async def test_nobody_is_let_in_before_the_startup_is_complete(
    recorder: Recorder,
) -> None:
    """A server that sends requests during a blocking startup has them held."""
    app = Watcher()
    model = Tap(recorder, "model", startup="blocking", shut=True)
    guard = LifespanGuard(app, [model.recipe], gate=PATIENT, observers=[recorder])
    server = MemoryServer(guard)
    request = server.http("/")
    async with anyio.create_task_group() as group:
        server.lifespan.feed({"type": "lifespan.startup"})
        group.start_soon(server.lifespan.run)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(request.run)
        await recorder.wait_for(RequestHeld)
        model.let()
        await request.wait_until(lambda: request.phase == "answered")
        group.cancel_scope.cancel()
    assert request.status == 200


async def test_a_crash_closes_the_gate(recorder: Recorder) -> None:
    """While a crashed resource is away requests are refused or held again."""
    db = Tap(recorder, retry=LATER)
    guard = LifespanGuard(hello, [db.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 2)
        assert (await server.get("/")).status == 200
        db.errors.append(OSError("refused"))
        db.crash()
        await recorder.wait_for(AttemptFailed)
        assert (await server.get("/")).status == 503


async def test_a_client_that_leaves_is_not_held_any_more(recorder: Recorder) -> None:
    """Only so many are held; when one leaves, another can be."""
    gate = Gate(wait=3600.0, max_waiting=1)
    db = Tap(recorder, shut=True)
    guard = LifespanGuard(hello, [db.recipe], gate=gate, observers=[recorder])
    async with MemoryServer(guard) as server:
        first, second = server.http("/"), server.http("/")
        async with anyio.create_task_group() as group:
            group.start_soon(first.run)
            await recorder.wait_for(RequestHeld)
            assert (await server.get("/")).status == 503
            first.leave()
            await recorder.wait_for(RequestAbandoned)
            group.start_soon(second.run)
            await recorder.wait_for(RequestHeld, 2)
            db.let()
        assert (first.sent, second.status) == ([], 200)


@pytest.mark.parametrize(
    "error",
    [ValueError("boom"), ExceptionGroup("two", [ValueError(), KeyError()])],
    ids=["plain", "group"],
)
@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize("registered", [False, True])
async def test_exceptions_of_the_app_come_through(
    recorder: Recorder, error: Exception, root_path: str, registered: bool
) -> None:
    """What the app raises in a request reaches the server as it is."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    recipes = [Tap(recorder).recipe] if registered else []
    guard = LifespanGuard(app, recipes, observers=[recorder])
    async with MemoryServer(guard, root_path=root_path) as server:
        await recorder.wait_for(ResourceOpened, len(recipes) + 1)
        for make in (server.http, server.websocket):
            with pytest.raises(type(error)) as caught:
                await make("/").run()
            assert caught.value is error
    assert error.__cause__ is error.__context__ is None
