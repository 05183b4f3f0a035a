"""Playing the server to an app: what counts as no lifespan, and what as a failure."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from starlette.responses import StreamingResponse

from asgi_lifespan_guard import AppLifespanError
from asgi_lifespan_guard._asgi.app_lifespan import (
    _Call,
    hosted_lifespan,
    is_refusal,
    restart_obstacle,
)
from tests.recorder import Recorder


pytestmark = pytest.mark.anyio

App = Callable[[Any, Any, Any], Awaitable[None]]
NO_TIME = 0.001
"""Seconds of grace in tests where it is certain to run out."""


class Host:
    """Enters an app's lifespan, and marks what becomes of it."""

    def __init__(self, recorder: Recorder, app: App, farewell: float = 5.0) -> None:
        self._recorder = recorder
        self._app = app
        self._farewell = farewell
        self.unsupported: list[BaseException | None] = []
        self.scope: dict[str, Any] = {"type": "lifespan"}

    async def run(self, body: Callable[[], Awaitable[None]] | None = None) -> None:
        lifespan = hosted_lifespan(
            "app",
            self._app,
            self.scope,
            lambda: self._farewell,
            self.unsupported.append,
        )
        async with lifespan:
            self._recorder.mark("entered")
            if body is not None:
                await body()
            self._recorder.mark("leaving")
        self._recorder.mark("left")


async def complete(scope: Any, receive: Any, send: Any) -> None:
    """Have a lifespan without any trouble."""
    for stage in ("startup", "shutdown"):
        assert (await receive()) == {"type": f"lifespan.{stage}"}
        await send({"type": f"lifespan.{stage}.complete"})


async def test_drives_a_lifespan(recorder: Recorder) -> None:
    """Startup on entering, shutdown on leaving, in one call of the app."""
    calls = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope)
        assert (await receive())["type"] == "lifespan.startup"
        recorder.mark("starting")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        recorder.mark("shutting down")
        await send({"type": "lifespan.shutdown.complete"})

    host = Host(recorder, app)
    await host.run()
    assert recorder.marks == ["starting", "entered", "leaving", "shutting down", "left"]
    assert calls == [host.scope]
    assert host.unsupported == []


# Before its first receive(), or beginning as with a request: no lifespan.


async def returns(scope: Any, receive: Any, send: Any) -> None:
    """Do nothing with a scope that is not HTTP."""


async def raises(scope: Any, receive: Any, send: Any) -> None:
    """Refuse a scope that is not HTTP, as Django does."""
    raise ValueError("only HTTP here")


async def speaks_http(scope: Any, receive: Any, send: Any) -> None:
    """Take every scope for HTTP."""
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def receives_and_speaks_http(scope: Any, receive: Any, send: Any) -> None:
    """Take every scope for HTTP, and read the request first."""
    await receive()
    await speaks_http(scope, receive, send)


async def streams_to_all(scope: Any, receive: Any, send: Any) -> None:
    """Answer every scope with a stream, which listens for a disconnect meanwhile."""
    await StreamingResponse(chunks())(scope, receive, send)


async def chunks() -> AsyncGenerator[bytes, None]:
    """Yield one chunk."""
    yield b"chunk"


async def insists(scope: Any, receive: Any, send: Any) -> None:
    """Take every scope for HTTP, whatever it is told, and never come to an end."""
    with suppress(Exception):
        await speaks_http(scope, receive, send)
    while True:
        await receive()


@pytest.mark.parametrize(
    "app",
    [
        returns,
        raises,
        speaks_http,
        receives_and_speaks_http,
        streams_to_all,
        insists,
    ],
)
async def test_apps_without_a_lifespan(recorder: Recorder, app: App) -> None:
    """Ended or raised at once, or answered as a request: fine, and told with why."""
    host = Host(recorder, app)
    await host.run()
    assert recorder.marks == ["entered", "leaving", "left"]
    assert len(host.unsupported) == 1
    error = host.unsupported[0]
    assert (error is None) is (app is returns)
    assert ("'http.response.start'" in str(error)) is (app not in (returns, raises))


async def test_an_app_without_a_lifespan_is_ended_at_once(recorder: Recorder) -> None:
    """A call that began as a request does not run on beside the requests."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await insists(scope, receive, send)
        finally:
            recorder.mark("cleaned up")

    await Host(recorder, app).run()
    assert recorder.marks == ["cleaned up", "entered", "leaving", "left"]


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    """Make a group, as task groups do."""
    return ExceptionGroup("several", errors)


REFUSALS = [
    AssertionError(),
    NotImplementedError("lifespan"),
    KeyError("path"),
    KeyError("method"),
    ValueError("Django can only handle ASGI/HTTP connections, not lifespan."),
    ValueError("No application configured for scope type 'lifespan'"),
    ValueError("WSGI wrapper received a non-HTTP scope"),
    group(AssertionError(), KeyError("headers")),
]
MISTAKES = [
    TypeError("__init__() missing 1 required keyword-only argument: 'scope'"),
    KeyError("DATABASE_URL"),
    KeyError(),
    RuntimeError("no such table"),
    group(AssertionError(), RuntimeError("no such table")),
]


@pytest.mark.parametrize("error", REFUSALS, ids=repr)
def test_recognises_refusals(error: Exception) -> None:
    """What apps raise that want to say: this is no request."""
    assert is_refusal(error)


@pytest.mark.parametrize("error", MISTAKES, ids=repr)
def test_recognises_mistakes(error: Exception) -> None:
    """What says nothing of a scope or a lifespan is raised for another reason."""
    assert not is_refusal(error)


# After it: a real failure.


def failing(
    *, message: dict[str, Any] | None = None, error: Exception | None = None
) -> App:
    """Make an app that fails after its first receive()."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if message is not None:
            await send(message)
        if error is not None:
            raise error

    return app


FAILED = {
    "type": "lifespan.startup.failed",
    "message": "Traceback ...\nKeyError: 'x'\n",
}


@pytest.mark.parametrize(
    ("app", "told", "cause", "text"),
    [
        pytest.param(
            failing(error=KeyError("x")), False, KeyError, "KeyError: 'x'", id="raises"
        ),
        pytest.param(
            failing(), False, RuntimeError, "ended without an answer", id="returns"
        ),
        pytest.param(
            failing(message=FAILED, error=KeyError("x")),
            True,
            KeyError,
            "KeyError: 'x'",
            id="failed-and-raises",
        ),
        pytest.param(
            failing(message=FAILED),
            True,
            None,
            "KeyError: 'x'",
            id="failed-and-returns",
        ),
        pytest.param(
            failing(message={"type": "lifespan.startup.failed"}),
            True,
            None,
            "it gave no reason",
            id="failed-without-a-message",
        ),
        pytest.param(
            failing(message={"type": "lifespan.startup.failed", "message": ""}),
            True,
            None,
            "it gave no reason",
            id="failed-with-an-empty-message",
        ),
    ],
)
async def test_after_its_first_receive_an_app_has_failed(
    recorder: Recorder,
    app: App,
    told: bool,
    cause: type[Exception] | None,
    text: str,
) -> None:
    """After `receive()` no error is taken for "unsupported": it is a failed startup."""
    host = Host(recorder, app)
    with pytest.raises(AppLifespanError, match="failed during startup") as caught:
        await host.run()
    assert recorder.marks == []
    assert host.unsupported == []
    assert (caught.value.told, text in str(caught.value)) == (told, True)
    assert isinstance(caught.value.cause, cause or type(None))


async def test_an_app_that_goes_on_after_failed_is_shut_down(
    recorder: Recorder,
) -> None:
    """Quart and Sanic ask for more after `failed`: they get `lifespan.shutdown`."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            recorder.mark(message["type"])
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.failed", "message": "boom"})
            else:
                await send({"type": "lifespan.shutdown.complete"})
                return

    with pytest.raises(AppLifespanError, match="boom"):
        await Host(recorder, app).run()
    assert recorder.marks == ["lifespan.startup", "lifespan.shutdown"]


async def test_an_app_that_asks_for_more_for_ever_is_ended(recorder: Recorder) -> None:
    """After `failed` and `shutdown`, an app that only receives is cancelled at once."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "boom"})
            while True:
                await receive()
        finally:
            recorder.mark("cleaned up")

    with pytest.raises(AppLifespanError, match="boom"):
        await Host(recorder, app).run()
    assert recorder.marks == ["cleaned up"]


async def test_an_app_that_hangs_after_failed_is_ended(recorder: Recorder) -> None:
    """An app that neither returns nor receives after `failed` has its grace."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "boom"})
        try:
            await anyio.sleep_forever()
        finally:
            recorder.mark("cleaned up")

    with pytest.raises(AppLifespanError, match="boom"):
        await Host(recorder, app, farewell=NO_TIME).run()
    assert recorder.marks == ["cleaned up"]


async def test_only_the_first_answer_counts(recorder: Recorder) -> None:
    """An app that says `failed` from a cancelled startup after `complete` is up."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.startup.failed", "message": "late"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    await Host(recorder, app).run()
    assert recorder.marks == ["entered", "leaving", "left"]


async def test_complete_without_receiving(recorder: Recorder) -> None:
    """An app that answers before it is asked has a lifespan."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})

    host = Host(recorder, app)
    await host.run()
    assert (recorder.marks[-1], host.unsupported) == ("left", [])


async def test_returning_after_complete(recorder: Recorder) -> None:
    """An app that returns once it is up has nothing to shut down, and stays up."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    await Host(recorder, app).run(anyio.lowlevel.checkpoint)
    assert recorder.marks == ["entered", "leaving", "left"]


async def test_an_app_that_only_receives_never_starts(recorder: Recorder) -> None:
    """An app that never answers holds the startup until that is cancelled."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            while True:
                await receive()
                recorder.mark("received")
        finally:
            recorder.mark("cleaned up")

    async with anyio.create_task_group() as group:
        group.start_soon(Host(recorder, app).run)
        await recorder.wait_for_mark("received")
        group.cancel_scope.cancel()
    assert recorder.marks == ["received", "cleaned up"]


# While it is up.


async def _sleep() -> None:
    await anyio.sleep_forever()


async def test_a_crash_ends_the_body(recorder: Recorder) -> None:
    """An app that raises while it is up cancels the body, and says "serving"."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await recorder.wait_for_mark("entered")
        raise KeyError("consumer")

    with pytest.raises(AppLifespanError, match="during serving: KeyError") as caught:
        await Host(recorder, app).run(_sleep)
    assert isinstance(caught.value.cause, KeyError)
    assert not caught.value.told
    assert recorder.marks == ["entered"]


@pytest.mark.parametrize("error", [None, RuntimeError("task group")])
async def test_an_early_shutdown_failed_is_a_crash(
    recorder: Recorder, error: Exception | None
) -> None:
    """Starlette says `shutdown.failed` by itself when its task group has crashed."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await recorder.wait_for_mark("entered")
        await send({"type": "lifespan.shutdown.failed", "message": "it crashed"})
        if error is not None:
            raise error

    reason = "it crashed" if error is None else "RuntimeError: task group"
    with pytest.raises(AppLifespanError, match=f"serving: {reason}") as caught:
        await Host(recorder, app).run(_sleep)
    assert caught.value.told
    assert caught.value.cause is error


# Its shutdown.


def shutting_down(recorder: Recorder, *messages: str, then: Any = None) -> App:
    """Make an app that starts well, and has trouble with its shutdown."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for message in messages:
            await send({"type": message, "message": "words"})
        if isinstance(then, Exception):
            raise then
        if then is not None:
            await then(receive)

    return app


async def _ask_for_more(receive: Any) -> None:
    while True:
        await receive()


@pytest.mark.parametrize(
    ("messages", "then", "told"),
    [
        pytest.param(["lifespan.shutdown.failed"], None, True, id="failed"),
        pytest.param(
            ["lifespan.shutdown.failed"], KeyError("x"), True, id="failed-and-raises"
        ),
        pytest.param([], KeyError("x"), False, id="raises"),
        pytest.param(["http.response.start"], None, False, id="foreign-message"),
        pytest.param(
            ["lifespan.shutdown.complete"], KeyError("x"), False, id="raises-late"
        ),
    ],
)
async def test_failing_shutdown(
    recorder: Recorder, messages: list[str], then: Any, told: bool
) -> None:
    """A shutdown that fails, in words or with an exception, fails the leaving."""
    app = shutting_down(recorder, *messages, then=then)
    with pytest.raises(AppLifespanError, match="during shutdown") as caught:
        await Host(recorder, app).run()
    assert caught.value.told is told
    assert recorder.marks == ["entered", "leaving"]


@pytest.mark.parametrize(
    ("messages", "then"),
    [
        pytest.param(["lifespan.shutdown.complete"], None, id="complete"),
        pytest.param([], None, id="returns-without-a-word"),
        pytest.param(["lifespan.shutdown.complete"], _ask_for_more, id="asks-for-more"),
        pytest.param([], _ask_for_more, id="asks-for-more-without-a-word"),
    ],
)
async def test_shutdown_succeeds(
    recorder: Recorder, messages: list[str], then: Any
) -> None:
    """A shutdown is over when the app says so, returns, or asks for more."""
    await Host(recorder, shutting_down(recorder, *messages, then=then)).run()
    assert recorder.marks == ["entered", "leaving", "left"]


async def test_waits_for_what_the_app_does_after_its_answer(
    recorder: Recorder,
) -> None:
    """Clean-up after `shutdown.complete` is waited for."""

    async def clean_up(receive: Any) -> None:
        await anyio.lowlevel.checkpoint()
        recorder.mark("cleaned up")

    app = shutting_down(recorder, "lifespan.shutdown.complete", then=clean_up)
    await Host(recorder, app).run()
    assert recorder.marks == ["entered", "leaving", "cleaned up", "left"]


# Trouble from outside.


async def test_an_error_in_the_body_ends_the_call(recorder: Recorder) -> None:
    """What the body raises comes out as it is, after the app has cleaned up."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        finally:
            recorder.mark("cleaned up")

    async def body() -> None:
        raise ValueError("body")

    with pytest.raises(ValueError, match="body"):
        await Host(recorder, app).run(body)
    assert recorder.marks == ["entered", "cleaned up"]


async def test_a_cancelled_app_may_await_its_clean_up(recorder: Recorder) -> None:
    """Cancelled from outside, the app is cancelled once and may still await."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        finally:
            await anyio.lowlevel.checkpoint()
            await send({"type": "lifespan.shutdown.failed", "message": "cancelled"})
            recorder.mark("cleaned up")

    async with anyio.create_task_group() as group:
        group.start_soon(Host(recorder, app).run, _sleep)
        await recorder.wait_for_mark("entered")
        group.cancel_scope.cancel()
    assert recorder.marks == ["entered", "cleaned up"]


async def test_a_startup_that_swallows_its_cancellation(recorder: Recorder) -> None:
    """BlackSheep answers `failed` and returns when its startup is cancelled."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        recorder.mark("starting")
        try:
            await anyio.sleep_forever()
        except BaseException:
            await send({"type": "lifespan.startup.failed"})

    async with anyio.create_task_group() as group:
        group.start_soon(Host(recorder, app).run)
        await recorder.wait_for_mark("starting")
        group.cancel_scope.cancel()
    assert recorder.marks == ["starting"]


async def test_cancelled_before_the_call_has_begun(recorder: Recorder) -> None:
    """A call that is over before it began is not made."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        recorder.mark("called")

    call = _Call("app", app, {"type": "lifespan"}, lambda: 5.0)
    async with anyio.create_task_group() as group:
        group.start_soon(call.end)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(call.run)
    assert recorder.marks == []


async def test_entered_in_a_cancelled_scope(recorder: Recorder) -> None:
    """Whoever enters when all is over already does not hang."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Host(recorder, complete).run(_sleep)
    assert recorder.marks == []


async def test_two_lifespans_of_one_app(recorder: Recorder) -> None:
    """Each entering is a call of its own."""
    for _ in range(2):
        await Host(recorder, complete).run()
    assert recorder.marks == ["entered", "leaving", "left"] * 2


# Signs that an app cannot be started twice.


ONCE = RuntimeError(".run() can only be called once per instance.")
NO_ARGS = "'_AsyncGeneratorContextManager' object has no attribute 'args'"


@pytest.mark.parametrize(
    ("error", "recognised"),
    [
        (AppLifespanError("startup", None, told=True, message=""), True),
        (AppLifespanError("startup", None, told=True), True),
        (AppLifespanError("startup", ONCE), True),
        (AppLifespanError("startup", RuntimeError("generator didn't yield")), True),
        (AppLifespanError("startup", None, told=True, message=NO_ARGS), True),
        (AppLifespanError("startup", OSError("refused")), False),
        (AppLifespanError("startup", None), False),
        (AppLifespanError("shutdown", None, told=True), False),
        (AppLifespanError("serving", None, told=True), False),
        (RuntimeError("generator didn't yield"), False),
    ],
    ids=[
        "empty-message",
        "no-message",
        "mcp",
        "used-up",
        "litestar",
        "refused",
        "no-cause",
        "shutdown",
        "serving",
        "not-an-app's",
    ],
)
def test_recognises_apps_that_cannot_restart(
    error: Exception, recognised: bool
) -> None:
    """The measured signs are recognised in a failed startup, and nowhere else."""
    assert (restart_obstacle(error) is not None) is recognised
