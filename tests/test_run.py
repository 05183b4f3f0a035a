"""The guard's life when the server's messages and a stop of its own meet."""

from __future__ import annotations

import signal
from signal import SIG_DFL, SIGURG

import anyio
import pytest

from asgi_lifespan_guard import Drain, LifespanGuard, Phase
from asgi_lifespan_guard.events import DrainBegun
from tests.recorder import Recorder
from tests.support.memory_server import MemoryServer
from tests.support.resources import Tap, hello


pytestmark = pytest.mark.anyio

OVER = "lifespan.shutdown.complete"


async def test_it_leaves_while_the_server_waits(recorder: Recorder) -> None:
    """The server is told what it will ask for, and may ask nevertheless."""
    guard = LifespanGuard(
        hello,
        [Tap(recorder).recipe],
        drain=Drain(signals=[SIGURG]),
        observers=[recorder],
    )
    lifespan = MemoryServer(guard).lifespan
    async with anyio.create_task_group() as group:
        group.start_soon(lifespan.run)
        lifespan.feed({"type": "lifespan.startup"})
        await guard.wait_ready(10)
        lifespan.phase = "stopping"
        signal.raise_signal(SIGURG)
    assert lifespan.sent[-1]["type"] == OVER
    assert recorder.marks == ["open db", "close db"]
    assert guard.phase is Phase.STOPPED
    assert signal.getsignal(SIGURG) is SIG_DFL


async def test_it_leaves_when_the_startup_is_barely_over(recorder: Recorder) -> None:
    """A signal before the server waits for its shutdown is not forgotten."""
    guard = LifespanGuard(hello, drain=Drain(signals=[SIGURG]), observers=[recorder])
    lifespan = MemoryServer(guard).lifespan
    send = lifespan.send

    async def send_slowly(message: object) -> None:
        await send(message)  # type: ignore[arg-type]
        if lifespan.phase == "serving":
            lifespan.phase = "stopping"
            signal.raise_signal(SIGURG)
            await recorder.wait_for(DrainBegun)
            await anyio.wait_all_tasks_blocked()

    lifespan.send = send_slowly  # type: ignore[method-assign]
    with anyio.fail_after(10):
        lifespan.feed({"type": "lifespan.startup"})
        await lifespan.run()
    assert guard.phase is Phase.STOPPED


async def test_a_signal_while_it_closes_changes_nothing(recorder: Recorder) -> None:
    """Everything is closed, and then the signal has its way."""
    tap = Slow(recorder)
    guard = LifespanGuard(
        hello, [tap.recipe], drain=Drain(signals=[SIGURG]), observers=[recorder]
    )
    async with MemoryServer(guard):
        await guard.wait_ready(10)
    assert recorder.marks == ["open db", "close db", "closed"]
    assert signal.getsignal(SIGURG) is SIG_DFL


class Slow(Tap):
    """Is interrupted by a signal while it closes."""

    async def close(self) -> None:
        signal.raise_signal(SIGURG)
        await anyio.sleep(0.02)
        self._recorder.mark("closed")
