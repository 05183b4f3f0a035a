"""Which event loop runs the current task, without loading the other one."""

from __future__ import annotations

import sys


def on_trio() -> bool:
    """Whether the caller runs inside a trio task."""
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_task())
