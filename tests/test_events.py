"""Events: frozen facts, to be made, compared and matched."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from asgi_lifespan_guard import Phase
from asgi_lifespan_guard.events import (
    CheckFailed,
    Event,
    PhaseChanged,
    RequestAbandoned,
    RequestAdmitted,
    RequestHeld,
    Resumed,
)


@pytest.mark.parametrize("kind", get_args(Event))
def test_every_event_is_made_of_its_fields(kind: type[Any]) -> None:
    """Fields go in in their order or by their names, and `vars` has them so."""
    names = kind.__match_args__
    values = range(len(names))
    event = kind(*values)
    given = dict(zip(names, values, strict=True))
    assert vars(event) == given
    assert list(vars(event)) == list(names)
    assert event == kind(**given) == kind(**dict(reversed(given.items())))


def test_events_are_compared_by_kind_and_fields() -> None:
    """The same fields in another event are another fact."""
    admitted = RequestAdmitted("/a", 0.5)
    assert admitted == RequestAdmitted("/a", waited=0.5) != RequestAdmitted("/b", 0.5)
    assert admitted != RequestAbandoned("/a", 0.5)
    assert repr(admitted) == "RequestAdmitted(path='/a', waited=0.5)"


def test_events_can_be_matched() -> None:
    """Patterns may take fields by position, by name, or both."""

    def told(event: Event) -> str:
        match event:
            case PhaseChanged(old, new=Phase.STARTING):
                return f"from {old.value}"
            case CheckFailed("db", in_a_row=count):
                return f"{count} in a row"
            case RequestHeld(path):
                return path
            case _:
                return "something else"

    starting = PhaseChanged(Phase.IDLE, Phase.STARTING)
    checked = CheckFailed("db", OSError(), 3)
    seen = [told(e) for e in (starting, checked, RequestHeld("/a"), Resumed())]
    assert seen == ["from idle", "3 in a row", "/a", "something else"]
