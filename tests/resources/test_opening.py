"""One attempt: one task, one deadline for opening, one for closing."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard import (
    CloseTimeoutError,
    OpenTimeoutError,
    ResourcePhase,
    Retry,
    resource,
)
from asgi_lifespan_guard.events import (
    AttemptFailed,
    CloseFailed,
    ResourceClosed,
    ResourceCrashed,
    ResourceGaveUp,
    ResourceOpened,
)
from tests.resources.stage import Stage, failing
from tests.support.virtual_time import on_time_by_hand, on_virtual_time, pass_time


pytestmark = pytest.mark.anyio
AT_ONCE = Retry(wait=lambda _: 0)
IN_TRIO = pytest.mark.parametrize("anyio_backend", ["trio"])
IN_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


# One task


async def test_a_resource_is_entered_and_left_in_the_same_task(stage: Stage) -> None:
    """Each has a task of its own, from the first attempt over the last close."""
    tasks: dict[str, list[int]] = {"db": [], "api": []}

    def note(name: str) -> None:
        tasks[name].append(anyio.get_current_task().id)

    errors = failing(OSError())

    def open_db() -> None:
        note("db")
        errors()

    db = stage.make("db", retry=AT_ONCE, on_open=open_db, on_close=lambda: note("db"))
    api = stage.make(
        "api",
        needs=[db],
        on_open=lambda: note("api"),
        on_close=lambda: note("api"),
    )
    async with stage.running(db, api):
        await stage.until_up("api")
    assert [len(ids) for ids in tasks.values()] == [3, 2]
    assert len(set(tasks["db"])) == len(set(tasks["api"])) == 1
    assert tasks["db"][0] != tasks["api"][0]


async def test_a_context_variable_lasts_from_entering_to_leaving(stage: Stage) -> None:
    """A token that was taken when it opened can be given back when it closes."""
    variable = contextvars.ContextVar("variable", default="unset")

    @resource
    async def db() -> AsyncGenerator[None, None]:
        token = variable.set("set")
        yield
        variable.reset(token)

    async with stage.running(db):
        await stage.until_up("db")
    assert stage.recorder.of(CloseFailed) == []


class Held:
    """A task group held over the yield, with a task in it for as long as it is up."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.crash = anyio.Event()
        self.failures = failing(OSError("first"))

    async def consume(self) -> None:
        self.stage.mark("consume")
        try:
            await self.crash.wait()
            self.crash = anyio.Event()
            raise RuntimeError("crash")
        finally:
            self.stage.mark("consumed")

    @asynccontextmanager
    async def of_anyio(self) -> AsyncGenerator[str, None]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.consume)
            await anyio.wait_all_tasks_blocked()
            self.failures()
            yield "bus"
            group.cancel_scope.cancel()

    @asynccontextmanager
    async def of_asyncio(self) -> AsyncGenerator[str, None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.consume())
            await anyio.wait_all_tasks_blocked()
            self.failures()
            yield "bus"
            task.cancel()

    @asynccontextmanager
    async def of_trio(self) -> AsyncGenerator[str, None]:
        import trio

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.consume)
            await anyio.wait_all_tasks_blocked()
            self.failures()
            yield "bus"
            nursery.cancel_scope.cancel()


async def _walk(stage: Stage, held: Held, factory: Any) -> None:
    bus = resource(factory, name="bus", retry=AT_ONCE)
    api = stage.make("api", needs=[bus])
    async with stage.running(bus, api):
        await stage.recorder.wait_for_mark("open api")
        await stage.until_up("api")
        held.crash.set()
        await stage.recorder.wait_for_mark("open api", 2)
        await stage.until_up("api")
    up = ["consume", "open api"]
    assert stage.marks == [
        *("consume", "consumed"),  # the attempt that failed
        *(*up, "consumed", "closing api", "close api"),  # the crash
        *(*up, "closing api", "close api", "consumed"),  # the stop
    ]
    assert len(stage.recorder.of(ResourceCrashed)) == 1
    assert stage.recorder.of(CloseFailed) == []


async def test_a_task_group_is_held_over_the_yield(stage: Stage) -> None:
    """Anyio's lives through a retry, a crash and an ordered close."""
    held = Held(stage)
    await _walk(stage, held, held.of_anyio)


@IN_ASYNCIO
async def test_a_native_task_group_is_held_over_the_yield(stage: Stage) -> None:
    """So does asyncio's own."""
    held = Held(stage)
    await _walk(stage, held, held.of_asyncio)


@IN_TRIO
async def test_a_nursery_is_held_over_the_yield(stage: Stage) -> None:
    """So does trio's nursery."""
    held = Held(stage)
    await _walk(stage, held, held.of_trio)


async def test_an_exit_stack_of_several_is_one_resource(stage: Stage) -> None:
    """Scopes and groups may be stacked inside a resource as they may in any task."""

    @resource
    async def many() -> AsyncGenerator[int, None]:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                group = anyio.create_task_group()
                await stack.enter_async_context(group)
                group.start_soon(anyio.sleep_forever)
                stack.callback(group.cancel_scope.cancel)
            yield 3

    async with stage.running(many):
        await stage.until_up("many")
    assert stage.recorder.of(CloseFailed) == []
    assert len(stage.recorder.of(ResourceClosed)) == 1


# The deadline for opening


@on_virtual_time
async def test_an_attempt_has_a_deadline_of_its_own(stage: Stage) -> None:
    """One that is not done is cancelled and told; the next one has all its time."""
    waits = [anyio.Event().wait, checkpoint]
    db = stage.make("db", timeout=5, retry=AT_ONCE, on_open=lambda: waits.pop(0)())
    async with stage.running(db):
        await stage.until_up("db")
    (failed,) = stage.recorder.of(AttemptFailed)
    assert isinstance(failed.error, OpenTimeoutError)
    assert (failed.error.attempt, failed.error.timeout) == (1, 5)
    assert failed.error.__cause__ is None
    assert not failed.unexpected


@on_virtual_time
async def test_an_error_while_timing_out_is_the_cause(stage: Stage) -> None:
    """What the clean-up of a cancelled attempt raised is not lost."""
    error = ValueError("clean-up")

    async def open_badly() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise error

    db = stage.make("db", timeout=5, retry=None, on_open=open_badly)
    async with stage.running(db):
        await stage.until_phase("db", ResourcePhase.FAILED)
    (gave_up,) = stage.recorder.of(ResourceGaveUp)
    assert isinstance(gave_up.error, OpenTimeoutError)
    assert gave_up.error.__cause__ is error


@on_virtual_time
async def test_an_open_resource_has_no_deadline(stage: Stage) -> None:
    """The attempt's timer ends with the opening."""
    async with stage.running(stage.make("db", timeout=5)):
        await stage.until_up("db")
        await anyio.sleep(3600)
        assert stage.phase("db") is ResourcePhase.UP


@on_virtual_time
async def test_no_timeout_is_no_deadline(stage: Stage) -> None:
    """`timeout=None` lets an attempt take what it takes."""
    db = stage.make("db", timeout=None, on_open=lambda: anyio.sleep(3600))
    async with stage.running(db):
        await anyio.sleep(3601)
        assert stage.phase("db") is ResourcePhase.UP


@on_virtual_time
async def test_who_swallows_the_timeout_is_not_up(stage: Stage) -> None:
    """A factory that yields although it was cancelled is left again at once."""

    @resource(timeout=5, retry=None)
    async def stubborn() -> AsyncGenerator[str, None]:
        try:
            with anyio.CancelScope():
                await anyio.sleep_forever()
        except BaseException:
            stage.mark("swallowed")
        yield "value"
        await checkpoint()
        stage.mark("left")

    async with stage.running(stubborn):
        await stage.until_phase("stubborn", ResourcePhase.FAILED)
        assert stage.values == {}
    assert stage.marks == ["swallowed", "left"]
    assert stage.recorder.of(ResourceOpened) == []
    (gave_up,) = stage.recorder.of(ResourceGaveUp)
    assert isinstance(gave_up.error, OpenTimeoutError)


@on_virtual_time
async def test_a_clean_up_after_a_timeout_is_bounded(stage: Stage) -> None:
    """It has the close_timeout; then it is cancelled for good."""

    async def hang() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stage.mark("cleaning")
            await anyio.sleep_forever()

    db = stage.make("db", timeout=5, close_timeout=2, retry=None, on_open=hang)
    async with stage.running(db):
        await stage.until_phase("db", ResourcePhase.FAILED)
    assert stage.marks == ["cleaning"]


@on_virtual_time
async def test_a_timeout_of_the_factorys_own_is_an_error_like_any(
    stage: Stage,
) -> None:
    """`anyio.fail_after` inside works, and is retried."""
    tries = [anyio.sleep_forever, checkpoint]

    async def connect() -> None:
        with anyio.fail_after(5):
            await tries.pop(0)()

    async with stage.running(stage.make("db", retry=AT_ONCE, on_open=connect)):
        await stage.until_up("db")
    (failed,) = stage.recorder.of(AttemptFailed)
    assert type(failed.error) is TimeoutError


# The deadline for closing


@on_virtual_time
async def test_a_close_that_is_late_names_its_deadline(stage: Stage) -> None:
    """A hanging close is cancelled after close_timeout, and told as a timeout."""
    db = stage.make("db", close_timeout=5, on_close=anyio.sleep_forever)
    async with stage.running(db):
        await stage.until_up("db")
    (failed,) = stage.recorder.of(CloseFailed)
    assert isinstance(failed.error, CloseTimeoutError)
    assert failed.resource == failed.error.resource == "db"
    assert stage.supervisor.report()[0].last_error is not None


@on_virtual_time
async def test_waiting_for_those_who_use_it_is_not_closing(stage: Stage) -> None:
    """A need's close_timeout begins when what needs it is closed."""
    db = stage.make("db", close_timeout=1)
    api = stage.make("api", needs=[db], on_close=lambda: anyio.sleep(1.5))
    async with stage.running(db, api):
        await stage.until_up("api")
    assert stage.recorder.of(CloseFailed) == []
    assert stage.marks[-2:] == ["closing db", "close db"]


@on_time_by_hand
async def test_a_close_that_needed_no_more_time_is_not_late(stage: Stage) -> None:
    """Its deadline had passed before it began, and yet it came to its end."""
    closed: list[str] = []

    @resource
    async def db() -> AsyncGenerator[None, None]:
        yield
        closed.append("db")

    api = stage.make("api", needs=[db], on_close=lambda: pass_time(10))
    async with stage.running(db, api):
        await stage.until_up("api")
    assert closed == ["db"]
    assert [event.resource for event in stage.recorder.of(ResourceClosed)][-1] == "db"
    assert "db" not in [event.resource for event in stage.recorder.of(CloseFailed)]


async def test_a_close_that_fails_during_a_reopening_is_told(stage: Stage) -> None:
    """It is reopened all the same."""
    error = ValueError("close")
    held = Held(stage)
    db = resource(held.of_anyio, name="db", retry=AT_ONCE)
    api = stage.make("api", needs=[db], on_close=failing(error))
    async with stage.running(db, api):
        await stage.until_up("api")
        held.crash.set()
        await stage.recorder.wait_for(ResourceOpened, 4)
    assert [event.error for event in stage.recorder.of(CloseFailed)] == [error]


@IN_ASYNCIO
async def test_awaiting_what_was_cancelled_is_a_failure_like_any(stage: Stage) -> None:
    """In opening it is retried, in closing it is told; neither goes by in silence."""

    async def await_cancelled() -> None:
        task = asyncio.create_task(anyio.sleep_forever())
        task.cancel()
        await task

    opens = [await_cancelled, checkpoint]
    db = stage.make(
        "db",
        retry=AT_ONCE,
        on_open=lambda: opens.pop(0)(),
        on_close=await_cancelled,
    )
    async with stage.running(db):
        await stage.until_up("db")
    (failed,) = stage.recorder.of(AttemptFailed)
    (late,) = stage.recorder.of(CloseFailed)
    assert isinstance(failed.error.__cause__, asyncio.CancelledError)
    assert isinstance(late.error.__cause__, asyncio.CancelledError)
