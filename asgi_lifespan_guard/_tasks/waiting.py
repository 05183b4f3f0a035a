"""Waiting for a condition over plain state, and for work that must not be left.

Whoever changes the state wakes those who wait, and they look for themselves: a waking
too many is harmless, and the state needs no events beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from .backend import new_wait, on_trio


class Waiters:
    """Tasks that wait for conditions; made before there is any event loop.

    Attributes:
        wakings: How often they were woken, for those who only ask whether anything
            has changed.
    """

    __slots__ = ("_wakers", "wakings")

    def __init__(self) -> None:
        self.wakings = 0
        self._wakers: dict[Callable[[], None], None] = {}

    def __len__(self) -> int:
        return len(self._wakers)

    def wake(self) -> None:
        """Have every waiting task look again; on the thread of the event loop."""
        self.wakings += 1
        for wake in self._wakers:
            wake()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once *condition* holds; at once, without a switch, if it does now."""
        while not condition():
            woken, wake = new_wait()
            self._wakers[wake] = None
            try:
                await woken
            finally:
                del self._wakers[wake]

    async def wait_past(self, wakings: int) -> int:
        """Return how often they were woken, once that is not *wakings* any more."""
        await self.wait_until(lambda: self.wakings != wakings)
        return self.wakings

    async def wait_through(self, condition: Callable[[], bool]) -> None:
        """Return once *condition* holds; a cancellation meanwhile is raised then.

        On asyncio a shield does not stop ``task.cancel()``: a task group that is held
        over a ``yield`` uses it on its owner, and so does the end of ``asyncio.run``.
        """
        if condition():
            return
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not condition():
                try:
                    await self.wait_until(condition)
                except asyncio.CancelledError as error:
                    cancelled = error
        if cancelled is not None:
            raise cancelled


class StateEvent:
    """An event that is set while a condition over plain state holds.

    Args:
        condition: Whether it is set.
        waiters: Woken by whoever changes what *condition* looks at.
    """

    __slots__ = ("_condition", "_waiters")

    def __init__(self, condition: Callable[[], bool], waiters: Waiters) -> None:
        self._condition = condition
        self._waiters = waiters

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._condition()

    async def wait(self) -> None:
        """Return once it has happened."""
        await self._waiters.wait_until(self._condition)


async def to_its_end(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do *work*, whoever cancels the task that wants it done.

    A shielded scope is enough on trio. On asyncio ``task.cancel()``, which servers use
    on their lifespan task, goes through every shield; there the work has a task of its
    own. A cancellation that comes meanwhile is raised once the work is done.

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
