"""Requests in flight: a registry, looked into only when a drain begins.

``receive`` and ``send`` of HTTP are not interposed, because that would cost every
request more than the rest of the guard. On trio every request runs in an
`interruptible` scope instead. granian's Rust tasks (Python 3.11 only, and not the
default) cannot be cancelled; they are waited for, and reported.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import anyio

from .._tasks.backend import on_trio
from .._tasks.interruption import Interruption, interruptible
from .._tasks.waiting import Waiters
from ..events import Event, RequestCut, StreamEnded
from .exchange import Exchange, How
from .paths import app_path, lies_under
from .reading import accepts
from .types import ASGIApp, Receive, Scope, Send
from .websocket import Socket, SocketEndedError


class InFlight:
    """What is in flight.

    Attributes:
        live: Task → (scope, send). The pass-through path puts requests in and takes
            them out itself; when a drain begins they are moved out of it, so that
            taking one out fails and the request comes to `settle`.
    """

    def __init__(
        self, endless: Sequence[str], observe: Callable[[Event], None]
    ) -> None:
        self.live: dict[Any, tuple[Scope, Send]] = {}
        self._watched: dict[Any, Exchange] = {}
        self._endless = tuple(endless)
        self._observe = observe
        self._waiters = Waiters()

    # What runs in an exchange's own task

    async def run(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> Any:
        """Call *app* as an exchange that a drain can end; for what is not simple.

        WebSockets, trio, and requests in a task that has one in flight already (an app
        that calls itself through a test client).
        """
        socket = None
        if scope["type"] == "websocket":
            socket = Socket(scope, receive, send)
            receive, send = socket.receive, socket.send
        run = self._run_on_trio if on_trio() else self._run_on_asyncio
        return await run(app, receive, Exchange(scope, send, _nothing, socket))

    async def settle(self, key: Any) -> None:
        """Take out an exchange whose app has returned.

        It may have been cancelled at the very end, and the cancellation not yet
        delivered: then it is taken in here. Or the app has taken the cancellation for
        a wish to return, and its answer may want an end.
        """
        exchange = self._watched.get(key)
        told = exchange is not None and exchange.told is not None
        if exchange is not None and told and asyncio.current_task() is not None:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            await self._finish(key, exchange)
        self._forget(key)

    async def conclude(self, key: Any, error: BaseException) -> bool:
        """Take out an exchange that raised; finish it if it was our doing.

        Args:
            key: Of the exchange.
            error: What came up from the app.

        Returns:
            Whether it was, so that *error* has done its work.
        """
        self.live.pop(key, None)
        exchange = self._watched.get(key)
        ours = isinstance(error, asyncio.CancelledError | SocketEndedError)
        if exchange is None or exchange.told is None or not ours:
            self._forget(key)
            return False
        await self._finish(key, exchange)
        return not (self._is_told_further_out(exchange) or _is_still_cancelled())

    async def _finish(self, key: Any, exchange: Exchange) -> None:
        _uncancel(exchange.cancelled)
        try:
            await exchange.finish()
        finally:
            self._forget(key)

    def _is_told_further_out(self, inner: Exchange) -> bool:
        """Whether an exchange that called *inner* in its own task is to end, too."""
        return any(
            x.cancelled and x.cancel == inner.cancel for x in self._others(inner)
        )

    def _others(self, exchange: Exchange) -> list[Exchange]:
        return [x for x in self._watched.values() if x is not exchange]

    async def _run_on_asyncio(
        self, app: ASGIApp, receive: Receive, exchange: Exchange
    ) -> Any:
        """Do what the pass-through path does inline."""
        task = asyncio.current_task()
        exchange.task = task
        exchange.cancel = task.cancel if task else _nothing
        self._watched[exchange] = exchange
        try:
            returned = await app(exchange.scope, receive, exchange.send)
        except BaseException as error:
            if not await self.conclude(exchange, error):
                raise
            return None
        await self.settle(exchange)
        return returned

    async def _run_on_trio(
        self, app: ASGIApp, receive: Receive, exchange: Exchange
    ) -> Any:
        """Do the same where only cancel scopes can do what ``task.cancel()`` does."""
        self._watched[exchange] = exchange
        returned: Any = None
        try:
            async with interruptible(math.inf, shield=False) as work:
                exchange.cancel = partial(_interrupt, work)
                try:  # noqa: SIM105 - suppress() raises a copy of an exception group
                    returned = await app(exchange.scope, receive, exchange.send)
                except SocketEndedError:
                    pass
            if exchange.told is not None:
                await exchange.finish()
        finally:
            self._forget(exchange)
        return returned

    def _forget(self, key: Any) -> Exchange | None:
        self._waiters.wake()
        return self._watched.pop(key, None)

    # What a drain does with them

    def watch(self) -> int:
        """Watch every exchange from now on; say how many there are."""
        for task, (scope, send) in self.live.items():
            cancel = getattr(task, "cancel", _nothing)
            known = task if isinstance(task, asyncio.Task) else None
            self._watched[task] = Exchange(scope, send, cancel, task=known)
        self.live.clear()
        return len(self._watched)

    def is_endless(self, scope: Scope) -> bool:
        """Whether the answer to *scope* has no end of its own."""
        if scope["type"] == "websocket":
            return True
        path = app_path(scope)
        if any(lies_under(path, prefix) for prefix in self._endless):
            return True
        return scope.get("method") == "GET" and accepts(scope, b"text/event-stream")

    async def end_endless(self, *, sockets_only: bool = False) -> None:
        """End everything that has no end of its own, or only the WebSockets of it."""
        running = [x for x in self._inside_out() if x.told is None]
        wanted = [x for x in running if x.socket is not None or not sockets_only]
        endless = [x for x in wanted if self.is_endless(x.scope)]
        for exchange in endless:
            self._observe(StreamEnded(app_path(exchange.scope)))
            exchange.end()
        async with anyio.create_task_group() as group:
            for exchange in endless:
                if exchange.socket is not None:
                    group.start_soon(exchange.socket.say_goodbye)

    def insist(self) -> None:
        """Cancel the tasks of what was to end, and has only been spoken to."""
        for exchange in list(self._watched.values()):
            if exchange.spoken_to:
                exchange.interrupt()

    def cut(self, after: float) -> None:
        """Cancel everything that is left, *after* seconds; again, if told before."""
        for exchange in self._inside_out():
            if exchange.told is None or exchange.socket is not None:
                self._observe(RequestCut(app_path(exchange.scope), after))
            exchange.told = exchange.told or How.CUT
            exchange.interrupt()

    def _inside_out(self) -> list[Exchange]:
        """Return what is in flight, a request that another one makes before that.

        The cancellation of the other one then waits until the inner one is clean.
        """
        return list(reversed(self._watched.values()))

    def left(self, spared: Collection[Any] = ()) -> dict[Any, Scope]:
        """Return the scopes of what is in flight, but for the *spared* keys, by key."""
        return {k: x.scope for k, x in self._watched.items() if k not in spared}

    def look_again(self) -> None:
        """Have `wait_over` look again."""
        self._waiters.wake()

    async def wait_over(self, spared: Collection[Any]) -> None:
        """Return when nothing is in flight but what is *spared*, by key."""
        await self._waiters.wait_until(lambda: not self.left(spared))

    def key_of(self, scope: Mapping[str, Any] | None) -> Any:
        """Return the key of the exchange that *scope* belongs to, copied or not.

        Without a scope, of the current task's; ``None`` where there is none.
        """
        if scope is None:
            task = None if on_trio() else asyncio.current_task()
            return task if task in self.live or task in self._watched else None
        scopes = {key: own for key, (own, _) in self.live.items()}
        scopes |= {key: exchange.scope for key, exchange in self._watched.items()}
        return next((k for k, own in scopes.items() if _is_same(own, scope)), None)


def _is_same(own: Scope, other: Mapping[str, Any]) -> bool:
    state = own.get("state")
    return own is other or (state is not None and state is other.get("state"))


def _interrupt(work: Interruption) -> None:
    if work.interrupted:
        work.bound(0.0)
    work.interrupt()


def _uncancel(times: int) -> None:
    task = asyncio.current_task()
    assert task is not None
    for _ in range(times):
        task.uncancel()


def _is_still_cancelled() -> bool:
    """Whether somebody else has cancelled the current task, too."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _nothing() -> None:
    """Do nothing: what cannot be cancelled is waited for."""
