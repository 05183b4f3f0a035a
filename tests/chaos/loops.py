"""Event loops whose time stands still until a test moves it.

Hypothesis drives its machines from a thread of its own, and the main thread runs one
event loop for each of them, because signal handlers live in the main thread. Between
two steps the loop has come to rest, so a run depends on nothing but its steps.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import anyio
import trio
import trio.testing
from anyio.from_thread import BlockingPortal


RESTLESS = 10_000
"""Rounds after which a loop that does not come to rest is a bug."""


class Loop(ABC):
    """One event loop, from its own inside."""

    @abstractmethod
    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run *main* on it."""

    @abstractmethod
    async def settle(self) -> None:
        """Return when nothing can go on but by time, or by a step."""

    @abstractmethod
    def next_deadline(self) -> float:
        """Return the seconds until the next timer; inf: there is none."""

    @abstractmethod
    def jump(self, seconds: float) -> None:
        """Move the clock."""

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass, and everything happen that is due meanwhile."""
        end = anyio.current_time() + seconds
        await self.settle()
        while (due := self.next_deadline()) <= end - anyio.current_time():
            self.jump(max(due, 0.0))
            await self.settle()
        self.jump(end - anyio.current_time())
        await self.settle()


class FrozenLoop(asyncio.SelectorEventLoop):
    """asyncio's loop on a clock that stands still."""

    now = 0.0

    def time(self) -> float:
        return self.now


class AsyncioLoop(Loop):
    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        anyio.run(main, backend_options={"loop_factory": FrozenLoop})

    async def settle(self) -> None:
        quiet = 0
        for _ in range(RESTLESS):
            await asyncio.sleep(0)
            quiet = 0 if self._loop()._ready else quiet + 1
            if quiet == 3:
                return
        raise AssertionError("the loop does not come to rest")

    def next_deadline(self) -> float:
        loop = self._loop()
        due = (
            float(timer.when()) for timer in loop._scheduled if not timer.cancelled()
        )
        return min(due, default=float("inf")) - float(loop.now)

    def jump(self, seconds: float) -> None:
        self._loop().now += seconds

    def _loop(self) -> Any:
        return asyncio.get_running_loop()


class TrioLoop(Loop):
    def __init__(self) -> None:
        self._clock = trio.testing.MockClock()

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        trio.run(main, clock=self._clock)  # the oldest anyio keeps the clock to itself

    async def settle(self) -> None:
        await trio.testing.wait_all_tasks_blocked()

    def next_deadline(self) -> float:
        statistics = trio.lowlevel.current_statistics()
        return float(statistics.seconds_to_next_deadline)

    def jump(self, seconds: float) -> None:
        self._clock.jump(seconds)


LOOPS: dict[str, Callable[[], Loop]] = {"asyncio": AsyncioLoop, "trio": TrioLoop}


class MainThread:
    """Runs loops for a thread that has none."""

    def __init__(self) -> None:
        self._wanted: SimpleQueue[tuple[Loop, Future[BlockingPortal]] | None]
        self._wanted = SimpleQueue()
        self._idle = threading.Event()

    def run(self, work: Callable[[], None]) -> None:
        """Do *work* in another thread, and run the loops that it asks for."""
        outcome: Future[None] = Future()

        def do() -> None:
            try:
                work()
                outcome.set_result(None)
            except BaseException as error:
                outcome.set_exception(error)
            self._wanted.put(None)

        threading.Thread(target=do, daemon=True).start()
        while (wanted := self._wanted.get()) is not None:
            self._idle.clear()
            _run(*wanted)
            self._idle.set()
        outcome.result()

    def portal(self, loop: Loop) -> BlockingPortal:
        """Run *loop*, and return the way into it, which is to be stopped."""
        ready: Future[BlockingPortal] = Future()
        self._wanted.put((loop, ready))
        return ready.result()

    def wait_idle(self) -> None:
        """Return once the loop that was stopped is gone."""
        self._idle.wait()


def _run(loop: Loop, ready: Future[BlockingPortal]) -> None:
    async def main() -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    loop.run(main)
