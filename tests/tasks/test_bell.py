"""The bell: one task waits for a condition, others ring."""

from __future__ import annotations

import anyio
import pytest

from asgi_lifespan_guard._tasks.bell import Bell


pytestmark = pytest.mark.anyio


async def test_a_condition_that_holds_is_not_waited_for() -> None:
    """Not even for a switch: a cancelled scope does not notice."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Bell().wait_until(lambda: True)
        return
    pytest.fail("it was cancelled")


async def test_every_ring_asks_again() -> None:
    """The wait goes on until the condition holds; a ring too many is harmless."""
    bell, ready = Bell(), False
    asked = 0

    def condition() -> bool:
        nonlocal asked
        asked += 1
        return ready

    bell.ring()
    async with anyio.create_task_group() as group:
        group.start_soon(bell.wait_until, condition)
        await anyio.wait_all_tasks_blocked()
        bell.ring()
        await anyio.wait_all_tasks_blocked()
        assert asked == 2
        ready = True
        bell.ring()
        bell.ring()
    assert asked == 3


async def test_a_cancelled_wait_leaves_the_bell_usable() -> None:
    """A ring after it reaches nobody, and the next wait works."""
    bell = Bell()
    with anyio.move_on_after(0):
        await bell.wait_until(lambda: False)
    bell.ring()
    async with anyio.create_task_group() as group:
        rung: list[bool] = []
        group.start_soon(bell.wait_until, lambda: bool(rung))
        await anyio.wait_all_tasks_blocked()
        rung.append(True)
        bell.ring()
