"""The drain: what happens between the first signal and the closing of resources.

One for each start/stop cycle. One task (`Drainer.run`) walks its steps; whoever wants a
drain begins it, and may wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import anyio

from ._asgi.in_flight import InFlight
from ._asgi.paths import app_path
from ._settings import Drain
from ._tasks.waiting import Waiters
from .events import DrainBegun, DrainEnded, Observer, RequestStuck


GOODBYE = 1.0
"""Seconds for handlers that watch `LifespanGuard.draining` to end by themselves, and
for frameworks to return when the tasks that they wait for have been cancelled."""

PATIENCE = 2.0
"""Seconds between cancelling what is left, cancelling it again, and giving it up."""


class Step(Enum):
    """How far a drain has come."""

    DELAY = "delay"
    LETTING_OUT = "letting out"
    OVER = "over"


class Drainer:
    """Lets requests out, once.

    Args:
        settings: How long.
        in_flight: What is to be let out.
        observe: Told of the drain's beginning and end.
        ended: Called when it is over.

    Attributes:
        step: How far it has come; ``None``: it has not begun.
    """

    def __init__(
        self,
        settings: Drain,
        in_flight: InFlight,
        observe: Observer,
        ended: Callable[[], None],
    ) -> None:
        self.step: Step | None = None
        self._settings = settings
        self._in_flight = in_flight
        self._observe = observe
        self._ended = ended
        self._waiters = Waiters()
        self._walking = anyio.Lock()
        self._delay = 0.0
        self._watchers = 0
        self._release: Callable[[], None] | None = None
        self._walked: Callable[[float], None] | None = None
        self._began_at: float | None = None
        self._spared: set[Any] = set()
        self._given_up: frozenset[Any] = frozenset()

    @property
    def refuses_streams(self) -> bool:
        """Whether answers without an end are not begun any more."""
        return self.step in (Step.LETTING_OUT, Step.OVER)

    @property
    def is_over(self) -> bool:
        """Whether nothing is in flight any more that can be helped."""
        return self.step is Step.OVER

    def begin(
        self,
        reason: str,
        delay: float,
        release: Callable[[], None] | None,
        walked: Callable[[float], None] | None,
        watchers: int,
    ) -> None:
        """Begin; once. May be called outside a task, as a signal's callback is.

        Args:
            reason: Told to observers.
            delay: Seconds to go on serving.
            release: Called when the delay is over.
            walked: Called when its steps begin to be walked, with the delay.
            watchers: How many handlers wait to be told of it.
        """
        self._delay = delay
        self._release = release
        self._walked = walked
        self._watchers = watchers
        self.step = Step.DELAY
        self._observe(DrainBegun(reason, self._in_flight.watch()))
        self._waiters.wake()

    def hurry(self) -> None:
        """Cut the delay short."""
        if self.step is Step.DELAY:
            self.step = Step.LETTING_OUT
            if self._release is not None:
                self._release()
            self._waiters.wake()

    async def run(self) -> None:
        """Wait for the beginning and walk the steps, unless somebody else does."""
        await self._waiters.wait_until(lambda: self.step is not None)
        await self.finish()

    async def finish(self) -> None:
        """Walk the steps of a drain that has begun, or wait until they are walked.

        Whoever comes first walks, and who is cancelled leaves the rest to the next: a
        loop that is torn down cancels every task.
        """
        with anyio.CancelScope(shield=True):
            async with self._walking:
                if self.step is not Step.OVER:
                    await self._walk()

    async def wait_latecomers(self) -> None:
        """Wait for requests that came after the drain, and are left with no server.

        uvicorn may have cancelled them a moment ago, and not waited.
        """
        with anyio.move_on_after(PATIENCE):
            await self._in_flight.wait_over(self._spared | self._given_up)

    async def wait_over(self, key: Any) -> None:
        """Wait until it is over.

        Args:
            key: Of the exchange that waits, which then is not waited for.
        """
        if key is not None:
            self._spared.add(key)
            self._in_flight.look_again()
        try:
            await self._waiters.wait_until(lambda: self.is_over)
        finally:
            self._spared.discard(key)

    async def _walk(self) -> None:
        if self._began_at is None:
            self._began_at = anyio.current_time()
            if self._walked is not None:
                self._walked(self._delay)
        with anyio.move_on_after(self._delay):
            await self._waiters.wait_until(lambda: self.step is not Step.DELAY)
        self.hurry()
        if self._watchers and self._lasted() < GOODBYE:
            # A server may close WebSockets at once, without a code (granian does).
            await self._in_flight.end_endless(sockets_only=True)
            await self._is_over_within(GOODBYE)
        await self._let_out()
        self._given_up = frozenset(self._in_flight.left(self._spared))
        self.step = Step.OVER
        self._observe(DrainEnded(self._lasted(), len(self._given_up)))
        self._waiters.wake()
        self._ended()

    async def _let_out(self) -> None:
        await self._in_flight.end_endless()
        first = min(GOODBYE, self._settings.grace)
        if await self._is_over_within(first):
            return
        self._in_flight.insist()
        if await self._is_over_within(self._settings.grace - first):
            return
        for _ in range(2):
            self._in_flight.cut(self._lasted())
            if await self._is_over_within(PATIENCE):
                return
        for scope in self._in_flight.left(self._spared).values():
            self._observe(RequestStuck(app_path(scope), self._lasted()))

    async def _is_over_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._in_flight.wait_over(self._spared)
            return True
        return False

    def _lasted(self) -> float:
        assert self._began_at is not None
        return anyio.current_time() - self._began_at
