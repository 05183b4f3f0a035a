"""What is known about one resource in one run of the guard."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .._phases import RESOURCE_TRANSITIONS, Lifecycle, ResourcePhase, ResourceTrigger
from .._redaction import describe
from .._report import OPEN, SATISFIED, ResourceReport
from ..events import ResourcePhaseChanged
from .resource import Resource


class Record:
    """Where a resource stands and how it came there; written by its owner.

    Attributes:
        attempts: How many attempts were made to open it.
        error: The last failure; forgotten when it comes up.
        opened_in: Seconds that the last successful attempt took.
        next_attempt_at: When the next attempt is due, on `time.monotonic`, which
            needs no event loop to be read.
        was_up: Whether it has been up, or skipped.
    """

    def __init__(
        self, recipe: Resource[Any], observe: Callable[[ResourcePhaseChanged], None]
    ) -> None:
        self.attempts = 0
        self.error: BaseException | None = None
        self.opened_in: float | None = None
        self.next_attempt_at: float | None = None
        self.was_up = False
        self._recipe = recipe
        self._observe = observe
        self._since = time.time()
        self._life = Lifecycle(
            recipe.name, RESOURCE_TRANSITIONS, ResourcePhase.PENDING, self._changed
        )

    @property
    def phase(self) -> ResourcePhase:
        """Where it stands."""
        return self._life.phase

    @property
    def is_open(self) -> bool:
        """Whether its value can be used: up, failing its checks, or off."""
        return self.phase in OPEN

    @property
    def is_satisfied(self) -> bool:
        """Whether what needs it may open."""
        return self.phase in SATISFIED

    @property
    def is_lost(self) -> bool:
        """Whether it will not come up any more."""
        return self.phase in (ResourcePhase.FAILED, ResourcePhase.CLOSED)

    def handle(self, trigger: ResourceTrigger) -> None:
        """Take the step that *trigger* asks for.

        Raises:
            IllegalTransitionError: When the table has no such step.
        """
        self._life.handle(trigger)

    def end(self) -> None:
        """Close it, if it has not come to another end already."""
        if ResourceTrigger.CLOSED in RESOURCE_TRANSITIONS[self.phase]:
            self.handle(ResourceTrigger.CLOSED)

    def report(self, now: float) -> ResourceReport:
        """Return a photograph, at *now* on the clock of `time.monotonic`."""
        due = self.next_attempt_at
        return ResourceReport(
            name=self._recipe.name,
            phase=self.phase,
            required=self._recipe.required,
            startup=self._recipe.startup,
            attempts=self.attempts,
            last_error=None if self.error is None else describe(self.error),
            next_attempt_in=None if due is None else max(0.0, due - now),
            since=self._since,
            opened_in=self.opened_in,
            was_up=self.was_up,
            fatal=self._is_fatal(),
        )

    def _is_fatal(self) -> bool:
        exits = self._recipe.on_give_up == "exit"
        return exits and self.phase is ResourcePhase.FAILED

    def _changed(self, old: ResourcePhase, new: ResourcePhase) -> None:
        self._since = time.time()
        self._observe(ResourcePhaseChanged(self._recipe.name, old, new))
