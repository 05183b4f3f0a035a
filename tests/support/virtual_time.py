"""Time that a test is the master of, where time itself is the subject.

Virtual time passes at once while everybody waits. It is for tests without threads: what
a thread does takes real time, and every deadline would be over before. Such tests have
time pass by hand, with `pass_time`.
"""

from __future__ import annotations

import asyncio

import looptime
import pytest
from trio.lowlevel import current_clock
from trio.testing import MockClock

from asgi_lifespan_guard._tasks.backend import on_trio


VIRTUAL_ASYNCIO = ("asyncio", {"loop_factory": looptime.new_event_loop})
VIRTUAL_TRIO = ("trio", {"clock": MockClock(autojump_threshold=0)})

VIRTUAL_TIME = [
    pytest.param(VIRTUAL_ASYNCIO, id="asyncio"),
    pytest.param(VIRTUAL_TRIO, id="trio"),
]
"""Event loops that need no time to sleep: not uvloop."""

on_virtual_time = pytest.mark.parametrize("anyio_backend", VIRTUAL_TIME)
"""Have an async test run on event loops that need no time to sleep."""

on_virtual_asyncio = pytest.mark.parametrize("anyio_backend", VIRTUAL_TIME[:1])
"""The same, for what there is on asyncio only."""


class _Loop(asyncio.SelectorEventLoop):
    """Time as it is, and what was added to it."""

    added = 0.0

    def time(self) -> float:
        return super().time() + self.added


on_time_by_hand = pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(("asyncio", {"loop_factory": _Loop}), id="asyncio"),
        pytest.param(("trio", {"clock": MockClock(rate=1)}), id="trio"),
    ],
)
"""Have an async test run on event loops whose time `pass_time` can move on."""


def pass_time(seconds: float) -> None:
    """Have *seconds* more have passed, in a test on time by hand."""
    if on_trio():
        clock = current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(seconds)
    else:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _Loop)
        loop.added += seconds
