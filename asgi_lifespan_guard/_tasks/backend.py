"""What differs between the event loops, without loading the other one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, TypeAlias


# `asyncio.current_task` is written in Python before 3.12, and takes as long as the rest
# of what the pass-through path does; this is what it looks into there.
current_task: Callable[[asyncio.AbstractEventLoop | None], Any] = (
    asyncio.current_task
    if sys.version_info >= (3, 12)
    else asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]
)

Schedule: TypeAlias = Callable[..., Any]


def on_trio() -> bool:
    """Whether the caller runs inside a trio task; does not load trio."""
    lowlevel = getattr(sys.modules.get("trio"), "lowlevel", None)
    in_trio_task = getattr(lowlevel, "in_trio_task", None)
    return bool(in_trio_task()) if in_trio_task else _has_task(lowlevel)


def _has_task(lowlevel: Any) -> bool:
    """Ask a trio before 0.23; one that another thread is importing has no task yet."""
    try:
        lowlevel.current_task()
    except (AttributeError, RuntimeError):
        return False
    return True


def scheduler() -> Schedule:
    """Return what runs a callable on the current loop soon, from anywhere.

    It takes no lock and wakes a loop that sleeps, so a signal handler may call it. It
    raises `RuntimeError` once the loop is gone.
    """
    if on_trio():
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
    return asyncio.get_running_loop().call_soon_threadsafe
