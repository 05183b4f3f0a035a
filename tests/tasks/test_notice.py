"""The notice: a flag that tasks of many event loops can wait for."""

from __future__ import annotations

import anyio
import pytest

from asgi_lifespan_guard._tasks.notice import Notice


@pytest.mark.anyio
async def test_it_wakes_everybody() -> None:
    """All who wait go on when it is given, and who comes later does not wait."""
    notice = Notice()
    assert not notice.is_set()
    async with anyio.create_task_group() as group:
        group.start_soon(notice.wait)
        group.start_soon(notice.wait)
        await anyio.wait_all_tasks_blocked()
        notice.set()
    assert notice.is_set()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await notice.wait()
        return
    pytest.fail("it waited")


@pytest.mark.anyio
async def test_it_can_be_taken_back() -> None:
    """Who waits then waits for the next time; who has stopped waiting is forgotten."""
    notice = Notice()
    notice.set()
    notice.clear()
    with anyio.move_on_after(0) as scope:
        await notice.wait()
    assert scope.cancelled_caught
    notice.set()


def test_it_survives_its_event_loop() -> None:
    """It is made before any, given between two, and seen in the next."""
    notice = Notice()
    for _ in range(2):
        anyio.run(anyio.sleep, 0)
        notice.set()
        anyio.run(notice.wait, backend="trio")
        notice.clear()
