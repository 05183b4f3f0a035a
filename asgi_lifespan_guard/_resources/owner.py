"""The one task that opens a resource, holds it open and closes it.

Whoever wants something of a resource (stop, open again) sets a flag and rings; only
the owner acts, and what it does next is decided between two attempts, in `_next`.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

import anyio

from .._errors import NeedGaveUpError
from .._phases import ResourcePhase, ResourceTrigger
from ..events import (
    AttemptFailed,
    CloseFailed,
    Event,
    ResourceClosed,
    ResourceCrashed,
    ResourceGaveUp,
    ResourceOpened,
    ResourceReopening,
    ResourceSkipped,
)
from .opening import Attempt
from .place import Crew, Place
from .record import Record
from .resource import Resource
from .retry import Series, is_permanent, is_unexpected
from .watcher import Watcher


LONG_ENOUGH = 60.0
"""Seconds up after which a crash finds a fresh retry budget."""


class Owner(Place):
    """One resource, running.

    Args:
        recipe: What it opens.
        crew: Who runs it.
    """

    def __init__(self, recipe: Resource[Any], crew: Crew) -> None:
        super().__init__(recipe, Record(recipe, crew.observe))
        self.observe = crew.observe
        self._crew = crew
        self._value: Any = None
        self._watcher = Watcher(
            recipe, self.record, self._bell, crew, self._tell_it_is_back
        )
        self._attempt: Attempt | None = None
        self._last_thread: Any = None
        self._series = Series(recipe.retry)
        self._up_since = 0.0
        self._told_to_stop = False
        self._told_to_requeue = False
        self._told_to_hurry = False

    # What others ask of it

    def stop(self) -> None:
        """Close, or do not open, for good."""
        self._told_to_stop = True
        self._disturb()

    def requeue(self) -> None:
        """Close, and open again once the needs are back. What outlasts them stays."""
        if self.outlasts_its_needs():
            for dependent in self.dependents:
                dependent.requeue()
        elif self._attempt is not None or self.record.phase is ResourcePhase.WAITING:
            self._told_to_requeue = True
            self._disturb()

    def hurry(self) -> None:
        """Cut short the wait for the next attempt, if there is one."""
        self._told_to_hurry = True
        self._bell.ring()

    # The task

    async def run(self) -> None:
        """Open it, hold it, close it; return when it is over."""
        try:
            if self._is_enabled():
                await self._live()
        finally:
            self.record.end()
            self.tell_it_is_lost()

    async def _live(self) -> None:
        going_on = True
        while going_on and await self._needs_are_up():
            failure = await self._make_attempt()
            going_on = not self._told_to_stop and await self._next(failure)

    def _is_enabled(self) -> bool:
        enabled = self.recipe.enabled
        try:
            wanted = enabled() if callable(enabled) else enabled
        except Exception as error:
            self._give_up(error, 0, permanent=True)
            return False
        if not wanted:
            self.record.was_up = True
            self.record.handle(ResourceTrigger.SKIP)
            self.observe(ResourceSkipped(self.recipe.name))
            self.ring(self.dependents)
        return bool(wanted)

    async def _needs_are_up(self) -> bool:
        await self._bell.wait_until(self._needs_are_settled)
        lost = self._lost_need()
        if lost is not None and not self._told_to_stop:
            error = NeedGaveUpError(self.recipe.name, lost.recipe.name)
            self._give_up(error, self.record.attempts, permanent=True)
        return lost is None and not self._told_to_stop

    def _needs_are_settled(self) -> bool:
        if self._told_to_stop or self._lost_need() is not None:
            return True
        return all(need.record.is_satisfied for need in self.deep_needs())

    def _lost_need(self) -> Place | None:
        return next((need for need in self.deep_needs() if need.record.is_lost), None)

    async def _make_attempt(self) -> Exception | None:
        self.record.attempts += 1
        self._told_to_hurry = False
        self.record.handle(ResourceTrigger.OPEN)
        self._series.begin()
        number = self._series.attempt
        self._watcher.renew()
        attempt = Attempt(self.recipe, number, self._last_thread, self, self._watcher)
        self._attempt = attempt
        try:
            return await attempt.run([need._value for need in self.needs])
        finally:
            self._attempt = None
            self._last_thread = attempt.thread
            self.ring((*self.deep_needs(), *self.outlived_by))

    # What the attempt asks

    @property
    def stopping(self) -> bool:
        """Whether everything is being closed."""
        return self._crew.stopping

    def came_up(self, value: Any, duration: float) -> None:
        """Let others use *value*, which took *duration* seconds to open."""
        assert self._attempt is not None
        self._is_step = self._attempt.is_step
        self._value = value
        self._crew.publish(self.recipe, value)
        self._up_since = anyio.current_time()
        self.record.opened_in = duration
        self.record.was_up = True
        self.record.error = None
        self.record.handle(ResourceTrigger.OPENED)
        number = self._series.attempt
        self.observe(ResourceOpened(self.recipe.name, number, duration))
        self._tell_it_is_back()

    @property
    def is_busy(self) -> bool:
        """Whether an attempt is on, and uses the values of its needs."""
        return self._attempt is not None

    def is_told_to_close(self) -> bool:
        """Whether somebody wants it closed."""
        return self._told_to_stop or self._told_to_requeue

    async def step_down(self) -> None:
        """Let go of everything that uses it, before it is closed."""
        self._crew.withdraw(self.recipe)  # First: the phase's change looks at what is.
        self.record.handle(ResourceTrigger.CLOSE)
        if not self.stopping:
            for dependent in self.dependents:
                dependent.requeue()
        with anyio.CancelScope(shield=True):
            await self._bell.wait_until(self._nobody_uses_it)
        self._value = None

    def time_to_close(self) -> float:
        """Return the seconds that it may take to close."""
        return self._crew.time_to_close(self.recipe.close_timeout)

    def closed(self, duration: float, error: Exception | None) -> None:
        """Tell that it was closed within *duration* seconds, or what went wrong."""
        name = self.recipe.name
        if error is None:
            self.observe(ResourceClosed(name, duration))
        else:
            self.record.error = error
            self.observe(CloseFailed(name, error))

    def crashed(self, error: Exception) -> None:
        """Tell that its context manager ended while it was up."""
        self.observe(ResourceCrashed(self.recipe.name, error))

    def _nobody_uses_it(self) -> bool:
        users: list[Place] = list(self.deep_dependents())
        if self.stopping:
            users += [*self.dependents, *self.outlives]
        return not any(user.is_busy for user in users)

    # What follows from an attempt

    async def _next(self, failure: Exception | None) -> bool:
        """Decide what follows, and wait for it; ``False``: nothing."""
        if self._told_to_requeue or failure is None:
            self._back_to_the_queue()
            return True
        self.record.error = failure
        number = self._series.attempt
        wait = self._wait_after(failure)
        if wait is None:
            error = self.record.error
            self._give_up(error, number, permanent=is_permanent(error))
            return False
        await self._wait(self._why_it_waits(number, failure, wait), wait)
        return True

    def _wait_after(self, failure: Exception) -> float | None:
        try:
            if self._was_up_for_long():
                self._series = Series(self.recipe.retry)
                return self._series.wait_uncounted(failure)
            return self._series.next_wait(failure)
        except Exception as mistake:  # in a strategy of the user's own
            mistake.__context__ = failure
            self.record.error = mistake
            return None

    def _was_up_for_long(self) -> bool:
        """Whether it came down for reasons of its own time, and so is not counted."""
        came_down = self.record.phase is ResourcePhase.CLOSING
        return came_down and anyio.current_time() - self._up_since >= LONG_ENOUGH

    def _why_it_waits(self, number: int, failure: Exception, seconds: float) -> Event:
        name = self.recipe.name
        if self.record.phase is ResourcePhase.CLOSING:
            return ResourceReopening(name, seconds)
        unexpected = number == 1 and is_unexpected(failure)
        return AttemptFailed(name, number, failure, seconds, unexpected)

    async def _wait(self, reason: Event, seconds: float) -> None:
        self.record.next_attempt_at = monotonic() + seconds
        self.record.handle(ResourceTrigger.RETRY)
        self.observe(reason)
        with anyio.move_on_after(seconds):
            await self._bell.wait_until(self._is_woken)
        self.record.next_attempt_at = None
        if self._told_to_requeue:
            self._back_to_the_queue()

    def _is_woken(self) -> bool:
        return self.is_told_to_close() or self._told_to_hurry

    def _back_to_the_queue(self) -> None:
        self._told_to_requeue = False
        self._series = Series(self.recipe.retry)
        self.record.handle(ResourceTrigger.REQUEUE)

    def _give_up(self, error: Exception, attempts: int, *, permanent: bool) -> None:
        self.record.error = error
        self.record.handle(ResourceTrigger.GIVE_UP)
        name, required = self.recipe.name, self.recipe.required
        self.observe(ResourceGaveUp(name, attempts, error, permanent, required))
        self.tell_it_is_lost()

    # Small change

    def _tell_it_is_back(self) -> None:
        self.ring(self.deep_dependents())

    def _disturb(self) -> None:
        if self._attempt is not None:
            self._attempt.interrupt()
        self._bell.ring()
