"""Events: frozen facts, to be made, compared, matched and printed."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError
from typing import Any, get_args

import pytest

from asgi_lifespan_guard import Phase, events
from asgi_lifespan_guard.events import (
    CheckFailed,
    Event,
    PhaseChanged,
    RequestAdmitted,
    RequestHeld,
    Resumed,
)


CHANGED = PhaseChanged(Phase.IDLE, Phase.STARTING)
ADMITTED = RequestAdmitted("/a", 0.5)


class Told(events._Fact):
    """An event whose last field has a default."""

    what: str
    times: int = 1


@pytest.mark.parametrize("kind", get_args(Event))
def test_every_event_is_made_of_its_fields(kind: type[Any]) -> None:
    """Fields go in in their order or by their names, and are attributes."""
    names = kind.__match_args__
    values = range(len(names))
    event = kind(*values)
    given = dict(zip(names, values, strict=True))
    assert vars(event) == given
    assert event == kind(**given) == kind(**dict(reversed(given.items())))
    assert [getattr(event, name) for name in names] == list(values)


def test_a_field_may_have_a_default() -> None:
    """What is left out has the value that the class names."""
    assert vars(Told("a")) == {"what": "a", "times": 1}
    assert Told("a") == Told(what="a") == Told("a", 1) != Told("a", times=2)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        (("/a",), {}),
        (("/a", 0.5, 1), {}),
        (("/a", 0.5), {"path": "/b"}),
        (("/a",), {"path": "/b"}),
        (("/a",), {"wait": 0.5}),
        (("/a", 0.5), {"wait": 0.5}),
    ],
)
def test_an_event_takes_its_fields_and_no_others(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Missing, double and unknown fields are a `TypeError` that names the event."""
    with pytest.raises(TypeError, match=r"^RequestAdmitted: "):
        RequestAdmitted(*args, **kwargs)


def test_an_event_never_changes() -> None:
    """No field can be set or deleted, and none added."""
    changeable: Any = ADMITTED
    for name in ("path", "other"):
        with pytest.raises(FrozenInstanceError, match=name):
            setattr(changeable, name, "/b")
        with pytest.raises(FrozenInstanceError, match=name):
            delattr(changeable, name)
    assert vars(ADMITTED) == {"path": "/a", "waited": 0.5}


def test_events_are_compared_by_value() -> None:
    """Two of one kind with the same fields are equal, and one in a set."""
    assert RequestAdmitted("/a", 0.5) == ADMITTED != RequestAdmitted("/b", 0.5)
    assert {RequestAdmitted(waited=0.5, path="/a"), ADMITTED} == {ADMITTED}
    assert events.RequestAbandoned("/a", 0.5) != ADMITTED
    assert ADMITTED != ("/a", 0.5)


def test_an_event_is_printed_as_it_is_made() -> None:
    """Its representation names the kind and every field."""
    assert repr(ADMITTED) == "RequestAdmitted(path='/a', waited=0.5)"
    assert repr(Resumed()) == "Resumed()"


def test_an_event_says_what_it_is_made_of() -> None:
    """`inspect.signature` and `help()` show the fields."""
    assert str(inspect.signature(RequestAdmitted)) == "(path, waited)"
    assert str(inspect.signature(Told)) == "(what, times=1)"


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

    checked = CheckFailed("db", OSError(), 3)
    seen = [told(e) for e in (CHANGED, checked, RequestHeld("/a"), ADMITTED)]
    assert seen == ["from idle", "3 in a row", "/a", "something else"]


@pytest.mark.parametrize("event", [CHANGED, ADMITTED, Resumed()], ids=repr)
def test_events_can_be_copied_and_sent(event: Event) -> None:
    """An observer may hand them to another thread or process."""
    assert copy.deepcopy(event) == event
    assert pickle.loads(pickle.dumps(event)) == event
