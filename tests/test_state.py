"""The way from whatever a handler has at hand to the state."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from asgi_lifespan_guard._state import state_of


STATE = {"db": 1}


@pytest.mark.parametrize(
    "source",
    [
        {"type": "http", "state": STATE},
        SimpleNamespace(scope={"state": STATE}),
        SimpleNamespace(scope={"state": STATE}, state=object()),
        SimpleNamespace(state=STATE),
    ],
    ids=["scope", "request", "framework's request", "guard"],
)
def test_every_source_leads_to_the_state(source: Any) -> None:
    """A scope, anything with a scope, and a guard lead to the same mapping."""
    assert state_of(source) is STATE


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"state": None},
        SimpleNamespace(scope={}),
        SimpleNamespace(scope={"state": object()}),
        SimpleNamespace(state=object()),
        object(),
    ],
)
def test_what_leads_nowhere_leads_to_an_empty_state(source: Any) -> None:
    """A server without state, or a thing that is none of these, has no values."""
    assert state_of(source) == {}
