"""What differs between the event loops, without loading the other one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable


def on_trio() -> bool:
    """Whether the caller runs inside a trio task."""
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_task())


def scheduler() -> Callable[[Callable[[], object]], object]:
    """Return what has the current event loop make a call soon, from any thread.

    It waits for nothing, and raises RuntimeError when the loop is gone.
    """
    if on_trio():
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
    return asyncio.get_running_loop().call_soon_threadsafe
