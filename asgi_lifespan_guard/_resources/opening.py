"""One attempt: the whole ``async with`` of a resource, from entering to leaving.

One `interruptible` scope encloses it; its bound changes as it goes: the attempt's
timer while it opens, none while it is up, and the closing deadline from the moment
when everything that uses it is closed. There is no scope around entering or leaving
alone: with a task group held over the ``yield`` that would corrupt the stack of scopes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Protocol

import anyio

from .._errors import CloseTimeoutError, CrashedError, OpenTimeoutError
from .._tasks.interruption import Interruption, interruptible
from .factories import Step, context_of
from .resource import Resource
from .threads import ThreadedContext
from .watcher import Watcher


class Holder(Protocol):
    """Who makes the attempt, and lives with what it opened."""

    @property
    def stopping(self) -> bool: ...
    def came_up(self, value: Any, duration: float, /) -> None: ...
    async def step_down(self) -> None: ...
    def is_told_to_close(self) -> bool: ...
    def time_to_close(self) -> float: ...
    def closed(self, duration: float, error: Exception | None, /) -> None: ...
    def crashed(self, error: Exception, /) -> None: ...


class Attempt:
    """One attempt, and what became of it.

    Args:
        recipe: What is opened.
        number: Which attempt of its series it is.
        previous: The thread of an attempt before it, which may still be running.
        holder: Told when the resource is up, and asked when it is to be closed.
        watcher: Puts the resource's checks.

    Attributes:
        was_up: Whether it succeeded.
        is_step: Whether it turned out to be a one-shot step.
        thread: The thread that it runs in, if it does.
    """

    def __init__(
        self,
        recipe: Resource[Any],
        number: int,
        previous: ThreadedContext[Any] | None,
        holder: Holder,
        watcher: Watcher,
    ) -> None:
        self.was_up = False
        self.is_step = False
        self.thread: ThreadedContext[Any] | None = previous
        self._recipe = recipe
        self._number = number
        self._holder = holder
        self._watcher = watcher
        self._work: Interruption | None = None
        self._closes = False
        self._closing_since = 0.0
        self._overheard: _Overheard | None = None

    async def run(self, values: Sequence[Any]) -> Exception | None:
        """Open it, hold what it gives, close it.

        Args:
            values: Of its needs.

        Returns:
            Why it failed or crashed; ``None`` when it was told to end.
        """
        error: Exception | None = None
        try:
            async with interruptible(self._recipe.close_timeout) as self._work:
                await self._open_and_hold(self._work, values)
        except Exception as raised:
            error = raised
        except BaseException:
            self._conclude_cancelled()
            raise
        assert self._work is not None
        if self.was_up:
            return self._after_being_up(self._work, error)
        return self._why_not_open(self._work, error)

    def interrupt(self) -> None:
        """Cancel it while it opens; when it is up its holder lets it go instead.

        What cleans up or closes already has no more time than its holder says now.
        """
        assert self._work is not None  # No switch comes between its making and its run.
        self._watcher.release()
        if not self.was_up:
            self._work.interrupt()
        if self._closes or not self.was_up:
            self._work.bound(self._holder.time_to_close())

    async def _open_and_hold(self, work: Interruption, values: Sequence[Any]) -> None:
        began = anyio.current_time()
        work.interrupt_after(self._recipe.timeout)
        if self.thread is not None:
            await self.thread.wait_ended()
        recipe = self._recipe
        context = context_of(recipe.name, recipe.form, recipe.factory, values)
        self.is_step = isinstance(context, Step)
        self.thread = context if isinstance(context, ThreadedContext) else None
        self._overheard = _Overheard(context)
        async with self._overheard as value:
            threaded = self.thread is not None
            await self._watcher.ask_first(value, threaded=threaded)
            work.disarm()
            if work.interrupted:
                return
            self.was_up = True
            self._holder.came_up(value, anyio.current_time() - began)
            try:
                await self._watcher.hold(value, threaded=threaded)
            finally:
                self._closing_since = anyio.current_time()
                await self._holder.step_down()
                self._closes = True
                work.bound(self._holder.time_to_close())

    def _after_being_up(
        self, work: Interruption, error: Exception | None
    ) -> Exception | None:
        if work.overdue:
            late = CloseTimeoutError(self._recipe.name, self._closing_took())
            late.__context__ = self._hidden_failure()
            error = late
        told = self._holder.is_told_to_close()
        if told or self._watcher.verdict is not None:
            self._holder.closed(self._closing_took(), error)
            return None if told else self._watcher.verdict
        error = error or CrashedError(self._recipe.name)
        self._holder.crashed(error)
        return error

    def _why_not_open(
        self, work: Interruption, error: Exception | None
    ) -> Exception | None:
        timeout = self._recipe.timeout
        if not work.timed_out or timeout is None:
            if not work.interrupted:
                return error
            self._tell_of_failed_close(error)
            return None
        late = OpenTimeoutError(self._recipe.name, self._number, timeout)
        late.__cause__ = error or self._hidden_failure()
        return late

    def _hidden_failure(self) -> Exception | None:
        return None if self._overheard is None else self._overheard.failure

    def _tell_of_failed_close(self, error: Exception | None) -> None:
        """Tell what leaving raised after a stop; what entering raised means nothing."""
        entered = self._overheard is not None and self._overheard.entered
        if entered and error is not None:
            self._holder.closed(0.0, error)

    def _conclude_cancelled(self) -> None:
        if self.was_up and self._holder.stopping:
            self._holder.closed(self._closing_took(), None)
        elif self.was_up:
            self._holder.crashed(CrashedError(self._recipe.name))

    def _closing_took(self) -> float:
        return anyio.current_time() - self._closing_since


class _Overheard(AbstractAsyncContextManager[Any, "bool | None"]):
    """A context manager, and what had gone wrong before a deadline cut it short.

    What comes out then is a cancellation, and only in here does it still carry what it
    came on top of: further out Python has the body's own cancellation take that place.

    Attributes:
        entered: Whether it was entered.
        failure: What went wrong in it.
    """

    def __init__(self, context: AbstractAsyncContextManager[Any]) -> None:
        self.entered = False
        self.failure: Exception | None = None
        self._context = context

    async def __aenter__(self) -> Any:
        try:
            value = await self._context.__aenter__()
            self.entered = True
            return value
        except BaseException as raised:
            self.failure = _failure_behind(raised)
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._context.__aexit__(exc_type, error, traceback)
        except BaseException as raised:
            self.failure = _failure_behind(raised)
            raise


def _failure_behind(error: BaseException | None) -> Exception | None:
    while error is not None and not isinstance(error, Exception):
        error = error.__context__
    return error
