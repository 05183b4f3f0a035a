"""Whoever cancels, whenever: what was opened is closed, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard import (
    OpenTimeoutError,
    ResourcePhase,
    Retry,
    StartupFailedError,
    resource,
)
from asgi_lifespan_guard._tasks.backend import scheduler
from asgi_lifespan_guard.events import (
    AttemptFailed,
    CloseFailed,
    ResourceCrashed,
    ResourceGaveUp,
    ResourceOpened,
)
from tests.recorder import Recorder
from tests.resources.stage import Stage
from tests.support.virtual_time import on_virtual_asyncio, on_virtual_time


AWAITS = 8
AT_ONCE = Retry(wait=lambda _: 0)
LATER = Retry(wait=lambda _: 100)
IN_ASYNCIO = pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(("asyncio", {}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    ],
)


async def next_turn() -> None:
    """Be suspended, as a checkpoint is not, until the event loop's next turn."""
    turn = anyio.Event()
    scheduler()(turn.set)
    await turn.wait()


class Slow:
    """A resource with many awaits in entering, half of them with its body open.

    It stays for ever at await number *target*; *busy* ones go on after one switch.
    Leaving awaits, too: what is cancelled twice does not get to its end.
    """

    def __init__(self, target: int, *, busy: bool) -> None:
        self.target = target
        self.busy = busy
        self.reached = anyio.Event()
        self.opened = 0
        self.closed = 0

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[str, None]:
        for number in range(AWAITS // 2):
            await self._pause(number)
        self.opened += 1
        try:
            for number in range(AWAITS // 2, AWAITS):
                await self._pause(number)
            self.reached.set()
            yield "slow"
        finally:
            for _ in range(3):
                await checkpoint()
            await next_turn()
            self.closed += 1

    async def _pause(self, number: int) -> None:
        if number == self.target:
            self.reached.set()
            await (checkpoint() if self.busy else anyio.sleep_forever())
        await checkpoint()


AT_EACH_AWAIT = pytest.mark.parametrize("target", range(AWAITS + 1))


@pytest.mark.anyio
@pytest.mark.parametrize("busy", [False, True], ids=["blocked", "busy"])
@AT_EACH_AWAIT
async def test_a_stop_at_each_await_leaves_nothing_open(
    stage: Stage, target: int, busy: bool
) -> None:
    """Wherever the opening is, what it opened is closed to the last await."""
    slow = Slow(target, busy=busy)
    async with stage.running(resource(slow.open, name="slow")):
        await slow.reached.wait()
    assert slow.opened == slow.closed
    assert stage.phase("slow") is ResourcePhase.CLOSED
    assert stage.values == {}


@pytest.mark.anyio
@pytest.mark.parametrize("busy", [False, True], ids=["blocked", "busy"])
@AT_EACH_AWAIT
async def test_an_outer_cancellation_at_each_await_leaves_nothing_open(
    stage: Stage, target: int, busy: bool
) -> None:
    """A scope or nursery around everything is cancelled: the same, and it ends."""
    slow = Slow(target, busy=busy)
    with anyio.CancelScope() as scope:
        async with stage.running(resource(slow.open, name="slow")):
            await slow.reached.wait()
            scope.cancel()
            await anyio.sleep_forever()
    assert slow.opened == slow.closed
    assert stage.phase("slow") is ResourcePhase.CLOSED


@pytest.mark.anyio
@pytest.mark.parametrize("target", range(AWAITS))
@on_virtual_time
async def test_a_timeout_at_each_await_leaves_nothing_open(
    stage: Stage, target: int
) -> None:
    """An attempt that is given up has closed what it had opened."""
    slow = Slow(target, busy=False)
    late = resource(slow.open, name="slow", timeout=5, startup="blocking")
    with pytest.raises(StartupFailedError, match="was not done after"):
        async with stage.running(late):
            pytest.fail("the body must not begin")
    assert slow.opened == slow.closed


@pytest.mark.anyio
@pytest.mark.parametrize("target", range(AWAITS))
async def test_an_abort_at_each_await_leaves_nothing_open(
    stage: Stage, target: int
) -> None:
    """A startup that is cancelled from outside has closed what it had opened."""
    slow = Slow(target, busy=False)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def cancel() -> None:
                await slow.reached.wait()
                scope.cancel()

            group.start_soon(cancel)
            async with stage.running(
                resource(slow.open, name="slow", startup="blocking")
            ):
                pytest.fail("the body must not begin")
    assert slow.opened == slow.closed


@pytest.mark.anyio
@pytest.mark.parametrize("busy", [False, True], ids=["blocked", "busy"])
@AT_EACH_AWAIT
@IN_ASYNCIO
async def test_a_native_cancellation_at_each_await_leaves_nothing_open(
    stage: Stage, target: int, busy: bool
) -> None:
    """Asyncio's `task.cancel()` of the host: the same, and it is raised further."""
    slow = Slow(target, busy=busy)

    async def host() -> None:
        async with stage.running(resource(slow.open, name="slow")):
            await anyio.sleep_forever()

    task = asyncio.create_task(host())
    await slow.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.opened == slow.closed


@pytest.mark.anyio
@pytest.mark.parametrize("_time", range(10))  # trio shuffles its tasks
async def test_a_cancelled_startup_has_not_failed(stage: Stage, _time: int) -> None:
    """Who cancels a startup is not told that a resource could not be opened."""
    slow = stage.make("slow", startup="blocking", on_open=anyio.sleep_forever)
    late = stage.make("late", startup="blocking", needs=[slow])
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def cancel() -> None:
                await stage.until_phase("slow", ResourcePhase.OPENING)
                scope.cancel()

            group.start_soon(cancel)
            async with stage.running(slow, late):
                pytest.fail("the body must not begin")
    assert scope.cancelled_caught


CLOSES = [
    *("closing api", "close api"),
    *("closing cache", "close cache"),
    *("closing db", "close db"),
]


def _three(stage: Stage) -> list[Any]:
    db = stage.make("db", on_close=next_turn)
    cache = stage.make("cache", needs=[db], on_close=next_turn)
    api = stage.make("api", needs=[cache], on_close=next_turn)
    return [db, cache, api]


@pytest.mark.anyio
async def test_an_outer_cancellation_closes_in_order(stage: Stage) -> None:
    """Closing is shielded from the scope that made it necessary."""
    with anyio.CancelScope() as scope:
        async with stage.running(*_three(stage)):
            await stage.until_up("api")
            scope.cancel()
            await checkpoint()
    assert stage.marks[3:] == CLOSES
    assert stage.recorder.of(CloseFailed) == []
    assert stage.recorder.of(ResourceCrashed) == []


@pytest.mark.anyio
async def test_a_cancellation_during_closing_does_not_hurry_it(stage: Stage) -> None:
    """What is being closed goes on, and the order stays."""
    with anyio.CancelScope() as scope:
        db, cache, api = _three(stage)
        late = stage.make("late", needs=[api], on_close=scope.cancel)
        async with stage.running(db, cache, api, late):
            await stage.until_up("late")
    assert stage.marks[4:] == ["closing late", "close late", *CLOSES]


@pytest.mark.anyio
async def test_a_cancellation_hides_no_error(stage: Stage) -> None:
    """What the body raised is raised, also where a scope around it was cancelled."""
    error = KeyError("own")

    async def serve() -> None:
        with anyio.CancelScope() as scope:
            async with stage.running(*_three(stage)):
                await stage.until_up("api")
                scope.cancel()
                raise error

    with pytest.raises(KeyError) as caught:
        await serve()
    assert caught.value is error
    assert stage.marks[3:] == CLOSES


@pytest.mark.anyio
async def test_a_failing_sibling_closes_in_order(stage: Stage) -> None:
    """A nursery around everything is cancelled by another of its tasks."""

    async def fail() -> None:
        await stage.recorder.wait_for_mark("open api")
        raise KeyError

    async def serve(group: TaskGroup) -> None:
        group.start_soon(fail)
        async with stage.running(*_three(stage)):
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup):
        async with anyio.create_task_group() as group:
            await serve(group)
    assert stage.marks[3:] == CLOSES


@pytest.mark.anyio
@IN_ASYNCIO
async def test_a_native_cancellation_closes_in_order(stage: Stage) -> None:
    """Twice, even: an impatient server cancels again while things are closing."""

    async def host() -> None:
        async with stage.running(*_three(stage)):
            await anyio.sleep_forever()

    task = asyncio.create_task(host())
    await stage.recorder.wait_for_mark("open api")
    task.cancel()
    await stage.recorder.wait_for_mark("closing cache")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.marks[3:] == CLOSES


@pytest.mark.anyio
@IN_ASYNCIO
async def test_an_owner_that_is_cancelled_alone_has_crashed(stage: Stage) -> None:
    """It gives up; what needs it is closed first, and lost; the others stay."""
    db, cache, api = _three(stage)
    async with stage.running(db, cache, api, stage.make("other")):
        await stage.until_up("api", "other")
        next(t for t in asyncio.all_tasks() if t.get_name() == "open cache").cancel()
        await stage.until_phase("api", ResourcePhase.FAILED)
        assert stage.values == {"db": "db", "other": "other"}
        assert stage.phase("cache") is ResourcePhase.FAILED
        await anyio.wait_all_tasks_blocked()
        stage.mark("body")
    (crashed,) = stage.recorder.of(ResourceCrashed)
    assert crashed.resource == "cache"
    assert "cancelled from outside" in str(stage.recorder.of(ResourceGaveUp)[0].error)
    marks = [mark for mark in stage.marks[4:] if "other" not in mark]
    assert marks == [*CLOSES[:4], "body", *CLOSES[4:]]


@pytest.mark.anyio
@IN_ASYNCIO
async def test_a_startup_does_not_wait_for_an_owner_that_was_cancelled(
    stage: Stage,
) -> None:
    """It fails, because what it waits for will not come."""

    async def cancel_oneself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep_forever()

    db = stage.make("db", startup="blocking", on_open=cancel_oneself)
    with pytest.raises(StartupFailedError, match="was cancelled"):
        async with stage.running(db):
            pytest.fail("the body must not begin")


def _run(anyio_backend: Any, main: Callable[[], Awaitable[None]]) -> None:
    backend, options = anyio_backend
    anyio.run(main, backend=backend, backend_options=options)


@IN_ASYNCIO
def test_the_end_of_the_loop_closes_in_order(anyio_backend: Any) -> None:
    """`asyncio.run` cancels all tasks at once, the owners too; needs close last."""
    stage = Stage(Recorder())
    tasks = []

    async def host() -> None:
        async with stage.running(*_three(stage)):
            await anyio.sleep_forever()

    async def main() -> None:
        tasks.append(asyncio.create_task(host()))
        await stage.recorder.wait_for_mark("open api")
        await anyio.wait_all_tasks_blocked()

    _run(anyio_backend, main)
    assert stage.marks[3:] == CLOSES
    assert stage.recorder.of(ResourceCrashed) == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_ends_the_process_is_not_swallowed(
    anyio_backend: Any, error: BaseException
) -> None:
    """Raised in a factory it goes through, and what is open is closed before."""
    stage = Stage(Recorder())
    db, cache, api = _three(stage)

    def fail() -> None:
        raise error

    last = stage.make("last", needs=[api], on_open=fail)

    async def main() -> None:
        async with stage.running(db, cache, api, last):
            await anyio.sleep_forever()

    with pytest.raises(type(error)) as caught:
        _run(anyio_backend, main)
    assert caught.value is error
    assert stage.marks[3:] == CLOSES


async def _leave_a_cancellation() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with suppress(asyncio.CancelledError):
        await anyio.sleep_forever()


@pytest.mark.anyio
@on_virtual_asyncio
async def test_a_leftover_cancellation_does_not_end_an_owner(stage: Stage) -> None:
    """Older libraries cancel their task and never take it back; the timeout works."""

    async def leave_one_behind() -> None:
        await _leave_a_cancellation()
        await anyio.sleep_forever()

    db = stage.make("db", on_open=leave_one_behind, timeout=5, retry=AT_ONCE)
    async with stage.running(db):
        await stage.recorder.wait_for(AttemptFailed, 3)
    assert all(
        isinstance(event.error, OpenTimeoutError)
        for event in stage.recorder.of(AttemptFailed)
    )
    assert stage.recorder.of(ResourceGaveUp) == []


@pytest.mark.anyio
@IN_ASYNCIO
@pytest.mark.parametrize("when", ["at its first check", "while it is up"])
async def test_a_leftover_cancellation_is_not_taken_for_one_that_goes_on(
    stage: Stage, when: str
) -> None:
    """Not even by a task group that is held, which would cancel its owner for it."""
    crash = anyio.Event()
    failures = [OSError("refused")] if when == "at its first check" else []

    async def fail() -> None:
        await crash.wait()
        raise RuntimeError("crash")

    @asynccontextmanager
    async def open_db() -> AsyncGenerator[str, None]:
        await _leave_a_cancellation()
        async with asyncio.TaskGroup() as group:
            child = group.create_task(fail())
            yield "db"
            child.cancel()

    def check(_: str) -> None:
        if failures:
            raise failures.pop()

    async with stage.running(resource(open_db, name="db", check=check, retry=AT_ONCE)):
        await stage.until_up("db")
        if when == "while it is up":
            crash.set()
            await stage.recorder.wait_for(ResourceCrashed)
            crash = anyio.Event()
            await stage.recorder.wait_for(ResourceOpened, 2)
    assert stage.recorder.of(ResourceGaveUp) == []


@pytest.mark.anyio
@IN_ASYNCIO
@pytest.mark.parametrize("when", ["before the run", "during the run"])
async def test_a_leftover_cancellation_of_the_host_is_no_stop(
    stage: Stage, when: str
) -> None:
    """What crashes is told and comes back: a server's `receive` may leave one, too."""
    task = asyncio.current_task()
    assert task is not None
    if when == "before the run":
        await _leave_a_cancellation()
    crash = anyio.Event()

    async def fail() -> None:
        await crash.wait()
        raise RuntimeError("crash")

    @resource(retry=AT_ONCE)
    async def db() -> AsyncGenerator[None, None]:
        async with anyio.create_task_group() as group:
            if not crash.is_set():
                group.start_soon(fail)
            yield
            group.cancel_scope.cancel()

    async with stage.running(db):
        await stage.until_up("db")
        if when == "during the run":
            await _leave_a_cancellation()
        crash.set()
        await stage.recorder.wait_for(ResourceOpened, 2)
        assert len(stage.recorder.of(ResourceCrashed)) == 1
        task.uncancel()


@pytest.mark.anyio
@IN_ASYNCIO
@pytest.mark.parametrize("phase", [ResourcePhase.PENDING, ResourcePhase.WAITING])
async def test_an_owner_that_is_cancelled_while_it_waits_gives_up(
    stage: Stage, phase: ResourcePhase
) -> None:
    """It is told, so that nobody waits for it without knowing."""
    errors = [OSError()] if phase is ResourcePhase.WAITING else []

    async def fail() -> None:
        if errors:
            raise errors.pop()

    slow = stage.make("slow", on_open=anyio.sleep_forever)
    needs = [slow] if phase is ResourcePhase.PENDING else []
    db = stage.make("db", needs=needs, on_open=fail, retry=LATER)
    async with stage.running(slow, db):
        await stage.until_phase("db", phase)
        await anyio.wait_all_tasks_blocked()
        next(t for t in asyncio.all_tasks() if t.get_name() == "open db").cancel()
        await stage.until_phase("db", ResourcePhase.FAILED)
    (gave_up,) = stage.recorder.of(ResourceGaveUp)
    assert "cancelled from outside" in str(gave_up.error)
