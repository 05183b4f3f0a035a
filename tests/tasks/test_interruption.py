"""Cancelling a piece of work once: what it awaits to clean up is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from asgi_lifespan_guard._tasks.backend import on_trio
from asgi_lifespan_guard._tasks.interruption import (
    Interruption,
    interruptible,
)
from tests.support.virtual_time import on_time_by_hand, on_virtual_time, pass_time


pytestmark = pytest.mark.anyio
GRACE = 5.0


class Work:
    """Work in another task that waits, and awaits again in its clean-up."""

    def __init__(self, grace: float = GRACE) -> None:
        self.marks: list[str] = []
        self.begun = anyio.Event()
        self.let_clean = anyio.Event()
        self.work: Interruption
        self.grace = grace

    async def run(self) -> None:
        async with interruptible(self.grace) as self.work:
            try:
                self.begun.set()
                await anyio.sleep_forever()
            finally:
                self.marks.append("cleaning")
                await self.let_clean.wait()
                await checkpoint()
                self.marks.append("clean")
        self.marks.append("after")
        await checkpoint()


@asynccontextmanager
async def _beside(
    body: Callable[[Interruption], Awaitable[None]],
) -> AsyncGenerator[Interruption, None]:
    """Run *body* interruptible in another task, as soon as it has begun."""
    works: list[Interruption] = []
    begun = anyio.Event()

    async def run() -> None:
        async with interruptible(GRACE) as work:
            works.append(work)
            begun.set()
            await body(work)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await begun.wait()
        yield works[0]


async def test_work_is_cancelled_once_and_cleans_up_in_peace() -> None:
    """What it awaits after the cancellation is not cancelled; nothing is raised."""
    work = Work()
    async with anyio.create_task_group() as group:
        group.start_soon(work.run)
        await work.begun.wait()
        work.work.interrupt()
        work.work.interrupt()
        await anyio.wait_all_tasks_blocked()
        work.let_clean.set()
    assert work.marks == ["cleaning", "clean", "after"]
    assert (work.work.interrupted, work.work.timed_out) == (True, False)
    assert not work.work.overdue


async def test_a_clean_up_has_its_grace() -> None:
    """Past it the work is cancelled for good."""
    work = Work(grace=0.01)
    async with anyio.create_task_group() as group:
        group.start_soon(work.run)
        await work.begun.wait()
        work.work.interrupt()
    assert work.marks == ["cleaning", "after"]
    assert work.work.overdue


async def test_work_can_be_interrupted_by_a_timer() -> None:
    """The same cancellation, and it says that it was the timer."""
    work = Work()
    async with anyio.create_task_group() as group:
        group.start_soon(work.run)
        await work.begun.wait()
        work.work.interrupt_after(0.01)
        work.let_clean.set()
    assert work.marks == ["cleaning", "clean", "after"]
    assert (work.work.interrupted, work.work.timed_out) == (True, True)


@on_virtual_time
async def test_a_disarmed_timer_interrupts_nothing() -> None:
    """Neither one that was disarmed, nor `None`, which is no timer."""
    async with interruptible(GRACE) as work:
        work.interrupt_after(None)
        work.disarm()
        work.interrupt_after(1)
        work.disarm()
        await anyio.sleep(2)
    assert not work.interrupted


@on_virtual_time
async def test_a_timer_after_an_interruption_is_no_time_out() -> None:
    """Who is interrupted already has not timed out."""
    work = Work()
    async with anyio.create_task_group() as group:
        group.start_soon(work.run)
        await work.begun.wait()
        work.work.interrupt_after(1)
        work.work.interrupt()
        await anyio.sleep(2)
        work.let_clean.set()
    assert not work.work.timed_out


@on_virtual_time
async def test_work_that_is_over_cannot_be_interrupted() -> None:
    """A late interruption reaches nobody, and a late timer neither."""
    async with interruptible(GRACE) as work:
        work.interrupt_after(1)
    work.interrupt()
    await anyio.sleep(2)
    assert not work.interrupted


async def test_an_interruption_at_the_very_end_leaks_nowhere() -> None:
    """Work that ends before it is cancelled takes the cancellation with it."""
    async with interruptible(GRACE) as work:
        work.interrupt()
    for _ in range(3):
        await checkpoint()
    assert work.interrupted


async def test_work_may_interrupt_itself() -> None:
    """Its next wait is cancelled, and nothing after that."""
    marks = []
    async with interruptible(GRACE) as work:
        work.interrupt()
        try:
            await anyio.sleep_forever()
        finally:
            await checkpoint()
            marks.append("clean")
    assert marks == ["clean"]


@pytest.mark.parametrize("busy", [checkpoint, cancel_shielded_checkpoint])
async def test_busy_work_is_interrupted_at_its_next_wait(
    busy: Callable[[], Awaitable[None]],
) -> None:
    """Work that is runnable when it is interrupted is cancelled once all the same."""
    marks: list[str] = []

    async def run(_: Interruption) -> None:
        try:
            for _times in range(10):
                await busy()
            await anyio.sleep_forever()
        finally:
            await checkpoint()
            marks.append("clean")

    async with _beside(run) as work:
        work.interrupt()
    assert marks == ["clean"]


async def test_work_that_got_through_is_let_be() -> None:
    """Once it is disarmed, an interruption that nobody has noticed yet is dropped."""
    marks: list[str] = []

    async def run(work: Interruption) -> None:
        for _times in range(3):
            await cancel_shielded_checkpoint()
        work.disarm()
        for _times in range(3):
            await checkpoint()
        marks.append("closed")

    async with _beside(run) as work:
        if on_trio():  # On asyncio an edge is always delivered at once.
            work.interrupt()
    assert marks == ["closed"]


async def test_work_that_shields_itself_is_interrupted_afterwards() -> None:
    """At the latest: what a shield holds up is not forgotten."""
    marks: list[str] = []
    held = anyio.Event()

    async def run(_: Interruption) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await held.wait()
            await anyio.sleep_forever()
        finally:
            await checkpoint()
            marks.append("clean")

    async with _beside(run) as work:
        await anyio.wait_all_tasks_blocked()
        work.interrupt()
        await anyio.wait_all_tasks_blocked()
        held.set()
    assert marks == ["clean"]


async def test_every_task_of_the_work_is_cancelled() -> None:
    """Children of a task group inside are interrupted, and clean up in peace, too."""
    marks: list[str] = []

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await checkpoint()
            marks.append("child")

    async def run(_: Interruption) -> None:
        try:
            async with anyio.create_task_group() as inner:
                inner.start_soon(child)
                inner.start_soon(child)
                await anyio.sleep_forever()
        finally:
            await checkpoint()
            marks.append("parent")

    async with _beside(run) as work:
        await anyio.wait_all_tasks_blocked()
        work.interrupt()
    assert marks == ["child", "child", "parent"]


async def test_an_error_of_the_work_is_raised() -> None:
    """As it is."""
    with pytest.raises(KeyError):
        async with interruptible(GRACE):
            raise KeyError


async def test_an_error_of_the_clean_up_is_raised() -> None:
    """Work that is interrupted may still fail, and the cancellation is over then."""

    async def fail(work: Interruption) -> None:
        work.interrupt()
        try:
            await anyio.sleep_forever()
        finally:
            await checkpoint()
            raise ValueError("clean-up")

    with pytest.raises(ValueError, match="clean-up"):
        async with interruptible(GRACE) as work:
            await fail(work)
    await checkpoint()


async def test_an_outer_cancellation_waits_for_the_work() -> None:
    """It does not reach into the work, and is delivered right after it."""
    marks = []
    with anyio.CancelScope() as outer:
        async with interruptible(GRACE):
            outer.cancel()
            await checkpoint()
            marks.append("worked")
        await checkpoint()
        marks.append("not reached")
    assert marks == ["worked"]


async def test_an_interruption_inside_an_outer_cancellation_is_the_works_own() -> None:
    """Both come together: the work is over, and the outer scope is left, too."""
    marks = []
    with anyio.CancelScope() as outer:
        async with interruptible(GRACE) as work:
            outer.cancel()
            work.interrupt()
            await anyio.sleep_forever()
        marks.append("after")
        await checkpoint()
        marks.append("not reached")
    assert marks == ["after"]


async def test_the_bound_of_the_work_can_be_set() -> None:
    """`bound` cancels it for good, whether it was interrupted or not."""
    async with interruptible(GRACE) as work:
        work.bound(0.01)
        await anyio.sleep_forever()
    assert (work.overdue, work.interrupted) == (True, False)


async def test_interruptions_nest(anyio_backend_name: str) -> None:
    """The inner one ends alone, and leaves the outer one as it was."""
    marks = []
    async with interruptible(GRACE) as outer:
        async with interruptible(GRACE) as inner:
            inner.interrupt()
            await anyio.sleep_forever()
        marks.append("between")
        await checkpoint()
        outer.interrupt()
        await anyio.sleep_forever()
    assert marks == ["between"]
    if anyio_backend_name == "asyncio":
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_goes_on(interrupted: bool) -> None:
    """Asyncio's `task.cancel()` ends the work and is raised further, counts intact."""
    begun = anyio.Event()

    async def run() -> None:
        async with interruptible(GRACE) as work:
            begun.set()
            if interrupted:
                asyncio.get_running_loop().call_soon(work.interrupt)
            await anyio.sleep_forever()

    task = asyncio.create_task(run())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_at_the_very_end_goes_on() -> None:
    """It is not taken for the interruption that came at the same moment."""

    async def run() -> None:
        async with interruptible(GRACE) as work:
            work.interrupt()
            current = asyncio.current_task()
            assert current is not None
            current.cancel()

    task = asyncio.create_task(run())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_nobody_asked_for_is_an_error() -> None:
    """Awaiting a task that was cancelled is no cancellation of who awaits it."""
    task = asyncio.create_task(anyio.sleep_forever())
    task.cancel()
    with pytest.raises(RuntimeError, match="something that it awaited") as caught:
        async with interruptible(GRACE):
            await task
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


def test_the_timer_fires_without_anyio_around() -> None:
    """Servers run `asyncio.run`, where a timer's callback knows of no anyio."""
    marks: list[str] = []

    async def run() -> None:
        async with interruptible(0.01) as work:
            work.interrupt_after(0.01)
            try:
                await asyncio.sleep(10)
            finally:
                marks.append("interrupted")
                await asyncio.sleep(10)
        marks.append(f"timed out: {work.timed_out}, overdue: {work.overdue}")

    asyncio.run(asyncio.wait_for(run(), 5))
    assert marks == ["interrupted", "timed out: True, overdue: True"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_of_what_it_awaits_goes_on() -> None:
    """Also where the work waits for a task, and is interrupted in the same moment."""
    begun = anyio.Event()
    works: list[Interruption] = []

    async def run() -> None:
        async with interruptible(GRACE) as work:
            works.append(work)
            asyncio.get_running_loop().call_soon(begun.set)
            await asyncio.ensure_future(asyncio.sleep(3600))

    task = asyncio.create_task(run())
    await begun.wait()
    task.cancel()
    works[0].interrupt()
    with pytest.raises(asyncio.CancelledError):
        await task


@on_time_by_hand
async def test_a_sleep_that_ends_just_then_does_not_swallow_it() -> None:
    """Its own deadline has passed, too, before its task could be told of ours."""
    marks: list[str] = []

    async def sleep(_: Interruption) -> None:
        try:
            await anyio.sleep(1)
            await anyio.sleep_forever()
        finally:
            await checkpoint()
            marks.append("clean")

    with anyio.fail_after(60):
        async with _beside(sleep) as work:
            await anyio.wait_all_tasks_blocked()
            work.interrupt()
            pass_time(1.001)
    assert marks == ["clean"]
