"""Which rows of the two tables the suite fires."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from asgi_lifespan_guard import IllegalTransitionError, LifespanGuard
from asgi_lifespan_guard._phases import Lifecycle, Trigger
from asgi_lifespan_guard._resources.owner import Owner


Row = tuple[Enum, Enum]


class Transitions:
    """Notes every trigger that guards and owners fire; others' walks do not count.

    Attributes:
        fired: Phase and trigger, where the table has such a row.
        refused: The same, where it has none.
    """

    def __init__(self) -> None:
        self.fired: set[Row] = set()
        self.refused: set[Row] = set()

    def watch(self) -> None:
        """Note what is fired from now on."""
        handle = Lifecycle.handle

        def noted(life: Lifecycle[Any, Any], trigger: Any) -> None:
            row = life.phase, trigger
            walker = getattr(life._on_change, "__self__", None)
            try:
                handle(life, trigger)
            except IllegalTransitionError:
                if isinstance(walker, Owner | LifespanGuard):
                    self.refused.add(row)
                raise
            if isinstance(walker, Owner | LifespanGuard):
                self.fired.add(row)

        Lifecycle.handle = noted  # type: ignore[assignment, method-assign]


def rows(*tables: Mapping[Any, Mapping[Any, Any]]) -> set[Row]:
    """Return every row of some tables."""
    return {
        (phase, trigger)
        for table in tables
        for phase, steps in table.items()
        for trigger in steps
    }


def is_second_start(row: Row) -> bool:
    """Whether it is a lifespan that is refused because another one is on."""
    return row[1] is Trigger.START


transitions = Transitions()
