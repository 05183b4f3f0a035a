"""The two state machines: what the guard and each resource may do next.

Two rules:

1. Whether something may happen is decided here and nowhere else.
2. This module knows neither ASGI nor tasks; it is looked up, never awaited.

Every phase is a key; one that maps to nothing is an end. An illegal trigger is
an `IllegalTransitionError` and changes nothing. The diagrams in `docs/phases.md`
are drawn from these tables (`make diagrams`), and a test walks their whole
product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Generic, TypeVar

from ._errors import IllegalTransitionError


class Phase(Enum):
    """Where a guard stands in its life."""

    IDLE = "idle"
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class Trigger(Enum):
    """What moves a guard from one phase to the next."""

    START = "start"
    STARTED = "started"
    FAIL = "fail"
    DRAIN = "drain"
    STOP = "stop"
    CLOSED = "closed"


class ResourcePhase(Enum):
    """Where a resource stands in its life."""

    __hash__ = object.__hash__  # Enum's is written in Python, and asked at each step.

    PENDING = "pending"
    OPENING = "opening"
    WAITING = "waiting"
    UP = "up"
    FAILING = "failing"
    CLOSING = "closing"
    CLOSED = "closed"
    SKIPPED = "skipped"
    FAILED = "failed"


class ResourceTrigger(Enum):
    """What moves a resource from one phase to the next."""

    __hash__ = object.__hash__

    SKIP = "skip"
    OPEN = "open"
    OPENED = "opened"
    RETRY = "retry"
    CHECK_FAILED = "check failed"
    RECOVERED = "recovered"
    CLOSE = "close"
    CLOSED = "closed"
    REQUEUE = "requeue"
    GIVE_UP = "give up"


TRANSITIONS: Mapping[Phase, Mapping[Trigger, Phase]] = {
    Phase.IDLE: {Trigger.START: Phase.STARTING},
    Phase.STARTING: {
        Trigger.STARTED: Phase.SERVING,
        Trigger.FAIL: Phase.FAILED,
    },
    Phase.SERVING: {
        Trigger.DRAIN: Phase.DRAINING,
        Trigger.STOP: Phase.STOPPING,
    },
    Phase.DRAINING: {Trigger.STOP: Phase.STOPPING},
    Phase.STOPPING: {Trigger.CLOSED: Phase.STOPPED},
    Phase.STOPPED: {Trigger.START: Phase.STARTING},
    Phase.FAILED: {Trigger.START: Phase.STARTING},
}

RESOURCE_TRANSITIONS: Mapping[
    ResourcePhase, Mapping[ResourceTrigger, ResourcePhase]
] = {
    ResourcePhase.PENDING: {
        ResourceTrigger.SKIP: ResourcePhase.SKIPPED,
        ResourceTrigger.OPEN: ResourcePhase.OPENING,
        ResourceTrigger.GIVE_UP: ResourcePhase.FAILED,
        ResourceTrigger.CLOSED: ResourcePhase.CLOSED,
    },
    ResourcePhase.OPENING: {
        ResourceTrigger.OPENED: ResourcePhase.UP,
        ResourceTrigger.RETRY: ResourcePhase.WAITING,
        ResourceTrigger.REQUEUE: ResourcePhase.PENDING,
        ResourceTrigger.GIVE_UP: ResourcePhase.FAILED,
        ResourceTrigger.CLOSED: ResourcePhase.CLOSED,
    },
    ResourcePhase.WAITING: {
        ResourceTrigger.OPEN: ResourcePhase.OPENING,
        ResourceTrigger.REQUEUE: ResourcePhase.PENDING,
        ResourceTrigger.GIVE_UP: ResourcePhase.FAILED,
        ResourceTrigger.CLOSED: ResourcePhase.CLOSED,
    },
    ResourcePhase.UP: {
        ResourceTrigger.CHECK_FAILED: ResourcePhase.FAILING,
        ResourceTrigger.CLOSE: ResourcePhase.CLOSING,
    },
    ResourcePhase.FAILING: {
        ResourceTrigger.RECOVERED: ResourcePhase.UP,
        ResourceTrigger.CLOSE: ResourcePhase.CLOSING,
    },
    ResourcePhase.CLOSING: {
        ResourceTrigger.CLOSED: ResourcePhase.CLOSED,
        ResourceTrigger.RETRY: ResourcePhase.WAITING,
        ResourceTrigger.REQUEUE: ResourcePhase.PENDING,
        ResourceTrigger.GIVE_UP: ResourcePhase.FAILED,
    },
    ResourcePhase.CLOSED: {},
    ResourcePhase.SKIPPED: {},
    ResourcePhase.FAILED: {},
}

P = TypeVar("P", bound=Enum)
T = TypeVar("T", bound=Enum)


class Lifecycle(Generic[P, T]):
    """One walk through a table.

    Args:
        subject: What is walking, for the error text: "guard" or a resource's name.
        table: Phase × trigger → phase.
        phase: Where the walk begins.
        on_change: Called with the old and the new phase after each step.
    """

    __slots__ = ("_on_change", "_subject", "_table", "phase")

    def __init__(
        self,
        subject: str,
        table: Mapping[P, Mapping[T, P]],
        phase: P,
        on_change: Callable[[P, P], None],
    ) -> None:
        self._subject = subject
        self._table = table
        self._on_change = on_change
        self.phase = phase

    def allows(self, trigger: T) -> bool:
        """Whether *trigger* may happen now."""
        return trigger in self._table[self.phase]

    def handle(self, trigger: T) -> None:
        """Take the step that *trigger* asks for.

        Raises:
            IllegalTransitionError: When the table has no such step; nothing changes.
        """
        old = self.phase
        try:
            new = self._table[old][trigger]
        except KeyError:
            raise IllegalTransitionError(
                self._subject, old.value, trigger.value
            ) from None
        self.phase = new
        self._on_change(old, new)
