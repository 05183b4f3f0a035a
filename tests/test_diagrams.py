from __future__ import annotations

import pytest

from asgi_lifespan_guard._phases import Phase, ResourcePhase
from docs.make_diagrams import PAGE, redrawn


def test_diagrams_are_up_to_date() -> None:
    """The diagrams in the documentation are those of the tables."""
    page = PAGE.read_text()
    assert redrawn(page) == page, "out of date: run `make diagrams`"


def test_old_diagrams_are_replaced() -> None:
    """Whatever stands between a diagram's markers is drawn anew, and nothing else."""
    page = PAGE.read_text()
    stale = page.replace("    IDLE --> STARTING: start\n", "    IDLE --> IDLE: nap\n")
    assert stale != page
    assert redrawn(stale) == page


def test_missing_markers_are_an_error() -> None:
    """A page without the markers of a diagram is an error, not a page without it."""
    with pytest.raises(LookupError, match="diagram: guard"):
        redrawn("no markers here")


def test_every_phase_is_explained() -> None:
    """The page says of every phase what it means."""
    page = PAGE.read_text()
    for phase in (*Phase, *ResourcePhase):
        assert f"| `{phase.name}` |" in page, phase
