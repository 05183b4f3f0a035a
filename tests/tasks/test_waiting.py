"""Waiting for a condition over plain state, and for work that must not be left."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard._tasks.waiting import StateEvent, Waiters, to_its_end


@pytest.mark.anyio
async def test_a_condition_that_holds_is_not_waited_for() -> None:
    """Not even for a switch: a cancelled scope does not notice."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Waiters().wait_until(lambda: True)
        return
    pytest.fail("it was cancelled")


@pytest.mark.anyio
async def test_every_waking_asks_again() -> None:
    """The wait goes on until the condition holds; a waking too many is harmless."""
    waiters, ready = Waiters(), False
    asked = 0

    def condition() -> bool:
        nonlocal asked
        asked += 1
        return ready

    waiters.wake()
    async with anyio.create_task_group() as group:
        group.start_soon(waiters.wait_until, condition)
        await anyio.wait_all_tasks_blocked()
        waiters.wake()
        await anyio.wait_all_tasks_blocked()
        assert asked == 2
        ready = True
        waiters.wake()
        waiters.wake()
    assert asked == 3


@pytest.mark.anyio
async def test_everybody_is_woken() -> None:
    """Each looks for itself; who waits for something else goes on waiting."""
    waiters = Waiters()
    here: set[str] = set()
    async with anyio.create_task_group() as group:
        for name in ("a", "a", "b"):
            group.start_soon(waiters.wait_until, lambda name=name: name in here)
        await anyio.wait_all_tasks_blocked()
        assert len(waiters) == 3
        here.add("a")
        waiters.wake()
        await anyio.wait_all_tasks_blocked()
        assert len(waiters) == 1
        here.add("b")
        waiters.wake()


@pytest.mark.anyio
async def test_who_has_stopped_waiting_is_forgotten() -> None:
    """A waking after it reaches nobody, and the next wait works."""
    waiters = Waiters()
    with anyio.move_on_after(0):
        await waiters.wait_until(lambda: False)
    assert len(waiters) == 0
    woken: list[bool] = []
    async with anyio.create_task_group() as group:
        group.start_soon(waiters.wait_until, lambda: bool(woken))
        await anyio.wait_all_tasks_blocked()
        woken.append(True)
        waiters.wake()


def test_waiters_survive_their_event_loop() -> None:
    """They are made before any, and used on one after another."""
    waiters = Waiters()
    here = False
    event = StateEvent(lambda: here, waiters)
    for backend in ("asyncio", "trio", "asyncio"):
        here = False
        anyio.run(_wait_in_vain, event, backend=backend)
        here = True
        waiters.wake()
        anyio.run(event.wait, backend=backend)
        assert event.is_set()


async def _wait_in_vain(event: StateEvent) -> None:
    assert not event.is_set()
    with anyio.move_on_after(0) as scope:
        await event.wait()
    assert scope.cancelled_caught


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_is_raised_when_the_wait_is_over() -> None:
    """`task.cancel()` goes through every shield, and must not cut it short."""
    waiters, here = Waiters(), False
    task = asyncio.ensure_future(waiters.wait_through(lambda: here))
    for _ in range(2):
        await anyio.wait_all_tasks_blocked()
        task.cancel()
    await anyio.wait_all_tasks_blocked()
    assert not task.done()
    here = True
    waiters.wake()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.anyio
async def test_a_cancelled_scope_does_not_cut_the_wait_short() -> None:
    """It is noticed afterwards, as any cancellation is after a shield."""
    waiters, here = Waiters(), False
    async with anyio.create_task_group() as group:
        group.start_soon(waiters.wait_through, lambda: here)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
            assert len(waiters) == 1
            here = True
            waiters.wake()


class Work:
    """Waits until it may go on.

    Attributes:
        done: Whether it came to its end.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = anyio.Event()
        self.go = anyio.Event()
        self.done = False
        self._error = error

    async def __call__(self) -> None:
        self.begun.set()
        await self.go.wait()
        self.done = True
        if self._error is not None:
            raise self._error


@pytest.mark.anyio
async def test_a_cancelled_scope_waits() -> None:
    """A scope further out is left when the work is done."""
    work = Work()
    async with anyio.create_task_group() as group:
        group.start_soon(to_its_end, work)
        await work.begun.wait()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
            assert not work.done
            work.go.set()
    assert work.done


@pytest.mark.anyio
async def test_what_it_raises_is_raised() -> None:
    """Its error is its caller's."""
    work = Work(OSError("refused"))
    work.go.set()
    with pytest.raises(OSError, match="refused"):
        await to_its_end(work)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_a_cancelled_task_waits(anyio_backend: Any) -> None:
    """``task.cancel()``, however often, is raised when the work is done."""
    work = Work()
    task = asyncio.ensure_future(to_its_end(work))
    await work.begun.wait()
    for _ in range(2):
        task.cancel()
        await anyio.wait_all_tasks_blocked()
    assert not task.done()
    work.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.done
