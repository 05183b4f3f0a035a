"""What the log remembers of each resource, so that it can be brief.

No errors and no events are kept, and of each resource only so much: what goes on for a
week takes no more room than what is over in a second.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from functools import partial
from typing import NamedTuple

from .._phases import Phase, ResourcePhase
from ..events import (
    AttemptFailed,
    CheckFailed,
    Event,
    PhaseChanged,
    ResourceClosed,
    ResourceDown,
    ResourcePhaseChanged,
    ResourceReopening,
)


MINUTE = 60.0
"""Seconds between two lines of what goes on and on; and seconds without a failure
after which a resource is well, and the next failure is news again."""

MOST_KINDS = 16
"""Kinds of failures of one resource that are told apart."""


class Outage(NamedTuple):
    """What is over when a resource is up.

    Attributes:
        told: Whether it was announced.
        again: Whether the resource had been up before.
        attempts: How many it took to open it, the last one included.
        seconds: How long it was away.
    """

    told: bool
    again: bool
    attempts: int
    seconds: float


class Outages:
    """Hears every event, and says which of them are news.

    Args:
        clock: Seconds, on any clock that only goes forward.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._histories = defaultdict[str, History](partial(History, clock))

    def hear(self, event: Event) -> bool:
        """Take note of *event*; return whether it is news."""
        match event:
            case PhaseChanged(new=Phase.STARTING):
                self._histories.clear()
            case ResourcePhaseChanged(resource=name, new=ResourcePhase.OPENING):
                self._histories[name].begin()
            case AttemptFailed(resource=name):
                return self._histories[name].fail_to_open()
            case CheckFailed(resource=name) | ResourceReopening(resource=name):
                return self._histories[name].count(type(event))
            case ResourceDown(resource=name):
                self._histories[name].go_down()
            case ResourceClosed(resource=name):
                return not self._histories[name].is_told
            case _:
                pass
        return True

    def end(self, resource: str) -> Outage:
        """Take note that *resource* is up; return what is over."""
        return self._histories[resource].come_up()

    def is_new(self, resource: str, kind: Hashable) -> bool:
        """Whether *resource* fails in this way for the first time."""
        return self._histories[resource].is_new(kind)


class History:
    """One resource.

    Attributes:
        is_told: Whether it was announced that it is away.
    """

    __slots__ = (
        "_away_since",
        "_clock",
        "_failed",
        "_kinds",
        "_last",
        "_tallies",
        "_was_up",
        "is_told",
    )

    def __init__(self, clock: Callable[[], float]) -> None:
        self.is_told = False
        self._clock = clock
        self._away_since: float | None = None
        self._failed = 0
        self._was_up = False
        self._last = 0.0
        self._tallies: dict[type[Event], Tally] = {}
        self._kinds: set[Hashable] = set()

    def begin(self) -> None:
        """Be opened: it is away, since now or earlier."""
        if self._away_since is None:
            self._away_since = self._clock()

    def fail_to_open(self) -> bool:
        """Count an attempt that failed; return whether it is to be told."""
        self._failed += 1
        due = self.count(AttemptFailed)
        self.is_told = self.is_told or due
        return due

    def count(self, what: type[Event]) -> bool:
        """Count one more of *what*; return whether it is to be told."""
        now = self._trouble()
        return self._tallies.setdefault(what, Tally(now)).is_due(now)

    def go_down(self) -> None:
        """Be away, which is announced."""
        now = self._trouble()
        self._away_since = now if self._away_since is None else self._away_since
        self.is_told = True

    def come_up(self) -> Outage:
        """Be up; return what is over."""
        self._last = now = self._clock()
        since = now if self._away_since is None else self._away_since
        outage = Outage(self.is_told, self._was_up, self._failed + 1, now - since)
        self._away_since, self._failed = None, 0
        self._was_up, self.is_told = True, False
        return outage

    def is_new(self, kind: Hashable) -> bool:
        """Whether it fails in this way for the first time, as far as is remembered."""
        if kind in self._kinds or len(self._kinds) >= MOST_KINDS:
            return False
        self._kinds.add(kind)
        self.is_told = self.is_told or self._away_since is not None
        return True

    def _trouble(self) -> float:
        """Forget what was long ago, if it was well since; return the time."""
        now = self._clock()
        if self._away_since is None and now - self._last >= MINUTE:
            self._tallies.clear()
            self._kinds.clear()
        self._last = now
        return now


class Tally:
    """How often something has happened: the 1st, 2nd, 4th, 8th ... are news.

    And after a minute of it, one in a minute.
    """

    __slots__ = ("_began", "_count", "_told")

    def __init__(self, now: float) -> None:
        self._began = self._told = now
        self._count = 0

    def is_due(self, now: float) -> bool:
        """Count one; return whether it is to be told."""
        self._count += 1
        doubled = self._count & (self._count - 1) == 0
        due = (doubled and now - self._began < MINUTE) or now - self._told >= MINUTE
        if due:
            self._told = now
        return due
