"""The app's own lifespan behind a guard, and what it leaves in the state."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import (
    AppCannotRestartError,
    CloseFailedError,
    Gate,
    LifespanGuard,
    ResourcePhase,
    Retry,
    StateKeyClashError,
    lifespan_of,
)
from asgi_lifespan_guard.events import (
    AttemptFailed,
    LifespanUnsupported,
    ResourceCrashed,
    ResourceGaveUp,
    ResourceOpened,
    ResourceReopening,
    StartupFailed,
)
from tests.recorder import Recorder
from tests.support.memory_server import LifespanError, MemoryServer
from tests.support.resources import LATER, SOON, LivedIn, Tap, Watcher, hello


pytestmark = pytest.mark.anyio

ALL_WELL = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def state_of(scope: Any) -> dict[str, Any]:
    """Return a request's state without the guard's own entry."""
    state = dict(scope["state"])
    state.pop("asgi_lifespan_guard", None)
    return state


# "blocking", nothing registered: exactly as unwrapped.


async def test_blocking_passes_on_the_servers_own_state(recorder: Recorder) -> None:
    """The app sees the server's own state dict, and all of its scope."""
    app = LivedIn(recorder, pool=1)
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}, "app": app}
    async with MemoryServer(LifespanGuard(app), lifespan_scope=scope) as server:
        assert app.scopes[0] == scope
        assert app.scopes[0]["state"] is scope["state"]
        assert scope["state"] == {"pool": 1}
        request = await server.get("/")
        assert app.scopes[-1] is request.scope
    assert server.said == ALL_WELL
    assert recorder.marks == ["app starts", "app shuts down"]


async def test_blocking_adds_asgi_where_it_is_missing(recorder: Recorder) -> None:
    """Starlette's test client gives no `asgi`; the app is given one, but no state."""
    app = LivedIn(recorder)
    bare = {"type": "lifespan"}
    async with MemoryServer(LifespanGuard(app), lifespan_scope=bare):
        assert set(app.scopes[0]) == {"type", "asgi"}
    assert bare == {"type": "lifespan"}


async def test_blocking_passes_on_a_failing_startup(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """The app's message goes to the server, its exception too, its cause to the log."""
    error = OSError("refused")
    app = LivedIn(recorder, errors=[error])
    server = MemoryServer(LifespanGuard(app, observers=[recorder]))
    with pytest.raises(LifespanError, match=r"^startup: refused$") as caught:
        async with server:
            pytest.fail("it started")
    assert caught.value.__cause__ is error
    assert server.said == ["lifespan.startup.failed"]
    assert len(recorder.of(StartupFailed)) == 1
    tracebacks = [r for r in caplog.records if r.exc_text]
    assert len(tracebacks) == 1


async def test_blocking_passes_on_a_failing_shutdown(recorder: Recorder) -> None:
    """A shutdown that fails is told, and raised, as the app did."""
    error = OSError("flush failed")
    app = LivedIn(recorder, last_words=error)
    server = MemoryServer(LifespanGuard(app))
    with pytest.raises(LifespanError, match=r"^shutdown: flush failed$") as caught:
        async with server:
            pass
    assert caught.value.__cause__ is error
    assert server.said == ["lifespan.startup.complete", "lifespan.shutdown.failed"]


async def test_blocking_tells_once_that_there_is_no_lifespan(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """An app without a lifespan is fine, and said to be so at INFO with its error."""
    caplog.set_level(logging.INFO)
    async with MemoryServer(LifespanGuard(hello, observers=[recorder])) as server:
        assert (await server.get("/")).body == b"hello"
    assert server.said == ALL_WELL
    (event,) = recorder.of(LifespanUnsupported)
    assert isinstance(event.error, NotImplementedError)
    told = [r for r in caplog.records if "no lifespan" in r.getMessage()]
    assert [r.levelno for r in told] == [logging.INFO]


async def test_a_crash_after_startup_makes_unready(recorder: Recorder) -> None:
    """A lifespan that crashes is told and logged; the server goes on, unready."""
    app = LivedIn(recorder)
    guard = LifespanGuard(app, observers=[recorder])
    async with MemoryServer(guard) as server:
        assert (await server.get("/readyz")).status == 200
        app.crash.set()
        await recorder.wait_for(ResourceGaveUp)
        assert not guard.ready
        assert (await server.get("/readyz")).status == 503
        assert (await server.get("/livez")).status == 200
        assert (await server.get("/")).status == 200
    assert server.said == ALL_WELL
    assert len(recorder.of(ResourceCrashed)) == 1


async def test_an_early_shutdown_failed_makes_unready(recorder: Recorder) -> None:
    """Starlette's `shutdown.failed` before the shutdown does not reach the server."""
    crash = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await crash.wait()
        await send({"type": "lifespan.shutdown.failed", "message": "task group"})
        raise ExceptionGroup("unhandled", [ValueError("consumer")])

    guard = LifespanGuard(app, observers=[recorder])
    async with MemoryServer(guard) as server:
        crash.set()
        await recorder.wait_for(ResourceGaveUp)
        assert not guard.ready
    assert server.said == ALL_WELL


# With resources.


async def test_blocking_app_finds_blocking_resources(recorder: Recorder) -> None:
    """What blocks is in the state of the app's startup, and outlives its shutdown."""
    app = LivedIn(recorder)
    db = Tap(recorder, startup="blocking")
    async with MemoryServer(LifespanGuard(app, [db.recipe])):
        pass
    assert app.states[0]["db"] == "db 1"
    assert recorder.marks == ["open db", "app starts", "app shuts down", "close db"]


async def test_what_the_app_yields_is_merged(recorder: Recorder) -> None:
    """Requests see the resources' values, and what the app put into its state."""
    app = LivedIn(recorder, own="theirs")
    db = Tap(recorder)
    guard = LifespanGuard(app, [db.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await server.get("/")
        assert state_of(app.scopes[-1]) == {"own": "theirs", "db": "db 1"}
        assert guard.state == {"own": "theirs", "db": "db 1"}
    assert guard.state == {}


async def test_what_the_app_yields_is_seen_without_a_state(recorder: Recorder) -> None:
    """Where the server has no state, an app that yields one works all the same."""
    app = LivedIn(recorder, own="theirs")
    guard = LifespanGuard(app, [Tap(recorder).recipe])
    async with MemoryServer(guard, lifespan_scope={"type": "lifespan"}) as server:
        await server.get("/")
    assert state_of(app.scopes[-1]) == {"own": "theirs", "db": "db 1"}


@pytest.mark.parametrize("app_lifespan", ["blocking", "background"])
async def test_a_key_that_is_a_resources_name(
    recorder: Recorder, app_lifespan: Any
) -> None:
    """The app cannot yield what is also a resource: it is told which, not retried."""
    app = LivedIn(recorder, db="theirs")
    guard = LifespanGuard(
        app,
        [Tap(recorder, shut=True).recipe],
        app_lifespan=app_lifespan,
        observers=[recorder],
    )
    if app_lifespan == "blocking":
        with pytest.raises(LifespanError, match="'db' into the state"):
            async with MemoryServer(guard):
                raise AssertionError
    else:
        async with MemoryServer(guard):
            await recorder.wait_for(ResourceGaveUp)
    (event,) = recorder.of(ResourceGaveUp)
    assert isinstance(event.error, StateKeyClashError)
    assert event.error.keys == ("db",)
    assert recorder.marks == ["app starts", "app shuts down"]


# "background".


async def test_background_retries_the_app(recorder: Recorder) -> None:
    """A failing lifespan is tried again behind the open port, with a fresh state."""
    errors = [OSError("refused"), OSError("refused again")]
    app = LivedIn(recorder, errors=errors, pool=1)
    guard = LifespanGuard(
        app, app_lifespan=lifespan_of(retry=SOON), observers=[recorder]
    )
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened)
        assert guard.ready
        await server.get("/")
        assert state_of(app.scopes[-1]) == {"pool": 1}
    assert server.said == ALL_WELL
    assert len(recorder.of(AttemptFailed)) == 2
    assert app.states == [{}, {}, {}]
    assert recorder.marks == [*["app starts"] * 3, "app shuts down"]


async def test_background_keeps_requests_out(recorder: Recorder) -> None:
    """Requests wait for an app that starts in the background, and for its retries."""
    app = LivedIn(recorder, errors=[OSError("refused")])
    background = lifespan_of(retry=LATER)
    guard = LifespanGuard(app, app_lifespan=background, observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(AttemptFailed)
        request = await server.get("/")
        assert (request.status, request.headers["retry-after"]) == (503, "3600")
        assert (await server.get("/readyz")).status == 503
        assert (await server.get("/livez")).status == 200
    assert server.said == ALL_WELL


async def test_background_by_name(recorder: Recorder) -> None:
    """`"background"` is a recipe with all its defaults."""
    app = LivedIn(recorder)
    guard = LifespanGuard(app, app_lifespan="background", observers=[recorder])
    async with MemoryServer(guard) as server:
        assert (await server.get("/")).status == 200
    assert recorder.marks == ["app starts", "app shuts down"]


async def test_background_app_that_never_answers(recorder: Recorder) -> None:
    """An app that only receives stays unready, and does not hold up the shutdown."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            recorder.mark("receives")
            await receive()

    guard = LifespanGuard(app, app_lifespan="background", observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for_mark("receives", 2)
        assert not guard.ready
    assert server.said == ALL_WELL


async def test_background_crash_is_retried(recorder: Recorder) -> None:
    """A lifespan that crashes in the background is run again."""
    app = LivedIn(recorder, pool=1)
    guard = LifespanGuard(
        app, app_lifespan=lifespan_of(retry=SOON), observers=[recorder]
    )
    async with MemoryServer(guard):
        await recorder.wait_for(ResourceOpened)
        app.crash.set()
        await recorder.wait_for(ResourceOpened, 2)
        assert guard.ready
    assert recorder.marks == ["app starts", "app starts", "app shuts down"]


async def test_background_state_is_withdrawn_with_the_app(recorder: Recorder) -> None:
    """While a crashed app is away, requests do not see what it had yielded."""
    app = LivedIn(recorder, pool=1)
    guard = LifespanGuard(
        app,
        app_lifespan=lifespan_of(retry=LATER),
        gate=Gate(needs={"/open": ()}),
        observers=[recorder],
    )
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened)
        app.crash.set()
        await recorder.wait_for(ResourceReopening)
        await server.get("/open")
        assert state_of(app.scopes[-1]) == {}


async def test_quart_like_app_is_shut_down_between_attempts(recorder: Recorder) -> None:
    """A call that goes on after `failed` is sent the shutdown, then tried again."""
    errors = ["refused"]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            recorder.mark(message["type"])
            if message["type"] == "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                return
            if errors:
                text = errors.pop()
                await send({"type": "lifespan.startup.failed", "message": text})
            else:
                await send({"type": "lifespan.startup.complete"})

    guard = LifespanGuard(
        app, app_lifespan=lifespan_of(retry=SOON), observers=[recorder]
    )
    async with MemoryServer(guard):
        await recorder.wait_for(ResourceOpened)
    assert recorder.marks == ["lifespan.startup", "lifespan.shutdown"] * 2


class OnlyOnce(LivedIn):
    """An app whose lifespan cannot be run twice, as the MCP SDK's."""

    runs = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            self.runs += 1
            if self.runs > 1:
                self.errors = [RuntimeError(".run() can only be called once")]
        await super().__call__(scope, receive, send)


async def test_an_app_that_cannot_restart_is_given_up(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """The sign is recognised at the second attempt, and the remedy told."""
    app = OnlyOnce(recorder, errors=[OSError("refused")])
    guard = LifespanGuard(
        app, app_lifespan=lifespan_of(retry=SOON), observers=[recorder]
    )
    async with MemoryServer(guard):
        gave_up = await recorder.wait_for(ResourceGaveUp)
        assert isinstance(gave_up.error, AppCannotRestartError)
        assert (gave_up.attempts, gave_up.permanent) == (2, True)
        for fact in ("can only be called once", "refused", "app_factory=True"):
            assert fact in str(gave_up.error)
        assert not guard.ready
    assert "app_factory=True" in caplog.text


async def test_an_app_that_cannot_restart_after_a_crash(recorder: Recorder) -> None:
    """A crash counts as the first attempt."""
    app = OnlyOnce(recorder)
    guard = LifespanGuard(
        app, app_lifespan=lifespan_of(retry=SOON), observers=[recorder]
    )
    async with MemoryServer(guard):
        await recorder.wait_for(ResourceOpened)
        app.crash.set()
        gave_up = await recorder.wait_for(ResourceGaveUp)
    assert isinstance(gave_up.error, AppCannotRestartError)


async def test_another_failure_at_the_second_attempt_is_retried(
    recorder: Recorder,
) -> None:
    """Without a sign a second failure is a failure like the first."""
    app = LivedIn(recorder, errors=[OSError("1"), OSError("2"), OSError("3")])
    guard = LifespanGuard(
        app, app_lifespan=lifespan_of(retry=SOON), observers=[recorder]
    )
    async with MemoryServer(guard):
        assert (await recorder.wait_for(ResourceOpened)).attempt == 4


# "off", and recipes.


async def test_off_does_not_call_the_app(recorder: Recorder) -> None:
    """The app hears nothing of the lifespan."""
    app = LivedIn(recorder)
    async with MemoryServer(LifespanGuard(app, app_lifespan="off")) as server:
        await server.get("/")
    assert server.said == ALL_WELL
    assert [scope["type"] for scope in app.scopes] == ["http"]


async def test_recipe_with_needs(recorder: Recorder) -> None:
    """The app starts when what it needs is up, finds it in its state, stops first."""
    app = LivedIn(recorder, cache="from the app")
    db = Tap(recorder, shut=True)
    guard = LifespanGuard(
        app,
        [db.recipe],
        app_lifespan=lifespan_of(needs=[db.recipe]),
        observers=[recorder],
    )
    async with MemoryServer(guard) as server:
        assert guard.report().resource("app").phase is ResourcePhase.PENDING  # type: ignore[union-attr]
        db.let()
        await server.get("/")
        assert state_of(app.scopes[-1]) == {"db": "db 1", "cache": "from the app"}
    assert app.states == [{"db": "db 1"}]
    assert recorder.marks == ["open db", "app starts", "app shuts down", "close db"]


async def test_recipe_is_not_run_again_with_its_needs(recorder: Recorder) -> None:
    """The app waits for its needs before its first start only."""
    app = LivedIn(recorder)
    db = Tap(recorder, retry=SOON)
    guard = LifespanGuard(
        app,
        [db.recipe],
        app_lifespan=lifespan_of(needs=[db.recipe]),
        observers=[recorder],
    )
    async with MemoryServer(guard):
        await recorder.wait_for_mark("app starts")
        db.crash()
        await recorder.wait_for_mark("open db", 2)
    assert recorder.marks == [
        "open db",
        "app starts",
        "close db",
        "open db",
        "app shuts down",
        "close db",
    ]


async def test_recipe_that_is_not_enabled(recorder: Recorder) -> None:
    """A lifespan that is switched off counts as satisfied."""
    app = LivedIn(recorder)
    guard = LifespanGuard(
        app, app_lifespan=lifespan_of(enabled=lambda: False), observers=[recorder]
    )
    async with MemoryServer(guard) as server:
        assert (await server.get("/")).status == 200
        assert guard.ready
    assert recorder.marks == []


async def test_blocking_recipe_with_retry(recorder: Recorder) -> None:
    """A blocking lifespan may be retried before the port opens, if told so."""
    app = LivedIn(recorder, errors=[OSError("refused")])
    blocking = lifespan_of(startup="blocking", retry=Retry(wait=SOON.wait))
    guard = LifespanGuard(app, app_lifespan=blocking, observers=[recorder])
    async with MemoryServer(guard):
        assert recorder.marks == ["app starts", "app starts"]


# Closing.


class BadlyClosing(Tap):
    async def close(self) -> None:
        raise OSError("will not close")


async def test_what_was_not_closed_is_named(recorder: Recorder) -> None:
    """Failing closes are named in `shutdown.failed`; each was logged with its cause."""
    names = ("db", "cache")
    recipes = [BadlyClosing(recorder, name).recipe for name in names]
    guard = LifespanGuard(hello, recipes, observers=[recorder])
    server = MemoryServer(guard)
    with pytest.raises(LifespanError, match="cleanly: cache, db") as caught:
        async with server:
            await recorder.wait_for(ResourceOpened, 3)
    assert isinstance(caught.value.__cause__, CloseFailedError)
    assert caught.value.__cause__.failed == ("cache", "db")


async def test_the_apps_own_words_come_first(recorder: Recorder) -> None:
    """Where its own shutdown failed, the app's message and exception are passed on."""
    error = RuntimeError("flush failed")
    app = LivedIn(recorder, last_words=error)
    recipe = BadlyClosing(recorder).recipe
    guard = LifespanGuard(app, [recipe], observers=[recorder])
    with pytest.raises(LifespanError, match="shutdown: flush failed") as caught:
        async with MemoryServer(guard):
            await recorder.wait_for(ResourceOpened, 2)
    assert caught.value.__cause__ is error


async def test_a_close_that_fails_while_serving_does_not_fail_the_shutdown(
    recorder: Recorder,
) -> None:
    """Trouble with a reopening is over when the shutdown comes."""
    db = Tap(recorder, retry=SOON)
    guard = LifespanGuard(Watcher(), [db.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for_mark("open db")
        db.crash()
        await recorder.wait_for_mark("open db", 2)
    assert server.said == ALL_WELL
