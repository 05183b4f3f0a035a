"""The place of a resource among the others: what it needs, and what needs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from .._phases import ResourcePhase
from .._tasks.bell import Bell
from ..events import Event
from .factories import Form
from .record import Record
from .resource import Resource


class Crew(Protocol):
    """What an owner is given by whoever runs it."""

    @property
    def stopping(self) -> bool: ...
    def observe(self, event: Event, /) -> None: ...
    def publish(self, recipe: Resource[Any], value: Any, /) -> None: ...
    def withdraw(self, recipe: Resource[Any], /) -> None: ...
    def time_to_close(self, wanted: float, /) -> float: ...


class Place(ABC):
    """One resource and its neighbours; what moves there is the owner's business.

    Attributes:
        recipe: What is opened here.
        record: What is known about it.
        needs: What it needs, in order.
        dependents: What needs it.
        outlives: What at a stop is closed before it is, though it does not need it
            (the app's own lifespan is the first to go).
        outlived_by: The same, seen from the other side.
    """

    def __init__(self, recipe: Resource[Any], record: Record) -> None:
        self.recipe = recipe
        self.record = record
        self.needs: list[Place] = []
        self.dependents: list[Place] = []
        self.outlives: list[Place] = []
        self.outlived_by: list[Place] = []
        self._bell = Bell()
        self._value: Any = None
        self._is_step = recipe.form is Form.STEP

    @property
    @abstractmethod
    def is_busy(self) -> bool:
        """Whether it uses the values of its needs."""

    @abstractmethod
    def requeue(self) -> None:
        """Close, and open again once the needs are back. What outlasts them stays."""

    def due_in(self, now: float, known: dict[Place, float] | None = None) -> float:
        """Return the least number of seconds until it may be up; inf for never.

        Args:
            now: On the clock of `time.monotonic`.
            known: What was found out already; a graph has many more ways than places.
        """
        known = {} if known is None else known
        if self not in known:
            known[self] = self._due_in(now, known)
        return known[self]

    def _due_in(self, now: float, known: dict[Place, float]) -> float:
        if self.record.is_open:
            return 0.0
        if self.record.is_lost:
            return float("inf")
        if self.record.next_attempt_at is not None:
            return max(0.0, self.record.next_attempt_at - now)
        return max((need.due_in(now, known) for need in self.needs), default=0.0)

    def all_dependents(self) -> Iterator[Place]:
        """Everything that needs it, directly or not; some perhaps more than once."""
        for dependent in self.dependents:
            yield dependent
            yield from dependent.all_dependents()

    def outlasts_its_needs(self) -> bool:
        """A step that ran is not run again; the app waits for its first start only."""
        once = self._is_step or self.recipe.form is Form.APP_LIFESPAN
        return once and self.record.phase in (ResourcePhase.UP, ResourcePhase.FAILING)

    def is_passed_through(self) -> bool:
        return self._is_step and self.record.phase is not ResourcePhase.SKIPPED

    def deep_needs(self) -> Iterator[Place]:
        """Its needs, and through a step (which stays) also what the step needs."""
        for need in self.needs:
            yield need
            if need.is_passed_through():
                yield from need.deep_needs()

    def deep_dependents(self) -> Iterator[Place]:
        """Those who must be closed before it is: the other side of `deep_needs`."""
        for dependent in self.dependents:
            if not dependent.outlasts_its_needs():
                yield dependent
            if dependent.is_passed_through():
                yield from dependent.deep_dependents()

    def tell_it_is_lost(self) -> None:
        self.ring((*self.dependents, *self.deep_dependents()))

    def ring(self, owners: Iterable[Place]) -> None:
        for owner in owners:
            owner._bell.ring()
