"""Cancelling a task on asyncio so that what it has started is cancelled, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


def waited_for(task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
    """Return the tasks that *task* waits for in ``asyncio.wait``, if it does.

    A cancelled ``asyncio.wait`` leaves them running. Quart and Django run a view in a
    task of its own and wait for it so; cancelling the request's task would orphan the
    view, with the database connection that it holds. Cancelling the view instead is
    what they do themselves when a client leaves.
    """
    waiting: Any = task.get_coro()
    while waiting is not None:
        if getattr(waiting, "cr_code", None) is asyncio.wait.__code__:
            return _tasks(waiting.cr_frame.f_locals["fs"])
        waiting = getattr(waiting, "cr_await", None)
    return []


def _tasks(futures: Iterable[Any]) -> list[asyncio.Task[Any]]:
    return [future for future in futures if isinstance(future, asyncio.Task)]
