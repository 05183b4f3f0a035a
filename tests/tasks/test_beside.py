"""Waiting at the least cost: an alarm, and work beside a block."""

from __future__ import annotations

import anyio
import pytest

from asgi_lifespan_guard._tasks.backend import now
from asgi_lifespan_guard._tasks.beside import Alarm, Beside
from tests.recorder import Recorder


pytestmark = pytest.mark.anyio

HOUR = 3600.0
MOMENT = 0.001


async def test_an_alarm_rings_when_it_is_told_to() -> None:
    """Before somebody waits or while he does, and once more does no harm."""
    later = Alarm(now() + HOUR)
    async with anyio.create_task_group() as group:
        group.start_soon(_wait, later)
        await anyio.wait_all_tasks_blocked()
        later.ring()
        later.ring()
    later.stop()
    before = Alarm(now() + HOUR)
    before.ring()
    await before.wait()
    before.stop()


async def _wait(alarm: Alarm) -> None:
    await alarm.wait()


async def test_an_alarm_rings_at_its_deadline() -> None:
    """Also where that is past already."""
    for deadline in (now() + MOMENT, now() - HOUR):
        alarm = Alarm(deadline)
        await alarm.wait()
        alarm.stop()


async def test_work_beside_a_block_ends_with_it(recorder: Recorder) -> None:
    """It is cancelled, and has cleaned up when the block has been left."""

    async def work() -> None:
        recorder.mark("begun")
        try:
            await anyio.sleep_forever()
        finally:
            recorder.mark("ended")

    async with Beside(work):
        await recorder.wait_for_mark("begun")
    assert recorder.marks == ["begun", "ended"]


async def test_work_that_is_done_is_not_waited_for(recorder: Recorder) -> None:
    """What is raised in the block is raised as it is."""

    async def work() -> None:
        recorder.mark("done")

    async def block() -> None:
        async with Beside(work):
            await recorder.wait_for_mark("done")
            await anyio.wait_all_tasks_blocked()
            raise error

    error = ValueError("boom")
    with pytest.raises(ValueError, match="boom") as caught:
        await block()
    assert caught.value is error
    assert error.__context__ is None
