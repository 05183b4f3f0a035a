"""Opens resources in order, closes them in reverse, and goes on after errors.

Start-up time is the critical path: an owner begins as soon as its needs are up. The
stop is the same walk backwards: an owner closes as soon as nobody uses its resource.
No order is computed; it follows from what each owner waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled

from .._errors import StartupFailedError, StopRequestedError
from .._report import ResourceReport
from .._tasks.backend import on_trio
from .._tasks.bell import Bell
from .._tasks.groups import transparent_task_group
from ..events import Event
from .owner import Owner
from .place import Place
from .resource import Resource


class Audience(Protocol):
    """Who is told what happens to the resources."""

    def observe(self, event: Event, /) -> None: ...
    def publish(self, recipe: Resource[Any], value: Any, /) -> None: ...
    def withdraw(self, recipe: Resource[Any], /) -> None: ...


class Supervisor:
    """One run of a set of resources, from the first attempt to the last close.

    Args:
        recipes: What to open; checked already.
        audience: Told of every event, and of values that come and go.
        first_to_close: Name of the resource that is closed before all that it does
            not need to outlive, whether it needs them or not: the app's own lifespan.
    """

    def __init__(
        self,
        recipes: Sequence[Resource[Any]],
        audience: Audience,
        first_to_close: str | None = None,
    ) -> None:
        self._closing = False
        self._host: asyncio.Task[Any] | None = None
        self._audience = audience
        self.publish = audience.publish
        self.withdraw = audience.withdraw
        self._bell = Bell()
        self._deadline = float("inf")
        self._latest = float("inf")
        self._running = 0
        self._stop_reason: str | None = None
        self._owners = {recipe.name: Owner(recipe, self) for recipe in recipes}
        self._connect(first_to_close)

    @property
    def stopping(self) -> bool:
        """Whether everything is being closed, or is about to be.

        ``asyncio.run`` cancels all tasks at once when it ends, and it is chance whether
        an owner or its host wakes first.
        """
        return self._closing or (self._host is not None and self._host.cancelling() > 0)

    @property
    def names(self) -> frozenset[str]:
        """The names of its resources."""
        return frozenset(self._owners)

    def report(self) -> tuple[ResourceReport, ...]:
        """Return one report for each resource, in the order of registration."""
        now = monotonic()
        return tuple(owner.record.report(now) for owner in self._owners.values())

    def are_open(self, names: Iterable[str]) -> bool:
        """Whether the values of all *names* can be used now."""
        return all(self._owners[name].record.is_open for name in names)

    def due_in(self, names: Iterable[str]) -> float:
        """Return the least number of seconds until *names* may all be up; or inf."""
        now, known = monotonic(), dict[Place, float]()
        due = (self._owners[name].due_in(now, known) for name in names)
        return max(due, default=0.0)

    def retry_now(self) -> None:
        """Cut short every wait for a next attempt."""
        for owner in self._owners.values():
            owner.hurry()

    def abort(self, reason: str) -> None:
        """End a startup that is still opening blocking resources."""
        self._stop_reason = reason
        self._bell.ring()

    def close_by(self, deadline: float) -> None:
        """Have everything closed by *deadline*, on the event loop's clock."""
        self._latest = deadline

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
        """
        self._host = None if on_trio() else asyncio.current_task()
        async with transparent_task_group() as group:
            try:
                self._begin(group, "blocking")
                await self._blocking_resources_open()
                yield lambda: self._begin(group, "background")
            finally:
                await self._close_all(timeout)

    def observe(self, event: Event) -> None:
        """Pass *event* on, and look again, because a phase may have changed."""
        self._audience.observe(event)
        self._bell.ring()

    def time_to_close(self, wanted: float) -> float:
        """Return the seconds that a resource may take to close, *wanted* at most."""
        return max(0.0, min(wanted, self._deadline - anyio.current_time()))

    def _connect(self, first_to_close: str | None) -> None:
        for owner in self._owners.values():
            owner.needs = [self._owners[need.name] for need in owner.recipe.needs]
            for need in owner.needs:
                need.dependents.append(owner)
        if first_to_close is not None:
            self._close_first(self._owners[first_to_close])

    def _close_first(self, first: Owner) -> None:
        spared = {first, *first.all_dependents()}
        for owner in self._owners.values():
            if owner not in spared:
                owner.outlives.append(first)
                first.outlived_by.append(owner)

    def _begin(self, group: TaskGroup, startup: str) -> None:
        for owner in self._owners.values():
            if owner.recipe.startup == startup:
                self._running += 1
                group.start_soon(self._run, owner, name=f"open {owner.recipe.name}")

    async def _run(self, owner: Owner) -> None:
        try:
            await owner.run()
        except asyncio.CancelledError:
            # The task ends here anyway. As cancelled it would take the group along,
            # and whoever holds that would seem to have been cancelled, too.
            return
        finally:
            self._running -= 1
            self._bell.ring()

    async def _blocking_resources_open(self) -> None:
        await self._bell.wait_until(self._startup_is_decided)
        await checkpoint_if_cancelled()  # Owners may have been told of it before us.
        failed = self._failed_at_startup()
        if failed is not None:
            raise _startup_failure(failed)
        if self._stop_reason is not None:
            raise StopRequestedError(self._stop_reason)

    def _startup_is_decided(self) -> bool:
        if self._stop_reason is not None or self._failed_at_startup() is not None:
            return True
        records = [owner.record for owner in self._blocking()]
        return all(record.is_satisfied or record.is_lost for record in records)

    def _failed_at_startup(self) -> Owner | None:
        failed = (
            owner
            for owner in self._blocking()
            if owner.recipe.required and owner.record.is_lost
        )
        return next(failed, None)

    def _blocking(self) -> Iterable[Owner]:
        return (o for o in self._owners.values() if o.recipe.startup == "blocking")

    async def _close_all(self, timeout: float) -> None:
        self._deadline = min(anyio.current_time() + timeout, self._latest)
        self._closing = True
        for owner in self._owners.values():
            owner.stop()
        with anyio.CancelScope(shield=True):
            await self._bell.wait_until(lambda: self._running == 0)


def _startup_failure(owner: Owner) -> StartupFailedError:
    cause = owner.record.error or RuntimeError("the task that opens it was cancelled")
    failure = StartupFailedError(owner.recipe.name, owner.record.attempts, cause)
    failure.__cause__ = cause
    return failure
