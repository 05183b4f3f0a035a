"""The guard from startup to shutdown: transcripts, whatever goes wrong on the way."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import (
    GuardNotFoundError,
    LifespanGuard,
    Phase,
    ResourceUnavailableError,
    lifespan_of,
)
from asgi_lifespan_guard.events import (
    AttemptFailed,
    PhaseChanged,
    RequestHeld,
    ResourceOpened,
    StartupFailed,
)
from tests.recorder import Recorder
from tests.support.memory_server import LifespanError, MemoryServer
from tests.support.resources import LATER, LivedIn, Tap, Watcher, hello


pytestmark = pytest.mark.anyio

COMPLETE, FAILED = "lifespan.startup.complete", "lifespan.startup.failed"
OVER, NOT_OVER = "lifespan.shutdown.complete", "lifespan.shutdown.failed"


# Startup × body × shutdown.


@pytest.mark.parametrize("background", ["opens", "is away"])
@pytest.mark.parametrize("body", ["ends", "raises"])
@pytest.mark.parametrize("shutdown", ["well", "the app fails"])
async def test_a_whole_life(
    recorder: Recorder, background: str, body: str, shutdown: str
) -> None:
    """However it goes after a good startup: closed in order, and the server told."""
    words = OSError("flush") if shutdown == "the app fails" else None
    app = LivedIn(recorder, last_words=words)
    model = Tap(recorder, "model", startup="blocking")
    db = Tap(recorder, "db", shut=background == "is away")
    guard = LifespanGuard(app, [db.recipe, model.recipe], observers=[recorder])
    server = MemoryServer(guard)
    errors = []
    try:
        async with server:
            if background == "opens":
                await recorder.wait_for_mark("open db")
            if body == "raises":
                raise KeyError("in the server")
    except (LifespanError, KeyError) as error:
        errors.append(type(error))
    assert server.said == [COMPLETE, NOT_OVER if words else OVER]
    assert errors == ([LifespanError] if words else [KeyError][: body == "raises"])
    opened = ["open db"] if background == "opens" else []
    assert recorder.marks[: 2 + len(opened)] == ["open model", "app starts", *opened]
    assert recorder.marks[2 + len(opened)] == "app shuts down"
    assert sorted(recorder.marks[3 + len(opened) :]) == [
        *(["close db"] if opened else []),
        "close model",
    ]
    assert guard.phase is Phase.STOPPED


@pytest.mark.parametrize("culprit", ["model", "app"])
async def test_a_failed_startup(
    recorder: Recorder, culprit: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What was open is closed, the server told, the cause logged once, and no more."""
    errors = [OSError("refused")]
    app = LivedIn(recorder, errors=errors if culprit == "app" else [])
    other = Tap(recorder, "other", startup="blocking")
    model = Tap(
        recorder,
        "model",
        startup="blocking",
        needs=[other.recipe],
        errors=errors if culprit == "model" else [],
    )
    recipes = [model.recipe, other.recipe, Tap(recorder, "db").recipe]
    guard = LifespanGuard(app, recipes, observers=[recorder])
    server = MemoryServer(guard)
    with pytest.raises(LifespanError, match="refused"):
        async with server:
            pytest.fail("it started")
    assert server.said == [FAILED]
    opened = ["open other", "open model", "app starts", "close model", "close other"]
    never = {"app": set(), "model": {"open model", "app starts", "close model"}}
    assert recorder.marks == [m for m in opened if m not in never[culprit]]
    assert len(recorder.of(StartupFailed)) == 1
    causes = [r for r in caplog.records if "OSError: refused" in (r.exc_text or "")]
    assert len(causes) == 1
    assert guard.phase is Phase.FAILED
    assert "refused" in (guard.report().last_error or "")


async def test_startup_failed_names_resource_and_attempts(recorder: Recorder) -> None:
    """The server's log says which resource it was, how often it was tried, and why."""
    error = OSError("postgresql://app:hunter2@db refused")
    model = Tap(recorder, "model", startup="blocking", errors=[error])
    with pytest.raises(LifespanError) as caught:
        async with MemoryServer(LifespanGuard(hello, [model.recipe])):
            pytest.fail("it started")
    for fact in ("'model'", "1 attempt", "app:***@db refused"):
        assert fact in str(caught.value)


async def test_cancelled_during_a_blocking_startup(recorder: Recorder) -> None:
    """A server that cancels the startup finds nothing left open."""
    other = Tap(recorder, "other", startup="blocking")
    slow = Tap(recorder, "slow", startup="blocking", needs=[other.recipe], shut=True)
    guard = LifespanGuard(hello, [other.recipe, slow.recipe], observers=[recorder])
    server = MemoryServer(guard)
    async with anyio.create_task_group() as group:
        server.lifespan.feed({"type": "lifespan.startup"})
        group.start_soon(server.lifespan.run)
        await recorder.wait_for_mark("open other")
        group.cancel_scope.cancel()
    assert server.said == []
    assert recorder.marks == ["open other", "close other"]
    assert guard.phase is Phase.FAILED


async def test_cancelled_while_serving(recorder: Recorder) -> None:
    """A server that cancels the lifespan's task finds everything closed in order."""
    app = LivedIn(recorder)
    model = Tap(recorder, "model", startup="blocking")
    db = Tap(recorder, needs=[model.recipe])
    guard = LifespanGuard(app, [model.recipe, db.recipe])
    server = MemoryServer(guard)
    async with anyio.create_task_group() as group:
        server.lifespan.feed({"type": "lifespan.startup"})
        group.start_soon(server.lifespan.run)
        await recorder.wait_for_mark("open db")
        group.cancel_scope.cancel()
    assert [m for m in recorder.marks if m.startswith("close")] == [
        "close db",
        "close model",
    ]
    assert guard.phase is Phase.STOPPED


@pytest.mark.parametrize("when", ["startup.failed", "startup.complete", "receive"])
async def test_a_server_that_raises(recorder: Recorder, when: str) -> None:
    """A server that raises out of its own callables still finds everything closed."""
    failing = when == "startup.failed"
    model = Tap(recorder, "model", startup="blocking")
    app = LivedIn(recorder, errors=[OSError("refused")] if failing else [])
    guard = LifespanGuard(app, [model.recipe], observers=[recorder])
    server = MemoryServer(guard)
    lifespan = server.lifespan
    lifespan.feed({"type": "lifespan.startup"})

    async def receive() -> Any:
        if when == "receive" and lifespan.reads:
            raise OSError("the server is broken")
        return await lifespan.receive()

    async def send(message: Any) -> None:
        if message["type"].endswith(when):
            raise OSError("the server is broken")
        await lifespan.send(message)

    with pytest.raises(OSError, match="the server is broken"):
        await guard(lifespan.scope, receive, send)
    assert recorder.marks[0] == "open model"
    assert recorder.marks[-1] == "close model"
    assert guard.phase is (Phase.FAILED if failing else Phase.STOPPED)
    assert len(recorder.of(StartupFailed)) == failing


async def test_resources_that_are_away_do_not_delay_the_shutdown(
    recorder: Recorder,
) -> None:
    """Opening, waiting for a retry, waiting for a need: all end with the shutdown."""
    opening = Tap(recorder, "opening", shut=True)
    waiting = Tap(recorder, "waiting", errors=[OSError("refused")], retry=LATER)
    needy = Tap(recorder, "needy", needs=[waiting.recipe])
    recipes = [opening.recipe, waiting.recipe, needy.recipe]
    server = MemoryServer(LifespanGuard(hello, recipes, observers=[recorder]))
    async with server:
        await recorder.wait_for(AttemptFailed)
    assert server.said == [COMPLETE, OVER]
    assert recorder.marks == []


# Several lives.


async def test_many_lives(recorder: Recorder) -> None:
    """One guard can be started and stopped again and again."""
    app = LivedIn(recorder)
    db = Tap(recorder)
    guard = LifespanGuard(app, [db.recipe], observers=[recorder])
    for life in (1, 2, 3):
        async with MemoryServer(guard) as server:
            assert (await server.get("/")).status == 200
            assert app.scopes[-1]["state"]["db"] == f"db {life}"
        assert (await server.get("/")).status == 503
        assert guard.phase is Phase.STOPPED
    assert recorder.marks.count("open db") == recorder.marks.count("close db") == 3


async def test_a_life_after_a_failed_startup(recorder: Recorder) -> None:
    """A startup that failed may be tried again."""
    model = Tap(recorder, startup="blocking", errors=[OSError("refused")])
    guard = LifespanGuard(hello, [model.recipe])
    with pytest.raises(LifespanError):
        async with MemoryServer(guard):
            pytest.fail("it started")
    async with MemoryServer(guard) as server:
        assert (await server.get("/")).status == 200
    assert guard.report().last_error is None


async def test_two_lives_at_the_same_time(recorder: Recorder) -> None:
    """A second lifespan beside the first fails, and leaves the first alone."""
    guard = LifespanGuard(hello, [Tap(recorder).recipe])
    async with MemoryServer(guard) as server:
        second = MemoryServer(guard)
        with pytest.raises(LifespanError, match="'start' cannot happen in phase"):
            async with second:
                pytest.fail("it started")
        assert second.said == [FAILED]
        assert (await server.get("/")).status == 200
        assert guard.phase is Phase.SERVING
    assert server.said == [COMPLETE, OVER]


async def test_probes_after_the_end(recorder: Recorder) -> None:
    """The report outlives the resources."""
    db = Tap(recorder)
    guard = LifespanGuard(hello, [db.recipe], observers=[recorder])
    async with MemoryServer(guard):
        await recorder.wait_for(ResourceOpened)
    report = guard.report()
    assert (report.phase, report.ready) == (Phase.STOPPED, False)
    assert {r.name: r.phase.value for r in report.resources} == {
        "db": "closed",
        "app": "closed",
    }


# Transparency, and the state of a request.


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize("app_lifespan", ["blocking", "off"])
async def test_nothing_registered_leaves_scopes_alone(
    kind: str, root_path: str, app_lifespan: Any
) -> None:
    """With nothing registered the app is given the very same scope and callables."""
    given: list[tuple[Any, ...]] = []

    async def app(*args: Any) -> None:
        given.append(args)
        await hello(*args)

    guard = LifespanGuard(app, app_lifespan=app_lifespan, drain=None)
    server = MemoryServer(guard, root_path=root_path)
    async with server:
        request: Any = getattr(server, kind)("/x")
        before = dict(request.scope)
        await request.run()
        scope, receive, send = given[-1]
    assert scope is request.scope
    assert scope == before
    assert (receive, send) == (request.receive, request.send)


@pytest.mark.parametrize("registered", [False, True])
async def test_other_scopes_are_passed_on(recorder: Recorder, registered: bool) -> None:
    """A scope type that we do not know is the app's business alone."""
    given: list[tuple[Any, ...]] = []

    async def app(*args: Any) -> None:
        given.append(args)

    resources = [Tap(recorder, shut=True).recipe] if registered else []
    args: Any = ({"type": "mqtt"}, object(), object())
    await LifespanGuard(app, resources)(*args)
    assert given == [args]
    assert given[0][0] is args[0]


async def test_values_reach_requests_with_the_servers_copies(
    recorder: Recorder,
) -> None:
    """Where the server copies the state, its copy is passed on as it is."""
    app = Watcher()
    guard = LifespanGuard(app, [Tap(recorder).recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 2)
        request = await server.get("/")
        assert app.scopes[-1] is request.scope
        assert app.state == {"db": "db 1"}
        handshake = await server.websocket("/").run()
        assert app.scopes[-1] is handshake.scope


@pytest.mark.parametrize(
    "state_for_request",
    [
        pytest.param(lambda shared: None, id="missing"),
        pytest.param(lambda shared: shared, id="shared"),
        pytest.param(lambda shared: {"theirs": 1}, id="snapshot-of-before"),
    ],
)
async def test_values_reach_requests_with_a_state_of_their_own(
    recorder: Recorder, state_for_request: Any
) -> None:
    """Where the state is missing, shared or old, a request gets a dict of its own."""
    app = Watcher()
    db = Tap(recorder)
    guard = LifespanGuard(app, [db.recipe], observers=[recorder])
    async with MemoryServer(guard, state_for_request=state_for_request) as server:
        await recorder.wait_for(ResourceOpened, 2)
        shared = server.lifespan.scope["state"]
        for _ in range(2):
            await server.get("/")
            await server.websocket("/").run()
        assert db.recipe.get(app.scopes[-1]) == "db 1"
        assert LifespanGuard.of(app.scopes[-1]) is guard
    states = [scope["state"] for scope in app.scopes if scope["type"] != "lifespan"]
    assert len({id(state) for state in states}) == 4
    assert all(state is not shared for state in states)


async def test_a_reopened_resource_shows_its_new_value(recorder: Recorder) -> None:
    """Copies from before a reopening are brought up to date."""
    app = Watcher()
    db = Tap(recorder, retry=LATER)
    guard = LifespanGuard(app, [db.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 2)
        old = server.http("/")
        db.errors.append(OSError("refused"))
        db.crash()
        await recorder.wait_for(AttemptFailed)
        assert "db" not in server.lifespan.scope["state"]
        assert (await server.get("/")).status == 503
        assert old.scope["state"]["db"] == "db 1"
        guard.retry_now()
        await recorder.wait_for(ResourceOpened, 3)
        await old.run()
        assert app.state == {"db": "db 2"}


async def test_an_optional_resource_that_is_away(recorder: Recorder) -> None:
    """Its value is absent from the state, and `get` says why."""
    app = Watcher()
    docs = Tap(recorder, "docs", required=False, shut=True)
    guard = LifespanGuard(app, [docs.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        assert (await server.get("/")).status == 200
        assert app.state == {}
        with pytest.raises(ResourceUnavailableError, match="'docs'"):
            docs.recipe.get(app.scopes[-1])
        assert docs.recipe.get(app.scopes[-1], None) is None
        docs.let()
        await recorder.wait_for(ResourceOpened, 2)
        await server.get("/")
        assert docs.recipe.get(app.scopes[-1]) == docs.recipe.get(guard) == "docs 1"
        assert guard.ready


async def test_a_server_that_forgets_the_state(recorder: Recorder) -> None:
    """Where the dict is emptied before the shutdown (granian), all is closed well."""
    app = LivedIn(recorder, own=1)
    db = Tap(recorder)
    guard = LifespanGuard(app, [db.recipe], observers=[recorder])
    async with MemoryServer(guard, forgets_state=True) as server:
        await recorder.wait_for(ResourceOpened, 2)
    assert server.said == [COMPLETE, OVER]
    assert recorder.marks[-2:] == ["app shuts down", "close db"]


async def test_a_guard_in_a_guard(recorder: Recorder) -> None:
    """Two guards around one app both show their values, and are closed in order."""
    app = Watcher()
    inner = LifespanGuard(app, [Tap(recorder, "cache").recipe], observers=[recorder])
    outer = LifespanGuard(inner, [Tap(recorder, "db").recipe], observers=[recorder])
    async with MemoryServer(outer) as server:
        await recorder.wait_for(ResourceOpened, 4)
        await server.get("/")
        assert app.state == {"db": "db 1", "cache": "cache 1"}
        assert LifespanGuard.of(app.scopes[-1]) is inner
    assert server.said == [COMPLETE, OVER]


# Finding the guard.


async def test_of_finds_the_guard_in_a_request(recorder: Recorder) -> None:
    """Whatever has a scope leads to the guard that let it in."""
    app = Watcher()
    guard = LifespanGuard(app, [Tap(recorder).recipe])

    class Request:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

    async with MemoryServer(guard) as server:
        await server.get("/")
        assert LifespanGuard.of(app.scopes[-1]) is guard
        assert LifespanGuard.of(Request(app.scopes[-1])) is guard


async def test_of_finds_the_only_guard_that_is_serving() -> None:
    """A guard that leaves no trace is found while it is the only one."""
    one, two = LifespanGuard(hello), LifespanGuard(hello)
    with pytest.raises(GuardNotFoundError):
        LifespanGuard.of({"type": "http"})
    async with MemoryServer(one):
        assert LifespanGuard.of({"type": "http"}) is one
        async with MemoryServer(two):
            with pytest.raises(GuardNotFoundError):
                LifespanGuard.of({"type": "http"})
    with pytest.raises(GuardNotFoundError):
        LifespanGuard.of({"type": "http", "state": {}})


# Observers.


async def test_an_observer_that_raises_is_harmless(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and neither stops the others nor anything else."""

    def broken(event: Any) -> None:
        raise RuntimeError("cannot observe")

    db = Tap(recorder)
    guard = LifespanGuard(hello, [db.recipe], observers=[broken, recorder])
    async with MemoryServer(guard) as server:
        assert (await server.get("/")).status == 200
    assert server.said == [COMPLETE, OVER]
    assert recorder.marks == ["open db", "close db"]
    assert len(recorder.of(PhaseChanged)) == 5
    failures = [r for r in caplog.records if "failed on" in r.getMessage()]
    assert {r.levelno for r in failures} == {logging.ERROR}
    assert len(failures) == len(recorder.events)


async def test_phases(recorder: Recorder) -> None:
    """Observers hear of every phase, in order."""
    guard = LifespanGuard(hello, app_lifespan=lifespan_of(), observers=[recorder])
    assert guard.phase is Phase.IDLE
    async with MemoryServer(guard):
        await recorder.wait_for(ResourceOpened)
    assert [event.new for event in recorder.of(PhaseChanged)] == [
        Phase.STARTING,
        Phase.SERVING,
        Phase.DRAINING,
        Phase.STOPPING,
        Phase.STOPPED,
    ]


async def test_the_held_are_answered_when_it_stops(recorder: Recorder) -> None:
    """A shutdown answers requests that wait for what will not come any more."""
    guard = LifespanGuard(
        hello, [Tap(recorder, shut=True).recipe], observers=[recorder]
    )
    server = MemoryServer(guard)
    requests = [server.http("/") for _ in range(150)]
    async with anyio.create_task_group() as group, server:
        for request in requests:
            group.start_soon(request.run)
        await recorder.wait_for(RequestHeld, len(requests))
    assert {request.status for request in requests} == {503}
    assert "stopp" in requests[0].json()["detail"]  # or is stopping, at first


def test_what_is_asked_of_a_guard_that_never_started() -> None:
    """Nothing is on that could be hurried, or drained."""
    guard = LifespanGuard(Watcher())
    guard.retry_now()
    guard.begin_drain()
    assert guard.phase is Phase.IDLE
    assert not guard.draining.is_set()
