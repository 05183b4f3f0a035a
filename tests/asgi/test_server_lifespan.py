"""The lifespan conversation on the server's side: whole transcripts."""

from __future__ import annotations

import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard import AppLifespanError, StartupFailedError
from asgi_lifespan_guard._asgi.server_lifespan import converse
from asgi_lifespan_guard.events import ConversationBroken, StartupFailed
from tests.recorder import Recorder


pytestmark = pytest.mark.anyio

STARTUP, SHUTDOWN = "lifespan.startup", "lifespan.shutdown"


class Wire:
    """A server's `receive` and `send`: says its lines, and marks what it is told.

    Args:
        recorder: Where the marks go.
        lines: Types of messages, or what `receive` raises. After the last it waits.
        deaf_to: A message type that `send` raises `OSError` for.
    """

    def __init__(
        self, recorder: Recorder, *lines: str | Exception, deaf_to: str = ""
    ) -> None:
        self._recorder = recorder
        self._lines = list(lines)
        self._deaf_to = deaf_to
        self.told: list[Any] = []

    async def receive(self) -> dict[str, Any]:
        await checkpoint()
        if not self._lines:
            self._recorder.mark("waiting")
            await anyio.sleep_forever()
        line = self._lines.pop(0)
        if isinstance(line, Exception):
            raise line
        return {"type": line}

    async def send(self, message: Any) -> None:
        await checkpoint()
        self.told.append(message)
        self._recorder.mark(message["type"])
        if message["type"] == self._deaf_to:
            raise OSError("the server is deaf")


@asynccontextmanager
async def service(
    recorder: Recorder,
    *,
    enter: Exception | None = None,
    begin: Exception | None = None,
    leave: Exception | None = None,
) -> AsyncGenerator[Callable[[], None], None]:
    """Stand in for a guard's resources; each of its steps may raise."""

    def start() -> None:
        recorder.mark("begin")
        if begin is not None:
            raise begin

    recorder.mark("open")
    try:
        if enter is not None:
            raise enter
        yield start
    finally:
        recorder.mark("close")
    if leave is not None:
        raise leave


async def talk(recorder: Recorder, wire: Wire, **service_options: Any) -> list[str]:
    """Hold a conversation to its end, and return the transcript."""
    held = service(recorder, **service_options)
    await converse(wire.receive, wire.send, held, recorder)
    return recorder.marks


async def test_holds_the_service_from_startup_to_shutdown(recorder: Recorder) -> None:
    """The plain case: open, complete, begin, and after the shutdown close, complete."""
    assert await talk(recorder, Wire(recorder, STARTUP, SHUTDOWN)) == [
        "open",
        f"{STARTUP}.complete",
        "begin",
        "close",
        f"{SHUTDOWN}.complete",
    ]
    assert recorder.events == []


async def test_ignores_unknown_messages(recorder: Recorder) -> None:
    """Unknown types change nothing; each is told once, however often it comes."""
    odd = "lifespan._nonstandard_event"
    wire = Wire(recorder, odd, odd, STARTUP, odd, "other", odd, SHUTDOWN)
    await talk(recorder, wire)
    assert recorder.marks.count("open") == recorder.marks.count("close") == 1
    problems = [event.problem for event in recorder.of(ConversationBroken)]
    assert len(problems) == 3
    assert "_nonstandard_event" in problems[0]
    assert "'other'" in problems[2]


async def test_survives_a_message_without_a_type(recorder: Recorder) -> None:
    """Even a message that is none is ignored."""
    wire = Wire(recorder, STARTUP, SHUTDOWN)
    empty: list[dict[str, Any]] = [{}]

    async def receive() -> dict[str, Any]:
        return empty.pop() if empty else await wire.receive()

    await converse(receive, wire.send, service(recorder), recorder)
    assert recorder.marks[-1] == f"{SHUTDOWN}.complete"


async def test_shutdown_before_startup(recorder: Recorder) -> None:
    """A server that never starts up gets its answer, and nothing is opened."""
    marks = await talk(recorder, Wire(recorder, SHUTDOWN))
    assert marks == [f"{SHUTDOWN}.complete"]


async def test_second_startup(recorder: Recorder) -> None:
    """A second startup is ignored: nothing is opened twice, nothing answered twice."""
    await talk(recorder, Wire(recorder, STARTUP, STARTUP, SHUTDOWN))
    assert recorder.marks.count("open") == 1
    assert recorder.marks.count(f"{STARTUP}.complete") == 1
    assert len(recorder.of(ConversationBroken)) == 1


async def test_failing_startup(recorder: Recorder) -> None:
    """What could not be opened is told to observers, to the server, and raised."""
    error = OSError("postgresql://app:hunter2@db refused")
    wire = Wire(recorder, STARTUP)
    with pytest.raises(OSError, match="refused") as caught:
        await talk(recorder, wire, enter=error)
    assert caught.value is error
    assert recorder.marks == ["open", "close", f"{STARTUP}.failed"]
    assert recorder.events == [StartupFailed(error, reported=False)]
    assert wire.told[0]["message"] == "postgresql://app:***@db refused"


async def test_failing_blocking_resource(recorder: Recorder) -> None:
    """A resource that gave up was reported already, and the message names it."""
    error = StartupFailedError("db", 3, OSError("refused"))
    wire = Wire(recorder, STARTUP)
    with pytest.raises(StartupFailedError):
        await talk(recorder, wire, enter=error)
    assert recorder.events == [StartupFailed(error, reported=True)]
    for fact in ("'db'", "3 attempts", "refused"):
        assert fact in wire.told[0]["message"]


async def test_an_error_of_ours_is_raised_without_its_causes(
    recorder: Recorder,
) -> None:
    """Servers print what is raised, and nobody has redacted the causes' texts."""
    cause = OSError("postgresql://app:hunter2@db refused")
    error = StartupFailedError("db", 3, cause)
    error.__cause__ = cause
    with pytest.raises(StartupFailedError) as caught:
        await talk(recorder, Wire(recorder, STARTUP), enter=error)
    raised = caught.value
    assert (str(raised), raised.resource, raised.cause) == (str(error), "db", cause)
    assert raised.__cause__ is raised.__context__ is None
    assert "hunter2" not in "".join(traceback.format_exception(raised))
    assert error.__cause__ is cause  # Observers were given it.


async def test_an_error_that_cannot_be_shown_is_told_all_the_same(
    recorder: Recorder,
) -> None:
    """The server hears of the failure, and the failure is raised."""

    class SilentError(OSError):
        def __str__(self) -> str:
            raise LookupError

    wire = Wire(recorder, STARTUP)
    with pytest.raises(SilentError):
        await talk(recorder, wire, enter=SilentError())
    assert "SilentError whose text cannot be shown" in wire.told[0]["message"]


@pytest.mark.parametrize("stage", ["startup", "shutdown"])
async def test_speaks_and_raises_as_the_app_did(recorder: Recorder, stage: str) -> None:
    """An app's own failure is passed on in its words, and its exception as it was."""
    cause = RuntimeError("boom")
    cause.__cause__ = ValueError("why")
    failed = AppLifespanError(stage, cause, told=True, message="its own words")
    failed.__cause__ = cause
    wire = Wire(recorder, STARTUP, SHUTDOWN)
    with pytest.raises(RuntimeError, match="boom") as caught:
        await talk(recorder, wire, **_failing(stage, failed))
    assert wire.told[-1] == {
        "type": f"lifespan.{stage}.failed",
        "message": "its own words",
    }
    assert caught.value is cause
    assert cause.__context__ is None
    assert isinstance(cause.__cause__, ValueError)


@pytest.mark.parametrize("stage", ["startup", "shutdown"])
@pytest.mark.parametrize("message", ["", None, "words"])
async def test_stays_quiet_where_the_app_did(
    recorder: Recorder, stage: str, message: str | None
) -> None:
    """An app that said `failed` and raised nothing raises nothing through us."""
    failed = AppLifespanError(stage, None, told=True, message=message)
    wire = Wire(recorder, STARTUP, SHUTDOWN)
    await talk(recorder, wire, **_failing(stage, failed))
    expected = {"type": f"lifespan.{stage}.failed", "message": message}
    if message is None:
        del expected["message"]
    assert wire.told[-1] == expected


@pytest.mark.parametrize("stage", ["startup", "shutdown"])
async def test_speaks_for_an_app_that_said_nothing(
    recorder: Recorder, stage: str
) -> None:
    """An app that raised without `failed` has its failure told, and raised."""
    cause = RuntimeError("boom")
    failed = AppLifespanError(stage, cause)
    wire = Wire(recorder, STARTUP, SHUTDOWN)
    with pytest.raises(RuntimeError, match="boom"):
        await talk(recorder, wire, **_failing(stage, failed))
    assert wire.told[-1]["message"].endswith(f"during {stage}: RuntimeError: boom")


async def test_raises_for_an_app_that_did_neither(recorder: Recorder) -> None:
    """An app that ended without an answer is a failure of its own kind."""
    failed = AppLifespanError("startup", None)
    with pytest.raises(AppLifespanError) as caught:
        await talk(recorder, Wire(recorder, STARTUP), enter=failed)
    assert caught.value is failed


async def test_failing_close(recorder: Recorder) -> None:
    """What was not closed is told with `shutdown.failed`, and raised."""
    wire = Wire(recorder, STARTUP, SHUTDOWN)
    with pytest.raises(OSError, match="stuck"):
        await talk(recorder, wire, leave=OSError("stuck"))
    assert recorder.marks[-2:] == ["close", f"{SHUTDOWN}.failed"]
    assert wire.told[-1]["message"] == "stuck"


async def test_server_raises_when_told_of_a_failure(recorder: Recorder) -> None:
    """Where `send` raises (hypercorn), all is closed before, the cause told once."""
    wire = Wire(recorder, STARTUP, deaf_to=f"{STARTUP}.failed")
    with pytest.raises(OSError, match="deaf"):
        await talk(recorder, wire, enter=RuntimeError("boom"))
    assert recorder.marks == ["open", "close", f"{STARTUP}.failed"]
    assert len(recorder.of(StartupFailed)) == 1


async def test_server_raises_when_told_of_success(recorder: Recorder) -> None:
    """A server that cannot hear `startup.complete` gets its error back, all closed."""
    wire = Wire(recorder, STARTUP, deaf_to=f"{STARTUP}.complete")
    with pytest.raises(OSError, match="deaf"):
        await talk(recorder, wire)
    assert recorder.marks == ["open", f"{STARTUP}.complete", "close"]


@pytest.mark.parametrize("opened", [False, True])
async def test_server_raises_from_receive(recorder: Recorder, opened: bool) -> None:
    """An error out of `receive` goes back to the server, and nothing stays open."""
    before = [STARTUP] if opened else []
    with pytest.raises(OSError, match="gone"):
        await talk(recorder, Wire(recorder, *before, OSError("gone")))
    assert recorder.marks.count("open") == recorder.marks.count("close") == opened
    assert f"{SHUTDOWN}.failed" not in recorder.marks


async def test_beginning_fails(recorder: Recorder) -> None:
    """A failure to begin is no protocol matter: closed, and raised."""
    with pytest.raises(RuntimeError, match="boom"):
        await talk(recorder, Wire(recorder, STARTUP), begin=RuntimeError("boom"))
    assert recorder.marks[-1] == "close"


async def test_cancelled_while_serving(recorder: Recorder) -> None:
    """A server that cancels the lifespan's task finds everything closed."""
    async with anyio.create_task_group() as group:
        group.start_soon(talk, recorder, Wire(recorder, STARTUP))
        await recorder.wait_for_mark("waiting")
        group.cancel_scope.cancel()
    assert recorder.marks == [
        "open",
        f"{STARTUP}.complete",
        "begin",
        "waiting",
        "close",
    ]


async def test_a_receive_that_never_waits_does_not_hold_the_loop(
    recorder: Recorder,
) -> None:
    """While nonsense comes in without pause, others still run."""
    wire = Wire(recorder)

    async def receive() -> dict[str, Any]:
        return {"type": "nonsense"}

    async with anyio.create_task_group() as group:
        group.start_soon(converse, receive, wire.send, service(recorder), recorder)
        await recorder.wait_for(ConversationBroken)
        group.cancel_scope.cancel()
    assert len(recorder.events) == 1


def _failing(stage: str, error: Exception) -> dict[str, Exception]:
    return {"enter" if stage == "startup" else "leave": error}
