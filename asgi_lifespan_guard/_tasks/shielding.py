"""Work that is not left half done, whoever cancels the task that wants it done.

A shielded scope is enough on trio. On asyncio ``task.cancel()``, which servers use on
their lifespan task, goes through every shield; there the work has a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from .backend import on_trio


async def to_its_end(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do *work*; a cancellation that comes meanwhile is raised once it is done.

    Raises:
        BaseException: Whatever *work* raises.
    """
    with anyio.CancelScope(shield=True):
        if on_trio():
            await work()
            return
        task = asyncio.ensure_future(work())
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        task.result()
        if cancelled is not None:
            raise cancelled
