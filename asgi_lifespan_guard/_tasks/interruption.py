"""Cancelling a piece of work once, so that what it awaits to clean up is left alone.

anyio's cancellation is a level: inside a cancelled scope every further `await` is
cancelled too, and a clean-up that awaits (``finally: await connection.close()``) never
gets done unless it shields itself. Code written for asyncio does not; there a
cancellation is an edge. The context managers that we enter are other people's code, so
an attempt to open one is cancelled by an edge, and what follows is bounded by a
deadline instead:

- asyncio: ``task.cancel()`` is an edge already. Around it lies a shield, so that a
  cancelled scope further out cannot reach in.
- trio has levels only. Two scopes: the outer one is cancelled, and as soon as that has
  been delivered the inner one raises its shield. Delivered is what made a task
  runnable; if the task was runnable before, or shields itself, the shield goes up at
  once and is lowered for a moment now and then until the delivery has happened.

In both, outer cancellation does not reach the work by itself, unless it is told to:
whoever runs it must interrupt it, or let it be done.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

import anyio

from .backend import is_about_to_be_cancelled, on_trio


if TYPE_CHECKING:
    import trio


SHORTEST_PAUSE = 0.001
LONGEST_PAUSE = 0.05


class Interruption(ABC):
    """A piece of work that can be interrupted once, by another task or by a timer.

    Attributes:
        interrupted: Whether `interrupt` was called (also by the timer).
        timed_out: Whether it was the timer of `interrupt_after`.
    """

    def __init__(self, grace: float) -> None:
        self.interrupted = False
        self.timed_out = False
        self._grace = grace
        self._over = False

    def interrupt(self) -> None:
        """Cancel the work once; it has ``grace`` seconds from now to clean up.

        Only the first call does anything.
        """
        if not self.interrupted and not self._over:
            self.interrupted = True
            self.bound(self._grace)
            self._deliver()

    @abstractmethod
    def bound(self, seconds: float) -> None:
        """Cancel the work for good, as a level, *seconds* from now at the latest."""

    @property
    @abstractmethod
    def overdue(self) -> bool:
        """Whether the work was cut short because the time given by `bound` ran out.

        Known once it is over. One that was done before it could be told was not.
        """

    @abstractmethod
    def interrupt_after(self, seconds: float | None) -> None:
        """Interrupt the work *seconds* from now, unless `disarm` comes first."""

    @abstractmethod
    def disarm(self) -> None:
        """Let the work be: forget the timer, and what could not be delivered yet."""

    @abstractmethod
    def forget_leftovers(self) -> None:
        """Take back cancellations that the work has taken in, and left to be counted.

        On asyncio, from Python 3.13 on, a task group would take them for one that goes
        on, and cancel its task once more. Elsewhere there are none.
        """

    @abstractmethod
    def _deliver(self) -> None: ...

    def _time_out(self) -> None:
        if not self.interrupted:
            self.timed_out = True
            self.interrupt()


def interruptible(
    grace: float, *, shield: bool = True
) -> AbstractAsyncContextManager[Interruption]:
    """Make the body interruptible; the cancellation that ends it so is swallowed.

    Args:
        grace: Seconds that an interrupted body may take to clean up.
        shield: Whether outer cancellation is kept out of a body that has not been
            interrupted.
    """
    if on_trio():
        return _on_trio(grace, shield)
    return _AsyncioInterruption(grace, shield)


class _AsyncioInterruption(Interruption, AbstractAsyncContextManager[Interruption]):
    def __init__(self, grace: float, shield: bool) -> None:
        super().__init__(grace)
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelled_before = task.cancelling()
        self._was_told_late = False
        self._timer: asyncio.TimerHandle | None = None
        self._scope = anyio.CancelScope(shield=shield)

    async def __aenter__(self) -> Self:
        self._scope.__enter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        late = self._scope.cancel_called
        self._was_told_late = late and self._task.cancelling() > self._cancelled_before
        try:
            if self._scope.__exit__(exc_type, error, traceback):
                return True
            return isinstance(error, asyncio.CancelledError) and self._is_ours(error)
        finally:
            await self._absorb()

    def _is_ours(self, error: asyncio.CancelledError) -> bool:
        """Whether *error* may end here; nobody outside waits for it.

        Raises:
            RuntimeError: When the body awaited something of its own that was cancelled.
                As a cancellation that would end the task without a word.
        """
        if not self._settle() and not self._is_late(error):
            return False
        if not self.interrupted and not self.overdue:
            raise RuntimeError("something that it awaited was cancelled") from error
        return True

    def bound(self, seconds: float) -> None:
        # Not anyio's clock: it wants a task, and a timer's callback has none.
        deadline = asyncio.get_running_loop().time() + seconds
        self._scope.deadline = min(deadline, self._scope.deadline)

    @property
    def overdue(self) -> bool:
        return self._was_told_late

    def interrupt_after(self, seconds: float | None) -> None:
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self._time_out)

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def forget_leftovers(self) -> None:
        if not (self.interrupted or is_about_to_be_cancelled(self._task)):
            while self._task.cancelling() > self._cancelled_before:
                self._task.uncancel()

    def _deliver(self) -> None:
        ours = _outstanding.get(self._task, 0)
        if ours or not is_about_to_be_cancelled(self._task):
            # What is run here may have left the count higher than it was.
            self._cancelled_before = self._task.cancelling() - ours
        _outstanding[self._task] = ours + 1
        self._task.cancel()

    def _settle(self) -> bool:
        """End it, and say whether no cancellation but our own is outstanding."""
        self.disarm()
        if self.interrupted and not self._over:
            self._task.uncancel()
            _outstanding[self._task] -= 1
        self._over = True
        return self._task.cancelling() <= self._cancelled_before

    def _is_late(self, error: asyncio.CancelledError) -> bool:
        """Whether *error* says that the time given by `bound` ran out.

        anyio passes it on where the work has left the task's count higher than it was.
        """
        origin = f"Cancelled via cancel scope {id(self._scope):x}"
        return self._scope.cancel_called and str(error).startswith(origin)

    async def _absorb(self) -> None:
        """Take the cancellation that came too late to be delivered inside the body."""
        if self.interrupted and not self._over:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if not self._settle():
                    raise
        self._settle()


_outstanding: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
"""How many cancellations of a task are ours, and have not come back up to us."""


@asynccontextmanager
async def _on_trio(grace: float, shield: bool) -> AsyncGenerator[Interruption, None]:
    interruption = _TrioInterruption(grace, shield)
    with interruption.outer, interruption.inner:
        try:
            yield interruption
        finally:
            interruption.settle()


class _TrioInterruption(Interruption):
    def __init__(self, grace: float, shield: bool) -> None:
        import trio

        super().__init__(grace)
        self._trio = trio
        self._task = trio.lowlevel.current_task()
        self._timer = trio.CancelScope()
        self._delivery_is_due = False
        self.outer: trio.CancelScope = trio.CancelScope(shield=shield)
        self.inner: trio.CancelScope = trio.CancelScope()

    def bound(self, seconds: float) -> None:
        deadline = self._trio.current_time() + seconds
        self.inner.deadline = min(deadline, self.inner.deadline)

    @property
    def overdue(self) -> bool:
        return self.inner.cancel_called

    def interrupt_after(self, seconds: float | None) -> None:
        if seconds is not None:
            self._trio.lowlevel.spawn_system_task(self._expire, seconds)

    def disarm(self) -> None:
        self._timer.cancel()
        self._delivery_is_due = False

    def forget_leftovers(self) -> None:
        """Do nothing: trio counts none."""

    def settle(self) -> None:
        self.disarm()
        self._over = True

    async def _expire(self, seconds: float) -> None:
        with self._timer:
            await self._trio.sleep(seconds)
            self._time_out()

    def _deliver(self) -> None:
        scopes = self._scopes_within()
        if self._delivered_by(self.outer.cancel):
            self._trio.lowlevel.spawn_system_task(self._confirm, scopes)
        else:
            self._delivery_is_due = True
            self._trio.lowlevel.spawn_system_task(self._insist)

    async def _confirm(self, scopes: Sequence[trio.CancelScope]) -> None:
        """Deliver it again, if one of *scopes* has taken it for its own deadline's.

        A sleep whose time has come as well, before its task could run, does so, since
        the shield is up by then and hides whose cancellation it is.
        """
        await self._trio.lowlevel.checkpoint()
        await self._trio.lowlevel.checkpoint()  # Now its task has run.
        now = self._trio.current_time()
        swallowed = any(s.cancelled_caught and s.deadline <= now for s in scopes)
        if swallowed and not self._over:
            self._delivery_is_due = True
            await self._insist()

    def _scopes_within(self) -> Sequence[trio.CancelScope]:
        """Return the scopes that the work's own task is in, inside of ours."""
        status: Any = getattr(self._task, "_cancel_status", None)
        found: list[trio.CancelScope] = []
        while status is not None and status._scope is not self.inner:
            found.append(status._scope)
            status = status.parent
        return () if status is None else found

    def _delivered_by(self, cancel: Callable[[], None]) -> bool:
        runnable = self._runnable()
        cancel()
        delivered = self._runnable() > runnable
        self.inner.shield = True
        return delivered

    def _runnable(self) -> int:
        return self._trio.lowlevel.current_statistics().tasks_runnable

    async def _insist(self) -> None:
        pause = 0.0
        while self._delivery_is_due and not self._delivered_by(self._lower_shield):
            await self._trio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause or SHORTEST_PAUSE)

    def _lower_shield(self) -> None:
        self.inner.shield = False
