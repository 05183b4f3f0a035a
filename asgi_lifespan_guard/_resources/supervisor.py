"""Opens resources in order, closes them in reverse, and goes on after errors.

Start-up time is the critical path: an owner begins as soon as its needs are up. The
stop is the same walk backwards: an owner closes as soon as nobody uses its resource.
No order is computed; it follows from what each owner waits for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from anyio.lowlevel import checkpoint_if_cancelled

from .._errors import CloseFailedError, StartupFailedError, StopRequestedError
from .._phases import ResourcePhase
from .._report import OPEN, ResourceReport
from .._tasks.groups import LastingTasks
from .._tasks.waiting import Waiters
from .closing import Closing
from .graph import connect, due_in
from .owner import Owner
from .resource import Resource
from .upcalls import Upcalls


class Supervisor:
    """One run of a set of resources, from the first attempt to the last close.

    Made in the task that holds the run.

    Args:
        recipes: What to open; checked already.
        upcalls: Told of every event, of values that come and go, and of changes.
        news: Woken by ``upcalls.changed``, and by what else may be waited for.
    """

    def __init__(
        self, recipes: Sequence[Resource[Any]], upcalls: Upcalls, news: Waiters
    ) -> None:
        self._changed_above = upcalls.changed
        self._closing = Closing()
        self._news = news
        self._begun: list[Owner] = []
        self._tasks = LastingTasks(news.wake)
        self._stop_reason: str | None = None
        self._owners = {
            recipe.name: Owner(recipe, self._closing, upcalls, self._moved)
            for recipe in recipes
        }
        self._away = set(self._owners)
        self._withheld: dict[str, set[str]] = {}
        connect(self._owners)

    @property
    def names(self) -> AbstractSet[str]:
        """The names of its resources."""
        return self._owners.keys()

    def report(self) -> tuple[ResourceReport, ...]:
        """Return one report for each resource, in the order of registration."""
        now = monotonic()
        return tuple(owner.report(now) for owner in self._owners.values())

    def are_open(self, names: AbstractSet[str]) -> bool:
        """Whether requests may use the values of all *names* now."""
        held = any(not kept.isdisjoint(names) for kept in self._withheld.values())
        return not held and self._away.isdisjoint(names)

    def due_in(self, names: Iterable[str]) -> float:
        """Return the least number of seconds until *names* may all be up; or inf."""
        return due_in([self._owners[name] for name in names], monotonic())

    def retry_now(self) -> None:
        """Cut short every wait for a next attempt."""
        for owner in self._owners.values():
            owner.hurry()

    def suspect(self, names: Iterable[str], error: BaseException | None) -> None:
        """Ask *names*, and what they need, soon how they are.

        Args:
            names: Of resources; those of others are none of its business.
            error: Why; asked are those that it may be about. ``None``: no matter.
        """
        for owner in self._and_needs(names):
            check = owner.recipe.check
            if check is not None and (error is None or check.is_about(error)):
                owner.suspect()

    def _and_needs(self, names: Iterable[str]) -> set[Owner]:
        owners = [self._owners[name] for name in names if name in self._owners]
        return {*owners, *(need for owner in owners for need in owner.all_needs())}

    def abort(self, reason: str) -> None:
        """End a startup that is still opening blocking resources."""
        self._stop_reason = reason
        self._news.wake()

    def expect_closing(self, *, cancelled: bool) -> None:
        """Note that the stop has come, and whether by a cancellation."""
        self._closing.expect(cancelled=cancelled)

    def close_by(self, deadline: float) -> None:
        """Have everything closed by *deadline*, on the event loop's clock."""
        self._closing.end_by(deadline)

    def time_to_close(self, name: str) -> float:
        """Return the seconds that the resource called *name* may take to close."""
        return self._closing.time_for(self._owners[name])

    @asynccontextmanager
    async def running(self, timeout: float) -> AsyncGenerator[Callable[[], None], None]:
        """Open the blocking resources; close everything when left.

        Args:
            timeout: Seconds for closing everything.

        Yields:
            A callable that lets the background resources begin.

        Raises:
            StartupFailedError: When a required blocking resource gave up.
            StopRequestedError: When `abort` was called before they were up.
            CloseFailedError: When not everything was closed cleanly.
        """
        async with self._tasks.held():
            try:
                self._begin("blocking")
                await self._blocking_resources_open()
                yield lambda: self._begin("background")
            finally:
                await self._close_all(timeout)
        for owner in self._begun:
            owner.end()
            owner.error = None
        failures, self._closing.failures = self._closing.failures, {}
        if failures:
            raise CloseFailedError(failures)

    def _moved(self, name: str, new: ResourcePhase) -> None:
        if new in OPEN:
            self._away.discard(name)
        else:
            self._away.add(name)
        owner = self._owners[name]
        if owner.is_withheld:
            kept = (node for node in owner.all_dependents() if not node.is_skipped)
            self._withheld[name] = {name, *(node.recipe.name for node in kept)}
        else:
            self._withheld.pop(name, None)
        self._changed_above()

    def _begin(self, startup: str) -> None:
        for owner in self._owners.values():
            if owner.recipe.startup == startup:
                self._begun.append(owner)
                self._tasks.start(owner.run, f"open {owner.recipe.name}")

    async def _blocking_resources_open(self) -> None:
        await self._news.wait_until(self._startup_is_decided)
        await checkpoint_if_cancelled()  # Owners may have been told of it before us.
        failed = self._failed_at_startup()
        if failed is not None:
            raise _startup_failure(failed)
        if self._stop_reason is not None:
            raise StopRequestedError(self._stop_reason)

    def _startup_is_decided(self) -> bool:
        if self._stop_reason is not None or self._failed_at_startup() is not None:
            return True
        return all(owner.is_open or owner.is_lost for owner in self._blocking())

    def _failed_at_startup(self) -> Owner | None:
        lost = (o for o in self._blocking() if o.recipe.required and o.is_lost)
        return next(lost, None)

    def _blocking(self) -> Iterable[Owner]:
        return (o for o in self._owners.values() if o.recipe.startup == "blocking")

    async def _close_all(self, timeout: float) -> None:
        self._closing.begin(timeout)
        for owner in self._owners.values():
            owner.look_again()
        await self._news.wait_through(lambda: not self._tasks)


def _startup_failure(owner: Owner) -> StartupFailedError:
    cause = owner.error or RuntimeError("the task that opens it was cancelled")
    failure = StartupFailedError(owner.recipe.name, owner.attempts, cause)
    failure.__cause__ = cause
    return failure
