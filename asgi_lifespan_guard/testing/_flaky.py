"""`Flaky`: a resource that does what a test says, when the test says so."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
from tenacity import wait_none

from .._resources.checks import Check, Then
from .._resources.resource import Resource, resource
from .._resources.retry import Retry
from .._tasks.backend import Schedule, scheduler
from .._tasks.groups import transparent_task_group
from .._tasks.waiting import Waiters


AT_ONCE = Retry(wait=wait_none())


class Flaky:
    """A resource whose attempts to open follow a script.

    Made anywhere, used on one event loop after another. What is asked of it from
    another thread, such as a sync test's beside ``TestClient``, happens soon after.

    Args:
        outcomes: One for each attempt: an exception to raise, or a value. Before them
            there may be events (anyio's, asyncio's or trio's): the attempt waits until
            they are set. After the last one every attempt gives the last value again,
            which is ``None`` if there was none.
        name: The recipe's.
        every: Seconds between two checks, roughly.
        failures: How many bad answers in a row take it down.
        successes: How many good ones bring it back.
        then: What becomes of it when it is down, as in `Check`.
        options: More of what `resource` takes. ``retry`` is without a wait unless it
            is given, and, as with any resource, ``None`` for a blocking one.

    Attributes:
        recipe: The resource, for ``resources=`` or for `override`.
        attempts: How many were made.
        opened: How often it has come up.
        closed: How often it was left again, crashed or not.
        checks: How often it was asked.
    """

    def __init__(
        self,
        *outcomes: Any,
        name: str = "flaky",
        every: float = 0.01,
        failures: int = 1,
        successes: int = 1,
        then: Then = "report",
        **options: Any,
    ) -> None:
        self.attempts = self.opened = self.closed = self.checks = 0
        self._script = deque(outcomes)
        self._value: Any = None
        self._check_error: Exception | None = None
        self._crash: _Crash | None = None
        self._news = Waiters()
        if options.get("startup") != "blocking":
            options.setdefault("retry", AT_ONCE)
        check = Check(
            self._check, every=every, failures=failures, successes=successes, then=then
        )
        self.recipe: Resource[Any] = resource(
            self._open, name=name, check=check, **options
        )

    @property
    def is_open(self) -> bool:
        """Whether it is open now."""
        return self.opened > self.closed

    def crash(self, error: Exception | None = None) -> None:
        """Have its context manager raise *error* while it is up.

        Raises:
            RuntimeError: When it is not open.
        """
        if self._crash is None:
            raise RuntimeError("what is not open cannot crash; wait until it is_open")
        self._crash.order(error or ConnectionResetError("crashed, as told by a test"))

    def fail_checks(self, error: Exception | None = None) -> None:
        """Have every check raise *error* from now on, the first one included."""
        self._check_error = error or ConnectionError("failed, as told by a test")

    def recover(self) -> None:
        """Have checks pass again, and attempts succeed.

        What is left of the script is forgotten, but for its last value.
        """
        self._check_error = None
        while self._script:
            self._note(self._script.popleft())

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Return once *condition* holds, on the event loop that it runs on.

        Asked again after each attempt, opening, closing and check.
        """
        await self._news.wait_until(lambda: bool(condition()))

    async def _open(self, *_needs: Any) -> AsyncGenerator[Any, None]:
        self.attempts += 1
        self._news.wake()
        value = await self._next_outcome()
        crash = self._crash = _Crash(scheduler())
        self.opened += 1
        self._news.wake()
        try:
            async with transparent_task_group() as group:
                group.start_soon(crash.happen)
                try:
                    yield value
                finally:
                    group.cancel_scope.cancel()
        finally:
            self._crash = None
            self.closed += 1
            self._news.wake()

    async def _next_outcome(self) -> Any:
        while self._script and _is_event(self._script[0]):
            await self._script.popleft().wait()
        if self._script:
            outcome = self._script.popleft()
            self._note(outcome)
            if isinstance(outcome, Exception):
                raise outcome
        return self._value

    def _note(self, outcome: Any) -> None:
        if not isinstance(outcome, Exception) and not _is_event(outcome):
            self._value = outcome

    async def _check(self, _value: Any) -> None:
        self.checks += 1
        self._news.wake()
        if self._check_error is not None:
            raise self._check_error


class _Crash:
    """The end of one opening, ordered from any thread."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._ordered = anyio.Event()
        self._error: Exception | None = None

    def order(self, error: Exception) -> None:
        self._error = error
        self._schedule(self._ordered.set)

    async def happen(self) -> None:
        await self._ordered.wait()
        assert self._error is not None
        raise self._error


def _is_event(outcome: Any) -> bool:
    waits = inspect.iscoroutinefunction(getattr(type(outcome), "wait", None))
    return waits and hasattr(outcome, "is_set")
