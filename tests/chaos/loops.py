"""Event loops in virtual time: it jumps to the next timer when nothing else is on.

Where nothing is on and there is no timer either, no time could ever pass again; that is
`StuckError` instead of a test that hangs.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import looptime
import trio
import trio.testing
from trio._core import _run as _scheduler


scheduler: Any = _scheduler
scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # as hypothesis has it

REAL_PATIENCE = 0.05
"""Real seconds that the clock stands still for a thread that may be about to speak."""

RESTLESS = 20_000
"""Turns of the loop without time in between that are no accident."""


class StuckError(BaseException):
    """Raised where a run cannot go on any more."""


class Turns:
    """Counts how often a loop turns, and ends a run that does not get anywhere.

    Attributes:
        broken: Whether the loop is to end at its next turn, whatever is on.
    """

    def __init__(self) -> None:
        self.broken = False
        self._time = -1.0
        self._count = 0

    def turn(self, now: float) -> None:
        """Count a turn.

        Raises:
            StuckError: When there were too many of them while time stood still.
        """
        self._count = self._count + 1 if now == self._time else 0
        self._time = now
        self.broken = self.broken or self._count > RESTLESS
        if self.broken:
            raise StuckError("the event loop turns, and nothing gets anywhere")


def _virtual_loop(turns: Turns, speaks: Callable[[], bool]) -> Any:
    """Return a loop of asyncio on a clock of its own."""
    loop: Any = looptime.new_event_loop(noop_cycles=0)
    selector = loop._selector
    jump, wait = selector.select, type(selector).select

    def select(timeout: float | None = None) -> Any:
        turns.turn(loop.time())
        if timeout != 0 and speaks() and (ready := wait(selector, REAL_PATIENCE)):
            return ready
        if timeout is None:
            raise StuckError("nothing is on, and there is no timer")
        return jump(timeout)

    selector.select = select
    return loop


def _virtual_clock(turns: Turns) -> Any:
    """Return trio's mock clock, which counts the turns, too."""
    virtual: Any = trio.testing.MockClock(autojump_threshold=0)
    sleep_time = virtual.deadline_to_sleep_time

    def deadline_to_sleep_time(deadline: float) -> Any:
        turns.turn(virtual.current_time())
        return sleep_time(deadline)

    virtual.deadline_to_sleep_time = deadline_to_sleep_time
    return virtual


def run(
    main: Callable[[], Awaitable[None]],
    backend: str,
    luck: int,
    turns: Turns,
    speaks: Callable[[], bool],
) -> None:
    """Run *main* to its end, in virtual time.

    Args:
        main: What to run.
        backend: ``"asyncio"`` or ``"trio"``.
        luck: The same one makes the same run, but for threads.
        turns: Counts, and may end the run.
        speaks: Whether a thread may be about to say something.
    """
    random.seed(luck)
    scheduler._r.seed(luck)
    if backend == "trio":  # Not by anyio.run: before 4.12 it forgets the clock.
        trio.run(main, clock=_virtual_clock(turns))
        return
    options: dict[str, Any] = {"loop_factory": partial(_virtual_loop, turns, speaks)}
    anyio.run(main, backend=backend, backend_options=options)


def clock(backend: str) -> Callable[[], float]:
    """Return the clock of the loop that is running; it may be read by any thread."""
    if backend == "trio":
        return trio.current_time
    return asyncio.get_running_loop().time


def after_a_turn(backend: str, call: Callable[[], object]) -> None:
    """Have *call* done when the loop has turned; from within the loop."""
    if backend == "trio":

        async def later() -> None:
            call()

        trio.lowlevel.spawn_system_task(later)
    else:
        asyncio.get_running_loop().call_soon(call)
