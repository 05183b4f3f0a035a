"""Hears what hypercorn's main process tells its workers.

A worker of hypercorn (its default, and ``--workers N``) gets no signal. It asks an
event that it shares with its main process, ten times a second, and tells nobody else
before the last connection is gone, which an open stream prevents for ever. The event is
an argument of the function that runs the worker, so it is found in a frame below the
one that runs the lifespan; it is asked, and never set.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import anyio


INTERVAL = 0.1
"""Seconds between two questions, as hypercorn itself asks."""

_SERVER, _NAME = "hypercorn", "shutdown_event"


def stop_question() -> Callable[[], bool] | None:
    """Return what says whether the main process wants this worker to stop.

    ``None`` where there is no such process. Called in the lifespan's own task.
    """
    frame: Any = sys._getframe()
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] == _SERVER:
            asked = getattr(frame.f_locals.get(_NAME), "is_set", None)
            if callable(asked):
                return lambda: bool(asked())
        frame = frame.f_back
    return None


async def wait_told(is_told: Callable[[], bool]) -> None:
    """Ask now and then; return when it is so."""
    while not is_told():  # noqa: ASYNC110 - another process sets it
        await anyio.sleep(INTERVAL)
