"""Time that passes at once while everybody waits, where time itself is the subject."""

from __future__ import annotations

import looptime
import pytest
from trio.testing import MockClock


on_virtual_time = pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(
            ("asyncio", {"loop_factory": looptime.new_event_loop}), id="asyncio"
        ),
        pytest.param(("trio", {"clock": MockClock(autojump_threshold=0)}), id="trio"),
    ],
)
"""Have an async test run on event loops that need no time to sleep: not uvloop."""
