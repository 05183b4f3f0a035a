"""Task groups: one that changes nothing in what goes through it, one that lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import anyio

from .backend import on_trio


if TYPE_CHECKING:
    from anyio.abc import TaskGroup


@asynccontextmanager
async def transparent_task_group() -> AsyncGenerator[TaskGroup, None]:
    """Open a task group; an exception group of exactly one is raised as that one.

    Callers wrap other people's code in it, and those people's errors must look as they
    would without us. Cause and context stay as they were.
    """
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) != 1:
            raise
        raise_as_it_is(errors.exceptions[0])


def raise_as_it_is(error: BaseException) -> NoReturn:
    """Raise *error* with the cause and the context that it has.

    Python gives what is raised while another error is handled that one as its context,
    instead of what it really came on top of.
    """
    context, suppress = error.__context__, error.__suppress_context__
    try:
        raise error
    finally:
        error.__context__, error.__suppress_context__ = context, suppress
        del error


class LastingTasks:
    """Tasks that nobody ends from outside: they are told to, and come to their end.

    A cancelled scope around them does not reach in. On asyncio they are plain tasks,
    which ``task.cancel()`` can reach (the end of ``asyncio.run`` uses it): anyio's have
    a cancel scope each, and would need another one as a shield, which is a third of
    what it takes to open a trivial resource.

    Args:
        ended: Called whenever one has come to its end.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._running: set[object] = set()
        self._group: TaskGroup | None = None
        self._failure: BaseException | None = None

    def __len__(self) -> int:
        return len(self._running)

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None, None]:
        """Allow tasks to begin; whoever leaves must see to it first that none is left.

        Raises:
            BaseException: What one was ended by: `SystemExit` or `KeyboardInterrupt`.
        """
        if on_trio():
            async with transparent_task_group() as self._group:
                yield
        else:
            yield
            if self._failure is not None:
                raise_as_it_is(self._failure)

    def start(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Begin a task that does *work*, called *name*."""
        if self._group is None:
            # Not by the loop: with eager tasks the work would begin before we return.
            task = asyncio.Task(work(), loop=asyncio.get_running_loop(), name=name)
            self._running.add(task)
            task.add_done_callback(self._done)
        else:
            self._running.add(work)
            self._group.start_soon(self._shielded, work, name=name)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            self._failure = self._failure or task.exception()
        self._ended()

    async def _shielded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            with anyio.CancelScope(shield=True), suppress(asyncio.CancelledError):
                await work()
        finally:
            self._running.discard(work)
            self._ended()
