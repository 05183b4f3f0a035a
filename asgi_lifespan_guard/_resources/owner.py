"""The one task that opens a resource, holds it open and closes it.

Whoever wants something of a resource changes what its owner looks at and wakes it;
only the owner acts. What it may do next is read from its phase, from the phases of its
needs, and from whether everything is being closed; no wish is kept beside them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from .._errors import CloseTimeoutError, CrashedError, NeedGaveUpError
from .._phases import ResourcePhase, ResourceTrigger
from .._redaction import describe, leaves
from .._report import SATISFIED, ResourceReport
from .._tasks.backend import must_pass, now
from .._tasks.waiting import Waiters
from ..events import (
    AttemptFailed,
    CheckFailed,
    CloseFailed,
    Event,
    ResourceClosed,
    ResourceCrashed,
    ResourceDown,
    ResourceGaveUp,
    ResourceOpened,
    ResourcePhaseChanged,
    ResourceRecovered,
    ResourceReopening,
    ResourceSkipped,
)
from .checks import Asker, Change, Check, Watch
from .closing import Closing
from .graph import Node
from .opening import Attempt, OpeningInterruptedError
from .resource import Resource
from .retry import Series, is_permanent, is_unexpected
from .upcalls import Upcalls


class Owner(Node):
    """One resource, running.

    Args:
        recipe: What it opens.
        closing: Whether everything is being closed, and by when.
        upcalls: Who is told.
        moved: Called with its name and its new phase after each change.

    Attributes:
        attempts: How many attempts were made to open it.
        error: The last failure; forgotten when it is up.
    """

    def __init__(
        self,
        recipe: Resource[Any],
        closing: Closing,
        upcalls: Upcalls,
        moved: Callable[[str, ResourcePhase], None],
    ) -> None:
        super().__init__(recipe, self._moved)
        self.attempts = 0
        self.error: BaseException | None = None
        self._closing = closing
        self._upcalls = upcalls
        self._observe = upcalls.observe
        self._tell_supervisor = moved
        self._waiters = Waiters()
        self._attempt: Attempt | None = None
        self._thread: Any = None
        self._asker = Asker(recipe.name, recipe.check) if recipe.check else None
        self._series = Series(recipe.retry)
        self._up_since = 0.0
        self._since = time.time()
        self._opened_in: float | None = None
        self._last_error: str | None = None

    @property
    def is_busy(self) -> bool:
        """Whether an attempt is on, and uses the values of its needs."""
        return self._attempt is not None

    def report(self, now: float) -> ResourceReport:
        """Return a snapshot, at *now* on the clock of `time.monotonic`."""
        recipe, due = self.recipe, self.next_attempt_at
        failed = self.phase is ResourcePhase.FAILED
        return ResourceReport(
            name=recipe.name,
            phase=self.phase,
            required=recipe.required,
            startup=recipe.startup,
            attempts=self.attempts,
            last_error=self._last_error,
            next_attempt_in=None if due is None else max(0.0, due - now),
            since=self._since,
            opened_in=self._opened_in,
            was_up=self._opened_in is not None or self.phase is ResourcePhase.SKIPPED,
            fatal=failed and recipe.on_give_up == "exit",
        )

    # What others ask of it

    def look_again(self) -> None:
        """Act on what has changed: a need went down, or everything is being closed."""
        attempt = self._attempt
        if attempt is not None and self._is_to_close():
            seconds = self._closing.time_for(self)
            if self.phase is ResourcePhase.OPENING:
                attempt.interrupt(seconds)
            elif attempt.is_closing:
                attempt.close_within(seconds)
            elif attempt.asker is not None:
                attempt.asker.interrupt(seconds / 2)  # The rest is for closing.
        self._waiters.wake()

    def hurry(self) -> None:
        """Cut short the wait for the next attempt: the one that is on, or to come."""
        if self.phase is ResourcePhase.WAITING:
            self.next_attempt_at = None
            self._waiters.wake()
        elif self.phase is ResourcePhase.OPENING:
            self._series.hurry()

    def suspect(self) -> None:
        """Ask it soon how it is, if it is up and has a check."""
        watch = None if self._attempt is None else self._attempt.watch
        if watch is not None and watch.suspect(now()):
            self._waiters.wake()

    # The task

    async def run(self) -> None:
        """Open it, hold it, close it; return when it is over."""
        try:
            if self._is_enabled():
                while await self._needs_are_up():
                    await self._live_once()
        except asyncio.CancelledError as error:
            if not self._closing.is_on:
                self._break_off(_cancelled_by_a_stranger(error))
            raise
        except Exception as error:
            self._break_off(error)
        finally:
            self.end()
            self._tell_dependents()

    def end(self) -> None:
        """Close what has come to no end yet; its task may never have begun.

        The report stays, and nothing that would keep what was opened alive.
        """
        if self._life.allows(ResourceTrigger.CLOSED):
            self._life.handle(ResourceTrigger.CLOSED)
        self._thread = self._asker = None

    def _break_off(self, error: BaseException) -> None:
        """Give up for a mistake that is nobody's but ours, or for a stranger's."""
        if self._life.allows(ResourceTrigger.GIVE_UP):
            self._give_up(error, self.attempts, permanent=True)

    def _is_enabled(self) -> bool:
        enabled = self.recipe.enabled
        try:
            wanted = enabled() if callable(enabled) else enabled
        except BaseException as error:
            if must_pass(error):
                raise
            self._give_up(error, 0, permanent=True)
            return False
        if not wanted:
            self._life.handle(ResourceTrigger.SKIP)
            self._observe(ResourceSkipped(self.recipe.name))
            self._tell_dependents()
        return bool(wanted)

    async def _needs_are_up(self) -> bool:
        """Wait for them; ``False``: it is not to be opened any more."""
        if self.phase is ResourcePhase.FAILED:
            return False
        if self.attempts:
            await checkpoint()  # Or attempts that never await would hold the loop.
        await self._waiters.wait_until(self._needs_are_settled)
        if self._closing.has_begun:
            return False
        lost = self._lost_need()
        if lost is not None:
            error = NeedGaveUpError(self.recipe.name, lost.recipe.name)
            self._give_up(error, self.attempts, permanent=True)
        return lost is None

    def _needs_are_settled(self) -> bool:
        return (
            self._closing.has_begun
            or self._lost_need() is not None
            or self._needs_are_satisfied()
        )

    def _needs_are_satisfied(self) -> bool:
        return all(need.phase in SATISFIED for need in self.deep_needs())

    def _lost_need(self) -> Owner | None:
        for need in self.deep_needs():
            if need.is_lost:
                return need
        return None

    async def _live_once(self) -> None:
        """Make one attempt, and wait for the next where one is to follow."""
        failure = await self._make_attempt()
        told = failure is None or self.phase is ResourcePhase.CLOSING
        if self._closing.has_begun and told:
            return
        if failure is None or self._a_need_is_closing():
            self._back_to_pending(failure)
        else:
            await self._retry_or_give_up(failure)

    # One attempt

    async def _make_attempt(self) -> BaseException | None:
        """Open it, hold what it gives, close it.

        Returns:
            Why it failed, or came down by itself; ``None`` when it was told to end.
        """
        self.attempts += 1
        number = self._series.begin()
        attempt = Attempt(self.recipe, number, self._thread, self._asker)
        self._attempt = attempt
        try:
            self._life.handle(ResourceTrigger.OPEN)
            await self._open_and_hold(attempt)
        except OpeningInterruptedError as interruption:
            self._tell_of_failed_close(interruption.__cause__)
            return None
        except BaseException as error:
            if must_pass(error):
                self._tell_it_closed(attempt, _ends_all(error) or attempt.hidden())
                raise
            return self._outcome_of(attempt, error)
        finally:
            self._attempt = None
            self._thread = attempt.thread
            self._let_go()
        return self._outcome_of(attempt, None)

    async def _open_and_hold(self, attempt: Attempt) -> None:
        began = now()
        values = [need.value for need in self.needs]
        async with attempt.opened(values) as value:
            try:
                self._came_up(attempt, value, now() - began)
                await self._hold(attempt, value)
            except BaseException:
                if self.is_open and not self._closing.is_on:
                    self._tell_it_is_down(attempt, CrashedError(self.recipe.name))
                raise
            finally:
                if self.is_open:  # Else what it gave could not even be shown.
                    await self._step_down(attempt)

    def _came_up(self, attempt: Attempt, value: Any, duration: float) -> None:
        """Let others use *value*."""
        self.is_step = attempt.is_step
        self.value = value
        self._up_since = now()
        self._opened_in = duration
        self._fail(None)
        self._upcalls.publish(self.recipe, value)
        self._life.handle(ResourceTrigger.OPENED)
        number = self._series.attempt
        self._observe(ResourceOpened(self.recipe.name, number, duration))
        self._tell_dependents()

    async def _step_down(self, attempt: Attempt) -> None:
        """Let go of everything that uses it, before it is closed."""
        self._upcalls.withdraw(self.recipe)  # First: a change looks at what is open.
        self._life.handle(ResourceTrigger.CLOSE)
        self._tell_dependents()
        try:
            await self._waiters.wait_through(self._nobody_uses_it)
        finally:
            self.value = None
            attempt.close_within(self._closing.time_for(self))

    def _nobody_uses_it(self) -> bool:
        users = list(self.deep_dependents())
        if self._closing.is_on:
            if not self._closing.has_begun:
                return False  # Requests in flight are let out first.
            users += [*self.dependents, *self.outlives]
        return not any(user.is_busy for user in users)

    def _is_to_close(self) -> bool:
        return self._closing.has_begun or self._a_need_is_closing()

    def _a_need_is_closing(self) -> bool:
        if self.outlasts_its_needs():
            return False
        return any(n.phase is ResourcePhase.CLOSING for n in self.deep_needs())

    # While it is up

    async def _hold(self, attempt: Attempt, value: Any) -> None:
        """Return when it is to be closed; ask it meanwhile how it is."""
        check, asker = self.recipe.check, attempt.asker
        if check is None or asker is None:
            await self._waiters.wait_until(self._is_to_close)
            return
        attempt.watch = watch = Watch(check, self.recipe.retry, now())
        while not self._is_to_close() and attempt.failure is None:
            await self._check_is_due(watch)
            if not self._is_to_close():
                error = await asker.ask(value, threaded=attempt.is_threaded)
                self._judge(attempt, check, watch, error)

    async def _check_is_due(self, watch: Watch) -> None:
        """Wait for the next check, which a suspicion may bring forward, or the end."""
        while not self._is_to_close() and (left := watch.due - now()) > 0:
            due = watch.due
            if watch.failing:
                self.next_attempt_at = time.monotonic() + left
            try:
                with anyio.move_on_after(left):
                    await self._waiters.wait_until(
                        lambda: self._is_to_close() or watch.due < due  # noqa: B023
                    )
            finally:
                self.next_attempt_at = None

    def _judge(
        self, attempt: Attempt, check: Check, watch: Watch, error: BaseException | None
    ) -> None:
        if self._is_to_close():
            return
        change = watch.count(error, now())
        if error is not None:
            self._observe(CheckFailed(self.recipe.name, error, watch.in_a_row))
            if change is Change.DOWN:
                self._handle_failing(attempt, check, error)
        elif change is Change.RECOVERED:
            self._fail(None)
            self._life.handle(ResourceTrigger.RECOVERED)
            self._observe(ResourceRecovered(self.recipe.name))
            self._tell_dependents()

    def _handle_failing(
        self, attempt: Attempt, check: Check, error: BaseException
    ) -> None:
        self._fail(error)
        self._life.handle(ResourceTrigger.CHECK_FAILED)
        if check.then == "reopen":
            attempt.failure = error
        self._observe(ResourceDown(self.recipe.name, error))
        self._tell_dependents()

    # What is told of how it ended

    def _tell_it_is_down(self, attempt: Attempt, error: BaseException) -> None:
        attempt.failure = error
        self._fail(error)
        self._observe(ResourceDown(self.recipe.name, error))

    def _outcome_of(
        self, attempt: Attempt, error: BaseException | None
    ) -> BaseException | None:
        if self.phase is ResourcePhase.OPENING:
            return error
        return self._tell_it_closed(attempt, error)

    def _tell_it_closed(
        self, attempt: Attempt, error: BaseException | None
    ) -> BaseException | None:
        """Tell of a resource that was up; return why it came down by itself, if so."""
        if self.phase is not ResourcePhase.CLOSING:
            return None
        if isinstance(attempt.failure, CrashedError):
            return self._tell_of_crash(error, attempt.failure)
        if error is None:
            self._observe(ResourceClosed(self.recipe.name, attempt.closing_took()))
        else:
            self._tell_of_failed_close(error)
        return attempt.failure

    def _tell_of_crash(
        self, error: BaseException | None, failure: BaseException
    ) -> BaseException:
        """Tell why it came down, now that its context manager has been left."""
        if isinstance(error, CloseTimeoutError):
            self._tell_of_failed_close(error)
            error = error.__cause__
        failure = error or failure
        self._fail(failure)
        self._observe(ResourceCrashed(self.recipe.name, failure))
        return failure

    def _tell_of_failed_close(self, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)
            self._closing.failed(self.recipe.name, error)
            self._observe(CloseFailed(self.recipe.name, error))

    # What follows from an attempt

    async def _retry_or_give_up(self, failure: BaseException) -> None:
        """Wait for the next attempt, if there is to be one."""
        self._fail(failure)
        number = self._series.attempt
        try:
            wait = self._wait_after(failure)
        except BaseException as mistake:  # in a strategy of the user's own
            if must_pass(mistake):
                raise
            mistake.__context__ = failure
            failure, wait = mistake, None
        if wait is None:
            self._give_up(failure, number, permanent=is_permanent(failure))
        else:
            await self._wait(self._why_it_waits(number, failure, wait), wait)

    def _wait_after(self, failure: BaseException) -> float | None:
        if self.phase is not ResourcePhase.CLOSING:
            return self._series.next_wait(failure)
        self._series = self._series.after_fall(now() - self._up_since)
        return self._series.wait_after_fall(failure)

    def _why_it_waits(
        self, number: int, failure: BaseException, seconds: float
    ) -> Event:
        name = self.recipe.name
        if self.phase is ResourcePhase.CLOSING:
            return ResourceReopening(name, seconds)
        unexpected = number == 1 and is_unexpected(failure)
        return AttemptFailed(name, number, failure, seconds, unexpected)

    async def _wait(self, reason: Event, seconds: float) -> None:
        self.next_attempt_at = time.monotonic() + seconds
        self._life.handle(ResourceTrigger.RETRY)
        self._observe(reason)
        try:
            with anyio.move_on_after(seconds):
                await self._waiters.wait_until(self._is_woken)
        finally:
            self.next_attempt_at = None
        if not self._closing.has_begun and not self._needs_are_satisfied():
            self._back_to_pending()

    def _is_woken(self) -> bool:
        hurried = self.next_attempt_at is None
        return hurried or self._closing.has_begun or not self._needs_are_satisfied()

    def _back_to_pending(self, failure: BaseException | None = None) -> None:
        """Wait for its needs; a *failure* while one went down does not count."""
        if failure is not None and self.phase is ResourcePhase.OPENING:
            self._observe(self._why_it_waits(self._series.attempt, failure, 0.0))
        self._series = Series(self.recipe.retry)
        self._life.handle(ResourceTrigger.REQUEUE)

    def _give_up(self, error: BaseException, attempts: int, *, permanent: bool) -> None:
        self._fail(error)
        self._life.handle(ResourceTrigger.GIVE_UP)
        name, required = self.recipe.name, self.recipe.required
        event = ResourceGaveUp(name, attempts, error, permanent, required)
        self._observe(event)
        self._upcalls.gave_up(self.recipe)
        self._tell_dependents()

    # Small change

    def _moved(self, old: ResourcePhase, new: ResourcePhase) -> None:
        self._since = time.time()
        self._tell_supervisor(self.recipe.name, new)
        self._observe(ResourcePhaseChanged(self.recipe.name, old, new))

    def _fail(self, error: BaseException | None) -> None:
        self.error = error
        self._last_error = None if error is None else describe(error)

    def _tell_dependents(self) -> None:
        """Have them look at what has changed; at a stop they have been told already."""
        if not self._closing.has_begun:
            for owner in self.deep_dependents():
                owner.look_again()

    def _let_go(self) -> None:
        """Wake those who wait with their closing until it does not use them."""
        waiting: list[Owner] = [*self.deep_needs(), *self.outlived_by]
        for owner in waiting:
            if owner.phase is ResourcePhase.CLOSING:
                owner._waiters.wake()


def _ends_all(error: BaseException) -> BaseException | None:
    """Return *error*, if it was to end the process and not only the task."""
    ends = (SystemExit, KeyboardInterrupt)
    return error if any(isinstance(leaf, ends) for leaf in leaves(error)) else None


def _cancelled_by_a_stranger(error: BaseException) -> RuntimeError:
    failure = RuntimeError("the task that owns it was cancelled from outside")
    failure.__cause__ = error
    return failure
