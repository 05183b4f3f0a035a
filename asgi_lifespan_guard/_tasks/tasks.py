"""Cancelling a task on asyncio so that what it has started is cancelled, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


FRAMEWORKS = frozenset({"django", "quart"})
"""Packages that run a view in a task of its own, and wait for it in ``asyncio.wait``.

Named, because what somebody else waits for may be a task that others share.
"""


def views_of(task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
    """Return the tasks in which a framework runs the view that *task* waits for.

    A cancelled ``asyncio.wait`` leaves them running: cancelling the request's task
    would orphan the view, with the database connection that it holds. Cancelling the
    view instead is what these frameworks do themselves when a client leaves.
    """
    caller: Any = None
    waiting: Any = task.get_coro()
    while waiting is not None:
        if getattr(waiting, "cr_code", None) is asyncio.wait.__code__:
            return _tasks(waiting.cr_frame.f_locals["fs"]) if _is_known(caller) else []
        caller, waiting = waiting, getattr(waiting, "cr_await", None)
    return []


def _is_known(caller: Any) -> bool:
    """Whether the coroutine *caller* is a framework's, of those that we know."""
    if caller is None:
        return False
    module = str(caller.cr_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in FRAMEWORKS


def _tasks(futures: Iterable[Any]) -> list[asyncio.Task[Any]]:
    return [future for future in futures if isinstance(future, asyncio.Task)]
