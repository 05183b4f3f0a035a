"""A second lifespan beside the first, as of an app that is mounted in itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from signal import SIG_DFL, SIGURG

import anyio
import pytest

from asgi_lifespan_guard import Drain, IllegalTransitionError, LifespanGuard, Phase
from tests.recorder import Recorder
from tests.support.memory_server import LifespanError, MemoryServer
from tests.support.resources import Tap, hello


pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _default_handler() -> Iterator[None]:
    """Have nobody handle a signal whose default is to do nothing."""
    before = signal.signal(SIGURG, SIG_DFL)
    yield
    signal.signal(SIGURG, before)


async def test_the_first_still_ends_by_itself(recorder: Recorder) -> None:
    """The second is refused; a signal that nobody handles ends the first as ever."""
    drain = Drain(signals=[SIGURG])
    guard = LifespanGuard(hello, [Tap(recorder).recipe], drain=drain)
    first = MemoryServer(guard).lifespan
    async with anyio.create_task_group() as group:
        group.start_soon(first.run)
        first.feed({"type": "lifespan.startup"})
        await guard.wait_ready(30)
        with pytest.raises(LifespanError, match="cannot happen in phase"):
            async with MemoryServer(guard):
                pytest.fail("it started")
        assert recorder.marks == ["open db"]
        first.phase = "stopping"
        signal.raise_signal(SIGURG)
    assert recorder.marks == ["open db", "close db"]
    assert guard.phase is Phase.STOPPED


async def test_one_that_was_opened_before_the_first_began(recorder: Recorder) -> None:
    """It is refused when it begins, and the guard goes on with the first."""
    guard = LifespanGuard(hello, [Tap(recorder).recipe], drain=None)
    first, second = MemoryServer(guard).lifespan, MemoryServer(guard).lifespan
    refused: list[Exception] = []

    async def run_second() -> None:
        try:
            await second.run()
        except Exception as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(first.run)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(run_second)
        await anyio.wait_all_tasks_blocked()
        first.feed({"type": "lifespan.startup"})
        await guard.wait_ready(30)
        second.feed({"type": "lifespan.startup"})
        await anyio.wait_all_tasks_blocked()
        assert isinstance(refused[0], IllegalTransitionError)
        assert guard.ready
        first.phase = "stopping"
        first.feed({"type": "lifespan.shutdown"})
    assert recorder.marks == ["open db", "close db"]
