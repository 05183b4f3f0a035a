"""Settings: judged when they are built, with the remedy in the text."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from asgi_lifespan_guard import ConfigurationError, Gate, Probes


@dataclass
class Named:
    name: str


DB = Named("db")


WRONG: list[tuple[type, dict[str, Any], str]] = [
    (Gate, {"wait": -1}, "Gate(wait=-1): must be a number of seconds, 0 or more"),
    (Gate, {"wait": float("inf")}, "must be a number of seconds"),
    (Gate, {"wait": float("nan")}, "must be a number of seconds"),
    (Gate, {"wait": True}, "must be a number of seconds"),
    (Gate, {"wait": "5"}, "must be a number of seconds"),
    (Gate, {"max_waiting": -1}, "whole number, 0 or more"),
    (Gate, {"max_waiting": 1.5}, "whole number, 0 or more"),
    (Gate, {"needs": {"docs": ()}}, "path that begins with '/'"),
    (Gate, {"needs": {"/a?b": ()}}, "path that begins with '/'"),
    (Gate, {"needs": {"/": "db"}}, "give a list of resources"),
    (Gate, {"needs": {"/": DB}}, "give a list of resources"),
    (Gate, {"needs": {"/": ["db"]}}, "() for a path that needs none"),
    (Probes, {"live": "livez"}, "Probes(live='livez'): must be a path"),
    (Probes, {"details": "no"}, "Probes(details='no'): must be True or False"),
    (Probes, {"ready": 7}, "must be a path"),
    (Probes, {"live": "/readyz"}, "two probes cannot share one path"),
]


@pytest.mark.parametrize(("kind", "given", "text"), WRONG, ids=lambda arg: str(arg))
def test_a_wrong_setting_is_told_at_once(
    kind: type, given: dict[str, Any], text: str
) -> None:
    """The error names the option, what was given, and what it must be."""
    with pytest.raises(ConfigurationError) as caught:
        kind(**given)
    assert text in str(caught.value)


def test_good_settings_are_taken() -> None:
    """Zero, nothing and no probe at all are choices."""
    assert Gate(wait=0, max_waiting=0, needs={"/": [], "/a": (DB,)}).wait == 0
    assert Probes(live=None, ready=None, startup=None).live is None


def test_settings_do_not_change() -> None:
    """They are frozen, and what they were given is copied."""
    given: dict[str, Any] = {"/a": [DB]}
    gate = Gate(needs=given)
    given["/b"] = ()
    assert dict(gate.needs) == {"/a": (DB,)}
    with pytest.raises(FrozenInstanceError):
        gate.wait = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        gate.needs["/c"] = ()  # type: ignore[index]
