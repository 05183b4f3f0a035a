"""Values that never change: what dataclasses promise, without their cost."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import KW_ONLY, FrozenInstanceError, field
from typing import Any

import pytest

from asgi_lifespan_guard._frozen import Frozen


class Point(Frozen):
    """A value whose fields may be given by their order."""

    x: int
    y: int = 1


class Box(Frozen, kw_only=True):
    """One whose fields are given by their names, and are judged."""

    things: list[int] = field(default_factory=list)
    size: int

    def __post_init__(self) -> None:
        """Allow no box without a size."""
        if self.size < 1:
            raise ValueError("too small")


class Call(Frozen):
    """One with both."""

    what: str
    _: KW_ONLY
    times: int = 1


def test_fields_are_given_by_order_or_name() -> None:
    """Both ways lead to the same value, and its fields are attributes."""
    assert Point(2, 3) == Point(y=3, x=2) == Point(2, y=3) != Point(2, 4)
    assert (Point(2, 3).x, Point(2, 3).y) == (2, 3)
    assert vars(Point(x=2, y=3)) == {"x": 2, "y": 3}


def test_what_is_left_out_has_its_default() -> None:
    """A default is the value itself, or made for each anew."""
    assert vars(Point(2)) == {"x": 2, "y": 1}
    one, other = Box(size=1), Box(size=1)
    assert one.things == other.things == []
    assert one.things is not other.things
    assert Call("a", times=2).times == Call("a").times + 1


def test_a_value_is_judged_when_it_is_made() -> None:
    """`__post_init__` may refuse it."""
    with pytest.raises(ValueError, match="too small"):
        Box(size=0)


@pytest.mark.parametrize(
    ("kind", "args", "kwargs"),
    [
        (Point, (), {}),
        (Point, (1, 2, 3), {}),
        (Point, (1,), {"x": 1}),
        (Point, (1, 2), {"x": 1}),
        (Point, (1,), {"z": 1}),
        (Point, (1, 2), {"z": 1}),
        (Box, (), {}),
        (Box, ([],), {}),
        (Box, ([], 1), {}),
        (Call, ("a", 1), {}),
    ],
)
def test_only_the_fields_are_taken(
    kind: type[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Missing, double and unknown ones are a `TypeError` that names the class."""
    with pytest.raises(TypeError, match=rf"^{kind.__name__}: "):
        kind(*args, **kwargs)


def test_a_value_never_changes() -> None:
    """No field can be set or deleted, and none added."""
    point: Any = Point(2, 3)
    for name in ("x", "z"):
        with pytest.raises(FrozenInstanceError, match=name):
            setattr(point, name, 4)
        with pytest.raises(FrozenInstanceError, match=name):
            delattr(point, name)
    assert vars(point) == {"x": 2, "y": 3}


def test_values_are_compared_by_their_fields() -> None:
    """Two of one class with equal fields are equal, and one in a set."""
    assert len({Point(2, 3), Point(y=3, x=2), Point(2, 4)}) == 2
    assert Point(2, 1) != Call("a")
    assert Point(2, 3) != (2, 3)


def test_a_value_is_shown_as_it_is_made() -> None:
    """Its representation and its signature name every field."""
    assert repr(Call(times=2, what="a")) == "Call(what='a', times=2)"
    assert str(inspect.signature(Call)) == "(what, *, times=1)"
    assert str(inspect.signature(Point)) == "(x, y=1)"
    assert list(inspect.signature(Box).parameters) == ["things", "size"]


def test_it_is_a_dataclass() -> None:
    """What Python has for dataclasses takes it."""
    assert [f.name for f in dataclasses.fields(Box)] == ["things", "size"]
    assert dataclasses.asdict(Point(2, 3)) == {"x": 2, "y": 3}
    assert dataclasses.replace(Point(2, 3), y=4) == Point(2, 4)
    assert Call.__match_args__ == ("what",)


def test_it_can_be_copied_and_sent() -> None:
    """A value may go to another thread or process."""
    assert copy.deepcopy(Point(2, 3)) == Point(2, 3)
    assert pickle.loads(pickle.dumps(Point(2, 3))) == Point(2, 3)
