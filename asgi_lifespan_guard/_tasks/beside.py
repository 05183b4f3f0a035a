"""For one who waits, of whom there may be ten thousand: as little as it can be.

A task group, an event and a cancel scope are 5 KB on asyncio; a task and a future do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio

from .backend import on_trio
from .groups import transparent_task_group


if TYPE_CHECKING:
    import trio
    from anyio.abc import TaskGroup


class Beside:
    """Runs *work* beside its block; cancels it, and waits for it, when that is left.

    What *work* raises is lost: it has to tell of that itself.
    """

    __slots__ = ("_group", "_opened", "_task", "_work")

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        if on_trio():
            self._opened = transparent_task_group()
            self._group: TaskGroup = await self._opened.__aenter__()
            self._group.start_soon(self._work)
        else:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if self._task is None:
            self._group.cancel_scope.cancel()
            return await self._opened.__aexit__(kind, error, trace)
        if not self._task.done():
            await _end(self._task)
        return None


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel *task*, and return when it has ended, whoever cancels this one."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell(_task: asyncio.Task[None]) -> None:
        if not ended.done():
            ended.set_result(None)

    task.add_done_callback(tell)
    task.cancel()
    try:
        await ended
    finally:
        if not task.done():  # Cancelled itself, it waits all the same.
            with anyio.CancelScope(shield=True):
                await asyncio.wait([task])


class Alarm:
    """Rings once, when it is told to or at a deadline, for the one who waits for it.

    Args:
        deadline: On the event loop's clock.
    """

    __slots__ = ("_deadline", "_event", "_future", "_timer")

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._event: trio.Event | None = None
        if on_trio():
            import trio

            self._event = trio.Event()
            return
        loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = loop.create_future()
        self._timer = loop.call_at(deadline, self.ring)

    def ring(self) -> None:
        """Wake the one who waits, now or later."""
        if self._event is not None:
            self._event.set()
        elif not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[None]:
        """Return what is to be awaited, once."""
        return self._future if self._event is None else self._wait(self._event)

    async def _wait(self, event: trio.Event) -> None:
        with anyio.CancelScope(deadline=self._deadline):
            await event.wait()

    def stop(self) -> None:
        """Let the deadline pass in silence."""
        if self._event is None:
            self._timer.cancel()
