"""What is known about each resource and about all of them together.

A `Report` is a snapshot: plain data, taken at one moment, the same for
`/readyz?verbose`, for logs and for tests.
"""

from __future__ import annotations

from collections.abc import Collection

from ._frozen import Frozen
from ._phases import Phase, ResourcePhase


SATISFIED = frozenset({ResourcePhase.UP, ResourcePhase.SKIPPED})
OPEN = frozenset({ResourcePhase.UP, ResourcePhase.FAILING, ResourcePhase.SKIPPED})


class ResourceReport(Frozen, kw_only=True):
    """One resource at one moment.

    Attributes:
        name: The resource's name.
        phase: Where it stands.
        required: Whether readiness asks for it.
        startup: ``"blocking"`` or ``"background"``.
        attempts: Attempts to open it since the guard started, counted from 1.
        last_error: The last failure as one redacted line, or ``None``.
        next_attempt_in: Seconds from now to the next attempt, while it waits for one.
        since: When it came into this phase, in seconds since the epoch; 0.0: it has
            been in no other yet, because the guard was never started.
        opened_in: Seconds that the last successful attempt took.
        was_up: Whether it has been up (or skipped) since the guard started.
        fatal: Whether it has given up and is to take the process with it.
    """

    name: str
    phase: ResourcePhase
    required: bool
    startup: str
    attempts: int = 0
    last_error: str | None = None
    next_attempt_in: float | None = None
    since: float = 0.0
    opened_in: float | None = None
    was_up: bool = False
    fatal: bool = False

    @property
    def satisfied(self) -> bool:
        """Whether it is up, or off on purpose."""
        return self.phase in SATISFIED


class Report(Frozen, kw_only=True):
    """Every resource and the guard at one moment.

    Attributes:
        phase: The guard's phase.
        paused: Why readiness is withheld by hand, or ``None``.
        resources: One report each, in the order of registration.
        last_error: The guard's own last failure (such as a startup that failed).
    """

    phase: Phase
    paused: str | None = None
    resources: tuple[ResourceReport, ...] = ()
    last_error: str | None = None

    @property
    def live(self) -> bool:
        """Whether the process should go on: no resource that is fatal gave up."""
        return not any(resource.fatal for resource in self.resources)

    @property
    def ready(self) -> bool:
        """Whether traffic should come: serving, not paused, every required one up."""
        return self.ready_without(())

    @property
    def started(self) -> bool:
        """Whether every required resource has been up since the guard started."""
        return self.started_without(())

    def ready_without(self, excluded: Collection[str]) -> bool:
        """Whether it would be ready if the *excluded* names were not required."""
        serving = self.phase is Phase.SERVING and self.paused is None
        return serving and all(
            r.satisfied for r in self.resources if _counts(r, excluded)
        )

    def started_without(self, excluded: Collection[str]) -> bool:
        """Whether it would count as started without the *excluded* names."""
        begun = self.phase not in (Phase.IDLE, Phase.STARTING, Phase.FAILED)
        return begun and all(r.was_up for r in self.resources if _counts(r, excluded))

    def resource(self, name: str) -> ResourceReport | None:
        """Return the report of the resource called *name*, if there is one."""
        return next((r for r in self.resources if r.name == name), None)


def _counts(resource: ResourceReport, excluded: Collection[str]) -> bool:
    return resource.required and resource.name not in excluded
