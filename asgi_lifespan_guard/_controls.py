"""What users may ask of a guard, and tell it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._asgi.state import StateBoard
from ._asgi.types import Scope
from ._lifetime import Lifetime
from ._phases import Phase
from ._plan import Plan
from ._report import Report
from ._state import HasScope, scope_of
from ._tasks.notice import Notice


class Controls:
    """The members of `LifespanGuard` that are not about serving a scope.

    Attributes:
        draining: Given when the drain begins; has ``is_set()`` and ``wait()``, for
            handlers that want to say goodbye themselves.
    """

    draining: Notice
    _plan: Plan
    _board: StateBoard
    _life: Lifetime

    @property
    def phase(self) -> Phase:
        """Where the guard stands in its life."""
        return self._life.phase

    @property
    def ready(self) -> bool:
        """Whether traffic should come: serving, and every required resource up."""
        return self.report().ready

    @property
    def state(self) -> Mapping[str, Any]:
        """The values of all resources that are up now, by name."""
        return self._board.values

    def report(self) -> Report:
        """Return a photograph of the guard and of every resource."""
        return self._life.report()

    def begin_drain(self, reason: str = "begin_drain()") -> None:
        """Begin the drain, as a signal would; on the event loop's own thread.

        For servers to which no signal comes (hypercorn's default worker, a server in
        a thread): call it from a route for a preStop hook. Returns at once, and does
        nothing where a drain is on, or the guard does not serve.

        Args:
            reason: Told to observers.
        """
        delay = 0.0 if self._plan.drain is None else self._plan.drain.delay
        self._life.drain_by_hand(reason, delay)

    async def wait_drain(self, source: HasScope | Scope | None = None) -> None:
        """Wait until a drain has begun and nothing is in flight any more.

        It is a fit ``shutdown_trigger`` for hypercorn.

        Args:
            source: The request that waits, and which therefore is not waited for.
                Not needed where it waits in the very task that the server started.
        """
        key = self._life.exchanges.key_of(scope_of(source))
        await self._life.drainer.wait_over(key)

    def pause(self, reason: str) -> None:
        """Withhold readiness (and nothing else) until `resume`, because of *reason*."""
        self._life.pause(reason)

    def resume(self) -> None:
        """Take `pause` back."""
        self._life.resume()

    def retry_now(self) -> None:
        """Cut short every resource's wait for its next attempt."""
        self._life.retry_now()

    async def wait_ready(self, timeout: float) -> None:
        """Wait until the guard is ready, for *timeout* seconds at most.

        Raises:
            NotReadyError: When it is not by then; names what is missing.
        """
        await self._life.wait_ready(timeout)
