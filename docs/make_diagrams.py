"""Draws the state diagrams in `phases.md` from the tables that the code runs on.

`make diagrams` rewrites the page; a test says when it is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

from asgi_lifespan_guard._phases import (
    RESOURCE_TRANSITIONS,
    TRANSITIONS,
    Phase,
    ResourcePhase,
)


PAGE = Path(__file__).with_name("phases.md")

P = TypeVar("P", bound=Enum)
T = TypeVar("T", bound=Enum)


def diagram(table: Mapping[P, Mapping[T, P]], begin: P) -> str:
    """Return *table* as a Mermaid state diagram that starts at *begin*."""
    lines = ["stateDiagram-v2", f"    [*] --> {begin.name}"]
    for phase, steps in table.items():
        lines += [
            f"    {phase.name} --> {after.name}: {trigger.value}"
            for trigger, after in steps.items()
        ]
        if not steps:
            lines.append(f"    {phase.name} --> [*]")
    return "\n".join(lines)


DIAGRAMS = {
    "guard": diagram(TRANSITIONS, Phase.IDLE),
    "resource": diagram(RESOURCE_TRANSITIONS, ResourcePhase.PENDING),
}


def redrawn(page: str) -> str:
    """Return *page* with every diagram between its markers drawn anew.

    Raises:
        LookupError: When the page lacks the markers of a diagram.
    """
    for name, drawing in DIAGRAMS.items():
        begin, end = f"<!-- diagram: {name} -->", f"<!-- end: {name} -->"
        between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.S)
        block = f"{begin}\n```mermaid\n{drawing}\n```\n{end}"
        page, found = between.subn(block.replace("\\", r"\\"), page)
        if found != 1:
            raise LookupError(f"{begin} ... {end} stands {found} times in the page")
    return page


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text()))
