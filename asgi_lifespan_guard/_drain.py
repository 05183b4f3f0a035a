"""The drain: what happens between the first signal and the closing of resources.

One for each start/stop cycle. One task (`Drainer.run`) walks its steps; whoever wants a
drain begins it, and may wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from typing import Any

import anyio

from ._asgi.in_flight import InFlight
from ._settings import Drain
from ._tasks.backend import now
from ._tasks.waiting import Waiters
from .events import DrainBegun, DrainEnded, Observer, RequestStuck


GOODBYE = 1.0
"""Seconds for handlers that watch `LifespanGuard.draining` to end by themselves, and
for those of WebSockets to return when they have seen the disconnect."""

PATIENCE = 2.0
"""Seconds between cancelling something, cancelling it again, and giving it up; less
where `shutdown_timeout` is short, which all of it is taken from."""


class Step(Enum):
    """How far a drain has come."""

    DELAY = "delay"
    LETTING_OUT = "letting out"
    CUTTING = "cutting"
    OVER = "over"
    OMITTED = "omitted"


class Drainer:
    """Lets requests out, once.

    Args:
        settings: How long.
        shutdown_timeout: Seconds for what comes after it; what ignores that it is cut
            may take half of them, and leaves the rest to the closing.
        in_flight: What is to be let out.
        observe: Told of the drain's beginning and end.
        ended: Called when it is over.

    Attributes:
        step: How far it has come; ``None``: it has not begun.
    """

    def __init__(
        self,
        settings: Drain,
        shutdown_timeout: float,
        in_flight: InFlight,
        observe: Observer,
        ended: Callable[[], None],
    ) -> None:
        self.step: Step | None = None
        self._settings = settings
        self._patience = min(PATIENCE, shutdown_timeout / 4)
        self._in_flight = in_flight
        self._observe = observe
        self._ended = ended
        self._waiters = Waiters()
        self._walking = anyio.Lock()
        self._delay = 0.0
        self._watchers = self._number = 0
        self._release: Callable[[], None] | None = None
        self._began_at = 0.0
        self._hurried_at = 0.0
        self._spared: set[Any] = set()
        self._given_up: frozenset[Any] = frozenset()

    @property
    def refuses_streams(self) -> bool:
        """Whether answers without an end are not begun any more."""
        return self.step in (Step.LETTING_OUT, Step.CUTTING, Step.OVER)

    @property
    def is_over(self) -> bool:
        """Whether nothing is in flight any more that can be helped."""
        return self.step is Step.OVER

    @property
    def time_left(self) -> float:
        """The seconds that its delay and its grace may still take."""
        if self.step is Step.DELAY:
            return self._began_at + self._delay + self._settings.grace - now()
        if self.step is Step.LETTING_OUT:
            return max(0.0, self._hurried_at + self._settings.grace - now())
        return 0.0

    def begin(
        self,
        reason: str,
        delay: float,
        release: Callable[[], None] | None,
        watchers: int,
    ) -> None:
        """Begin; once. May be called outside a task, as a signal's callback is.

        Args:
            reason: Told to observers.
            delay: Seconds to go on serving.
            release: Called when the delay is over.
            watchers: How many handlers wait to be told of it.
        """
        self._delay = delay
        self._release = release
        self._watchers = watchers
        self._began_at = now()
        self.step = Step.DELAY
        self._number = self._in_flight.watch()
        self._observe(DrainBegun(reason, self._number))
        if delay:
            self._waiters.wake()
        else:
            self.hurry()

    def hurry(self) -> None:
        """Cut the delay short."""
        if self.step is Step.DELAY:
            self.step = Step.LETTING_OUT
            self._hurried_at = now()
            if self._release is not None:
                self._release()
            self._waiters.wake()

    def cut_short(self) -> None:
        """Cut the grace short, where the delay is over; else the delay."""
        if self.step is Step.LETTING_OUT:
            self.step = Step.CUTTING
            self._in_flight.look_again()
        self.hurry()

    def omit(self) -> None:
        """Let nobody wait for it any more, where it has not begun: its run is over."""
        if self.step is None:
            self.step = Step.OMITTED
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
        await self._is_over_within(self._patience, self._given_up)

    async def wait_over(self, key: Any) -> bool:
        """Wait until it is over; say whether it ever was.

        Args:
            key: Of the exchange that waits, which then is not waited for, or cut.
        """
        if key is not None:
            self._spared.add(key)
            self._in_flight.look_again()
        try:
            ends = (Step.OVER, Step.OMITTED)
            await self._waiters.wait_until(lambda: self.step in ends)
        finally:
            self._spared.discard(key)
        return self.is_over

    async def _walk(self) -> None:
        with anyio.move_on_after(self._began_at + self._delay - now()):
            await self._waiters.wait_until(lambda: self.step is not Step.DELAY)
        self.hurry()
        if self._watchers:
            # A server may close WebSockets at once, without a code (granian does).
            await self._in_flight.end_endless(self._spared, sockets_only=True)
            await self._is_over_by(min(GOODBYE, self._settings.grace))
        await self._let_out()
        self._given_up = frozenset(self._in_flight.left(self._spared))
        self.step = Step.OVER
        left = len(self._given_up)
        self._observe(DrainEnded(self._lasted(), left, self._number))
        self._waiters.wake()
        self._ended()

    async def _let_out(self) -> None:
        grace, spared = self._settings.grace, self._spared
        await self._in_flight.end_endless(spared)
        await self._is_over_by(min(GOODBYE, grace))
        if self._may_insist(GOODBYE):
            self._in_flight.cancel_sockets(spared)
        await self._is_over_by(min(PATIENCE, grace))
        if self._may_insist(PATIENCE):
            self._in_flight.insist(spared)
        if await self._is_over_by(grace):
            return
        self.step = Step.CUTTING
        for again in (False, True):
            self._in_flight.cut(self._lasted(), spared, again=again)
            if await self._is_over_within(self._patience, spared):
                return
        for path in self._in_flight.left(spared).values():
            self._observe(RequestStuck(path, self._lasted()))

    def _may_insist(self, seconds: float) -> bool:
        return self.step is Step.LETTING_OUT and seconds < self._settings.grace

    async def _is_over_by(self, seconds: float) -> bool:
        """Wait until all is over, *seconds* of the grace have passed, or it was cut."""

        def is_decided() -> bool:
            return self.step is Step.CUTTING or self._in_flight.is_over(self._spared)

        left = self._hurried_at + seconds - now()
        with anyio.move_on_after(left):
            await self._in_flight.wait_until(is_decided)
        return self._in_flight.is_over(self._spared)

    async def _is_over_within(self, seconds: float, spared: Collection[Any]) -> bool:
        with anyio.move_on_after(seconds):
            await self._in_flight.wait_until(lambda: self._in_flight.is_over(spared))
        return self._in_flight.is_over(spared)

    def _lasted(self) -> float:
        return now() - self._began_at
