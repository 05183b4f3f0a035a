"""How a thousand workers come back when their database does, in virtual time.

Each worker asks the real policy (`Series`, hence tenacity and `equal_jitter`) how long
to wait after each failure; an attempt takes no time. All of them lose the database at
the same moment, which is the worst case. It is away for 60 to 90 seconds.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import mean, quantiles
from typing import TYPE_CHECKING

from asgi_lifespan_guard import Retry
from asgi_lifespan_guard._resources.retry import CAP, FIRST, Series, equal_jitter

from .measure import Row


if TYPE_CHECKING:
    from tenacity import RetryCallState

WORKERS = 1000
STEADY = 30.0
"""Seconds after which every worker waits for the longest time that it ever does."""

RATE = 100.0
"""Connections per second that the slow database admits ..."""

BURST = 10.0
"""... and how many at once, when none came for a while."""


def full_jitter(state: RetryCallState) -> float:
    """Wait ``uniform(0, c)``."""
    return random.uniform(0, _ceiling(state))


def no_jitter(state: RetryCallState) -> float:
    """Wait ``c``."""
    return _ceiling(state)


def _ceiling(state: RetryCallState) -> float:
    return min(CAP, FIRST * 2.0 ** min(state.attempt_number - 1, 5))


@dataclass(frozen=True, slots=True)
class Outage:
    """One simulated outage.

    Attributes:
        duration: Seconds that the database was away.
        attempts: When each attempt was made, in seconds from its loss.
        recoveries: Seconds from its return until each worker was up.
    """

    duration: float
    attempts: Sequence[float]
    recoveries: Sequence[float]

    @property
    def last(self) -> float:
        """Seconds until the last worker was up."""
        return max(self.recoveries)

    @property
    def load(self) -> float:
        """Attempts per second while it was away, once the workers had settled."""
        steady = [at for at in self.attempts if STEADY <= at < self.duration]
        return len(steady) / (self.duration - STEADY)

    @property
    def peak(self) -> float:
        """The same in the worst tenth of a second, and the return included."""
        tenths = Counter(int(at * 10) for at in self.attempts if at >= STEADY)
        return 10.0 * max(tenths.values())


class Bucket:
    """A database that admits so many connections per second."""

    def __init__(self) -> None:
        self._tokens = BURST
        self._at = 0.0

    def admits(self, now: float) -> bool:
        """Admit one connection, or refuse it."""
        self._tokens = min(BURST, self._tokens + (now - self._at) * RATE)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def simulate(
    policy: Retry, duration: float, admits: Callable[[float], bool], workers: int
) -> Outage:
    """Play one outage through, until every worker is up again."""
    error = ConnectionRefusedError("away")
    series = [Series(policy) for _ in range(workers)]
    due = [(0.0, worker) for worker in range(workers)]
    attempts: list[float] = []
    recoveries: list[float] = []
    while due:
        now, worker = heapq.heappop(due)
        attempts.append(now)
        if now >= duration and admits(now):
            recoveries.append(now - duration)
            continue
        wait = series[worker].next_wait(error)
        assert wait is not None
        heapq.heappush(due, (now + wait, worker))
    return Outage(duration, attempts, recoveries)


def run(quick: bool) -> list[Row]:
    """Simulate the default policy, and two others for comparison."""
    workers, outages = (50, 1) if quick else (WORKERS, 4)
    state = random.getstate()
    random.seed(1)
    try:
        ours = _rows("equal jitter", Retry(wait=equal_jitter), workers, outages)
        full = _rows("full jitter", Retry(wait=full_jitter), workers, outages)
        none = _rows("no jitter", Retry(wait=no_jitter), workers, outages)
    finally:
        random.setstate(state)
    others = (replace(row, bound=None) for row in (*full, *none))
    return [*ours, *others]


def _rows(name: str, policy: Retry, workers: int, outages: int) -> list[Row]:
    durations = [random.uniform(60.0, 90.0) for _ in range(outages)]
    free = [simulate(policy, d, lambda _now: True, workers) for d in durations]
    slow = [simulate(policy, d, Bucket().admits, workers) for d in durations]
    recoveries = list(chain.from_iterable(outage.recoveries for outage in free))
    centiles = quantiles(recoveries, n=100)
    peak = f"worst tenth of a second: {max(outage.peak for outage in free):,.0f}/s"
    ideal = workers / RATE
    lasts = mean(outage.last for outage in slow) / ideal
    return [
        Row(f"{name}: time to recovery, p50", centiles[49], "s", 2.0),
        Row(f"{name}: time to recovery, p99", centiles[98], "s", 5.0),
        Row(f"{name}: attempts/s", mean(o.load for o in free), "/s", 270.0, peak),
        Row(f"{name}: last of a herd at {RATE:.0f}/s / ideal", lasts, "×", 1.35),
    ]
