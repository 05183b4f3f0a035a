"""One attempt to open a resource: the whole ``async with``, from entering to leaving.

One `interruptible` scope encloses it; its bound changes as it goes: the attempt's
timer while it opens, none while it is up, and the closing deadline from the moment
when everything that uses it is closed. There is no scope around entering or leaving
alone: with a task group held over the ``yield`` that would corrupt the stack of scopes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any

from .._errors import CloseTimeoutError, CrashedError, OpenTimeoutError
from .._tasks.backend import must_pass, now
from .._tasks.groups import raise_as_it_is
from .._tasks.interruption import Interruption, interruptible
from .checks import Asker, Watch
from .factories import Step, context_of
from .resource import Resource
from .threads import ThreadedContext


class OpeningInterruptedError(Exception):
    """Raised out of an opening that was told to end before it was done."""


class Attempt:
    """One attempt, and how far it has come.

    Args:
        recipe: What is opened.
        number: Which attempt of its series it is.
        previous: The thread of an attempt before it, which may still be running.
        asker: Puts the resource's check, if it has one; also to attempts before it.

    Attributes:
        asker: As given.
        thread: The thread that it runs in, or that it waits for, if there is one.
        is_step: Whether it turned out to be a one-shot step.
        failure: Why it came down though nobody told it to, once it has.
        watch: Counts the answers of its checks, while it is up and has one.
    """

    def __init__(
        self,
        recipe: Resource[Any],
        number: int,
        previous: ThreadedContext[Any] | None,
        asker: Asker | None,
    ) -> None:
        self.asker = asker
        self.thread = previous
        self.is_step = False
        self.failure: BaseException | None = None
        self.watch: Watch | None = None
        self._recipe = recipe
        self._number = number
        self._work: Interruption | None = None
        self._heard: _Overheard | None = None
        self._closing_since: float | None = None

    @asynccontextmanager
    async def opened(self, values: Sequence[Any]) -> AsyncGenerator[Any, None]:
        """Open it on entering, close it on leaving.

        Args:
            values: Of its needs.

        Raises:
            OpeningInterruptedError: When `interrupt` ended it before it was up.
            BaseException: Why it did not open, what came out of the context manager
                when it was left, or `CloseTimeoutError`.
        """
        error: BaseException | None = None
        up = False
        try:
            async with interruptible(self._recipe.close_timeout) as self._work:
                context = await self._entering(self._work, values)
                async with context as value:
                    self._work.forget_leftovers()
                    await self._ask_first(value)
                    self._work.disarm()
                    if not self._work.interrupted:
                        up = True
                        yield value
        except BaseException as raised:
            if must_pass(raised):
                raise
            error = raised
        outcome = self._why_not_up(error) if not up else self._why_not_closed(error)
        if outcome is not None:
            raise_as_it_is(outcome)

    def interrupt(self, seconds: float) -> None:
        """Cancel it, for it is not up yet; it has *seconds* to clean up."""
        assert self._work is not None  # No switch comes between its making and this.
        self._work.interrupt()
        self._work.bound(seconds)
        if self.asker is not None:
            self.asker.bound(seconds / 2)  # The rest is for leaving.

    def close_within(self, seconds: float) -> None:
        """Bound its closing, which begins now, or has begun."""
        assert self._work is not None
        if self._closing_since is None:
            self._closing_since = now()
        self._work.bound(seconds)

    @property
    def is_closing(self) -> bool:
        """Whether its context manager is being left."""
        return self._closing_since is not None

    @property
    def is_threaded(self) -> bool:
        """Whether it lives in a worker thread."""
        return self.thread is not None

    def closing_took(self) -> float:
        """Return the seconds since its closing began."""
        assert self._closing_since is not None
        return now() - self._closing_since

    async def _entering(
        self, work: Interruption, values: Sequence[Any]
    ) -> AbstractAsyncContextManager[Any]:
        work.interrupt_after(self._recipe.timeout)
        late = None
        if self.thread is not None:
            await self.thread.wait_ended()
            late = self.thread.take_error()
        recipe = self._recipe
        context = context_of(recipe.name, recipe.form, recipe.factory, values)
        if isinstance(context, Step):
            self.is_step = True
            if recipe.check is not None and recipe.check.then == "reopen":
                context.refuse_reopening()
        self.thread = context if isinstance(context, ThreadedContext) else None
        self._heard = _Overheard(context, late)
        return self._heard

    async def _ask_first(self, value: Any) -> None:
        """Put the first check, which belongs to the attempt.

        Its error is kept: the context manager may swallow what is raised into it.
        """
        assert self._work is not None
        if self.asker is None or self._work.interrupted:
            return
        error = await self.asker.ask(value, threaded=self.is_threaded)
        if error is not None:
            self.failure = error
            raise error

    def _why_not_up(self, error: BaseException | None) -> BaseException:
        work, timeout = self._work, self._recipe.timeout
        assert work is not None
        if work.timed_out and timeout is not None:
            late = OpenTimeoutError(self._recipe.name, self._number, timeout)
            late.__cause__ = error or self.hidden() or self.failure
            return late
        if work.interrupted:
            entered = self._heard is not None and self._heard.entered
            interruption = OpeningInterruptedError()
            if entered and error is not self.failure:
                # After a stop only what leaving it raised says anything.
                interruption.__cause__ = error
            return interruption
        return error or self.failure or CrashedError(self._recipe.name)

    def _why_not_closed(self, error: BaseException | None) -> BaseException | None:
        assert self._work is not None
        if not self._work.overdue:
            return error
        late = CloseTimeoutError(self._recipe.name, self.closing_took())
        late.__cause__ = self.hidden()
        return late

    def hidden(self) -> BaseException | None:
        """Return what had gone wrong before a cancellation replaced it, if so."""
        return None if self._heard is None else self._heard.failure


class _Overheard(AbstractAsyncContextManager[Any, "bool | None"]):
    """A context manager, and what had gone wrong before a deadline cut it short.

    What comes out then is a cancellation, and only in here does it still carry what it
    came on top of: further out Python shows the body's own cancellation instead.

    Args:
        context: What is entered.
        late: What the thread of an earlier, abandoned attempt ended with.

    Attributes:
        entered: Whether it was entered.
        failure: What went wrong in it.
    """

    def __init__(
        self,
        context: AbstractAsyncContextManager[Any],
        late: BaseException | None,
    ) -> None:
        self.entered = False
        self.failure: BaseException | None = None
        self._context = context
        self._late = late

    async def __aenter__(self) -> Any:
        try:
            value = await self._context.__aenter__()
            self.entered = True
            return value
        except BaseException as raised:
            if self._late is not None and raised.__cause__ is None:
                raised.__cause__ = self._late
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


def _failure_behind(error: BaseException | None) -> BaseException | None:
    while error is not None and must_pass(error):
        error = error.__cause__ or error.__context__
    return error
