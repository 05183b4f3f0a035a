"""The drain: what happens between the first signal and the closing of resources.

A third floor of the door: it brings the registry of exchanges and the signals
together. One task (`Drainer.run`) walks the steps; whoever wants a drain begins it and
may wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from ._asgi.in_flight import Exchanges
from ._asgi.paths import app_path
from ._settings import Drain
from ._tasks.bell import Bell
from ._tasks.notice import Notice
from .events import DrainBegun, DrainEnded, Event, RequestStuck


GOODBYE = 1.0
"""Seconds for handlers that watch `LifespanGuard.draining` to end by themselves, and
for frameworks to return when the tasks that they wait for have been cancelled."""

PATIENCE = 2.0
"""Seconds between cancelling what is left, cancelling it again, and giving it up."""


class Drainer:
    """Lets requests out, once in each start/stop cycle.

    Args:
        settings: How long.
        exchanges: What is in flight.
        observe: Told of the drain's beginning and end.
        limit: Called at its beginning with its delay, in seconds.

    Attributes:
        begun: Given when it begins.
        over: Given when nothing is in flight any more.
        refuses_streams: Whether answers without an end are not begun any more.
    """

    def __init__(
        self,
        settings: Drain,
        exchanges: Exchanges,
        observe: Callable[[Event], None],
        limit: Callable[[float], None],
    ) -> None:
        self.begun = Notice()
        self.over = Notice()
        self.refuses_streams = False
        self._settings = settings
        self._exchanges = exchanges
        self._observe = observe
        self._limit = limit
        self._bell = Bell()
        self._spared: set[Any] = set()
        self._delay = 0.0
        self._release: Callable[[], None] | None = None
        self._then: Callable[[], None] = _nothing
        self._began_at = 0.0
        self._is_watched = False
        self._walking = False
        self._no_walker = Notice()
        self._given_up: set[Any] = set()

    def renew(self) -> None:
        """Make ready for another cycle."""
        self.begun.clear()
        self.over.clear()
        self.refuses_streams = False
        self._given_up.clear()
        self._then = _nothing

    def begin(
        self, reason: str, delay: float = 0.0, release: Callable[[], None] | None = None
    ) -> None:
        """Begin; once. May be called outside a task, as a signal's callback is.

        Args:
            reason: Told to observers.
            delay: Seconds to go on serving.
            release: Called when the delay is over.
        """
        self._delay = delay
        self._release = release
        self._observe(DrainBegun(reason, self._exchanges.watch()))
        self._is_watched = self.begun.set() > 0
        self._bell.ring()

    def hurry(self) -> None:
        """Cut the delay short."""
        self._delay = 0.0
        self._bell.ring()

    def then(self, call: Callable[[], None]) -> None:
        """Call *call* when it is over; at once, if it is."""
        self._then = call
        if self.over.is_set():
            call()

    async def run(self) -> None:
        """Wait for the beginning and walk the steps, unless somebody else does."""
        await self._bell.wait_until(self.begun.is_set)
        await self.finish()

    async def finish(self) -> None:
        """Walk the steps of a drain that has begun, or wait until they are walked.

        Whoever comes first walks, and who is cancelled leaves the rest to the next: a
        loop that is torn down cancels every task.
        """
        while not self.over.is_set():
            if self._walking:
                await self._no_walker.wait()
            else:
                await self._walk()

    async def wait_latecomers(self) -> None:
        """Wait for requests that came after the drain, and are left with no server.

        uvicorn may have cancelled them a moment ago, and not waited.
        """
        with anyio.move_on_after(PATIENCE):
            await self._exchanges.wait_over(self._spared | self._given_up)

    async def _walk(self) -> None:
        self._walking = True
        self._no_walker.clear()
        try:
            with anyio.CancelScope(shield=True):
                await self._walk_steps()
        finally:
            self._walking = False
            self._delay = 0.0
            self._no_walker.set()

    async def _walk_steps(self) -> None:
        self._began_at = anyio.current_time()
        self._limit(self._delay)
        with anyio.move_on_after(self._delay):
            await self._bell.wait_until(lambda: self._delay == 0.0)
        if self._release is not None:
            self._release()
        self.refuses_streams = True
        if self._is_watched and self._lasted() < GOODBYE:
            # A server may close WebSockets at once, without a code (granian does).
            await self._exchanges.end_endless(sockets_only=True)
            await self._is_over_within(GOODBYE)
        await self._let_out()
        self._given_up.update(self._exchanges.left(self._spared))
        self._observe(DrainEnded(self._lasted(), len(self._given_up)))
        self.over.set()
        self._then()

    async def wait_over(self, key: Any) -> None:
        """Wait until it is over.

        Args:
            key: Of the exchange that waits, which then is not waited for.
        """
        if key is not None:
            self._spared.add(key)
            self._exchanges.look_again()
        try:
            await self.over.wait()
        finally:
            self._spared.discard(key)

    async def _let_out(self) -> None:
        await self._exchanges.end_endless()
        first = min(GOODBYE, self._settings.grace)
        if await self._is_over_within(first):
            return
        self._exchanges.insist()
        if await self._is_over_within(self._settings.grace - first):
            return
        for _ in range(2):
            self._exchanges.cut(self._lasted())
            if await self._is_over_within(PATIENCE):
                return
        for scope in self._exchanges.left(self._spared).values():
            self._observe(RequestStuck(app_path(scope), self._lasted()))

    async def _is_over_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._exchanges.wait_over(self._spared)
            return True
        return False

    def _lasted(self) -> float:
        return anyio.current_time() - self._began_at


def _nothing() -> None:
    """Do nothing."""
