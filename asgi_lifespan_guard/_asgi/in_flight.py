"""Requests in flight: a registry, looked into only when a drain begins.

``receive`` and ``send`` of HTTP are not interposed, because that would cost every
request more than the rest of the guard. On trio every request runs in an
`interruptible` scope instead. granian's Rust tasks (Python 3.11 only, and not the
default) cannot be cancelled; they are waited for, and reported.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from .._tasks.backend import on_trio
from .._tasks.interruption import Interruption, interruptible
from .._tasks.waiting import Waiters
from ..events import Event, RequestCut, StreamEnded
from .exchange import Exchange, How
from .paths import app_path, below_root, lies_under
from .reading import accepts
from .types import ASGIApp, Receive, Scope, Send
from .websocket import Socket, SocketEndedError


BATCH = 100
"""Exchanges that are told at once; the loop lets them end in between."""


class InFlight:
    """What is in flight.

    Attributes:
        live: Task → (scope, send, path). The pass-through path puts requests in and
            takes them out itself; when a drain begins they are moved out of it, so that
            taking one out fails and the request comes to `settle`. The path is kept
            because frameworks change the scope in place (Starlette's mounts). Where a
            handler has said that its answer is endless, there is a fourth item.
        root_path: In front of those paths, where the server puts it there.
    """

    def __init__(
        self, endless: Sequence[str], observe: Callable[[Event], None]
    ) -> None:
        self.live: dict[Any, tuple[Any, ...]] = {}
        self.root_path = ""
        self._watched: dict[Any, Exchange] = {}
        self._in_task: dict[asyncio.Task[Any], list[Exchange]] = {}
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
        exchange = Exchange(scope, send, app_path(scope), _nothing, socket)
        return await run(app, receive, exchange)

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
        if inner.task is None:
            return False
        return any(outer.cancelled for outer in self._in_task.get(inner.task, ()))

    async def _run_on_asyncio(
        self, app: ASGIApp, receive: Receive, exchange: Exchange
    ) -> Any:
        """Do what the pass-through path does inline."""
        task = asyncio.current_task()
        exchange.task = task
        exchange.cancel = task.cancel if task else _nothing
        self._watch(exchange, exchange)
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
        self._watch(exchange, exchange)
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

    def _watch(self, key: Any, exchange: Exchange) -> None:
        self._watched[key] = exchange
        if exchange.task is not None:
            self._in_task.setdefault(exchange.task, []).append(exchange)

    def _forget(self, key: Any) -> None:
        self._waiters.wake()
        exchange = self._watched.pop(key, None)
        if exchange is not None and exchange.task is not None:
            others = self._in_task[exchange.task]
            others.remove(exchange)
            if not others:
                del self._in_task[exchange.task]

    # What a drain does with them

    def watch(self) -> int:
        """Watch every exchange from now on; say how many there are."""
        for task, (scope, send, path, *declared) in self.live.items():
            cancel = getattr(task, "cancel", _nothing)
            known = task if isinstance(task, asyncio.Task) else None
            below = below_root(path, self.root_path)
            exchange = Exchange(scope, send, below, cancel, task=known)
            exchange.declared_endless = bool(declared)
            self._watch(task, exchange)
        self.live.clear()
        return len(self._watched)

    def is_endless(self, scope: Scope, path: str) -> bool:
        """Whether the answer to *scope* has no end of its own.

        Args:
            scope: Of the request.
            path: Its path, as it was when the request began.
        """
        if scope["type"] == "websocket":
            return True
        if any(lies_under(path, prefix) for prefix in self._endless):
            return True
        return scope.get("method") == "GET" and accepts(scope, b"text/event-stream")

    def declare_endless(self, scope: Mapping[str, Any], *, end: bool) -> None:
        """Note that the answer to *scope* has no end of its own.

        Args:
            scope: Of the request, copied or not.
            end: Whether such answers are being ended already, so that it is, too.
        """
        key = self.key_of(scope)
        if key in self.live:
            self.live[key] = (*self.live[key][:3], True)
        elif key in self._watched:
            exchange = self._watched[key]
            exchange.declared_endless = True
            if end and exchange.told is None:
                self._end(exchange)

    async def end_endless(
        self, spared: Collection[Any] = (), *, sockets_only: bool = False
    ) -> None:
        """End everything that has no end of its own, or only the WebSockets of it.

        An answer that is complete is left to do what it does in the background.
        """
        async with anyio.create_task_group() as group:
            told = 0
            for key, exchange in self._inside_out():
                left_out = key in spared or (sockets_only and exchange.socket is None)
                if left_out or not self._may_be_ended(key, exchange):
                    continue
                self._end(exchange)
                if exchange.socket is not None:
                    group.start_soon(exchange.socket.say_goodbye)
                told += 1
                if told % BATCH == 0:
                    await checkpoint()

    def _may_be_ended(self, key: Any, exchange: Exchange) -> bool:
        if exchange.told is not None or self._watched.get(key) is not exchange:
            return False
        endless = self.is_endless(exchange.scope, exchange.path)
        return (endless or exchange.declared_endless) and not exchange.is_answered

    def _end(self, exchange: Exchange) -> None:
        self._observe(StreamEnded(exchange.path))
        exchange.end()

    def cancel_sockets(self, spared: Collection[Any] = ()) -> None:
        """Cancel the handlers of WebSockets that were ended, and are there still."""
        for key, exchange in self._inside_out():
            if exchange.was_only_told and key not in spared:
                exchange.interrupt()

    def insist(self, spared: Collection[Any] = ()) -> None:
        """Cancel the tasks of what was to end, and has only been spoken to."""
        for key, exchange in self._inside_out():
            if exchange.spoken_to and key not in spared:
                exchange.interrupt()

    def cut(
        self, after: float, spared: Collection[Any] = (), *, again: bool = False
    ) -> None:
        """Cancel what is left, *after* seconds; *again*, if it was cancelled before."""
        for key, exchange in self._inside_out():
            if key in spared or (exchange.was_cancelled and not again):
                continue
            if exchange.told is None or exchange.was_only_told:
                self._observe(RequestCut(exchange.path, after))
            exchange.told = exchange.told or How.CUT
            exchange.interrupt()

    def _inside_out(self) -> list[tuple[Any, Exchange]]:
        """Return what is in flight, a request that another one makes before that.

        The cancellation of the other one then waits until the inner one is clean.
        """
        return list(reversed(self._watched.items()))

    def left(self, spared: Collection[Any] = ()) -> dict[Any, str]:
        """Return the paths of what is in flight, but for the *spared* keys, by key."""
        return {k: x.path for k, x in self._watched.items() if k not in spared}

    def is_over(self, spared: Collection[Any] = ()) -> bool:
        """Whether nothing is in flight but what is *spared*, by key."""
        first = islice(self._watched, len(spared) + 1)
        return all(key in spared for key in first)

    def look_again(self) -> None:
        """Have `wait_until` look again."""
        self._waiters.wake()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once *condition* holds; asked whenever an exchange is over."""
        await self._waiters.wait_until(condition)

    def key_of(self, scope: Mapping[str, Any] | None) -> Any:
        """Return the key of the exchange that *scope* belongs to, copied or not.

        Without a scope, of the current task's; ``None`` where there is none.
        """
        task = None if on_trio() else asyncio.current_task()
        own = self._scope_of(task)
        if scope is None:
            return None if own is None else task
        if own is not None and _is_same(own, scope):
            return task
        return next((key for key, own in self._scopes() if _is_same(own, scope)), None)

    def path_of(self, scope: Mapping[str, Any]) -> str | None:
        """Return the path of the exchange that *scope* belongs to, as it began."""
        key = self.key_of(scope)
        if key in self.live:
            path: str = below_root(self.live[key][2], self.root_path)
            return path
        return self._watched[key].path if key in self._watched else None

    def _scope_of(self, key: Any) -> Scope | None:
        if key in self.live:
            scope: Scope = self.live[key][0]
            return scope
        return self._watched[key].scope if key in self._watched else None

    def _scopes(self) -> Iterator[tuple[Any, Scope]]:
        yield from ((key, kept[0]) for key, kept in self.live.items())
        yield from ((key, exchange.scope) for key, exchange in self._watched.items())


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
