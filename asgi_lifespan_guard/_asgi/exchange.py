"""Requests in flight: a registry, looked into only when a drain begins.

``receive`` and ``send`` of HTTP are not interposed, because that would cost every
request more than the rest of the guard. An exchange is ended by cancelling its task;
asyncio's ``task.cancel()`` reaches handlers that never call ``receive()`` too, and its
`CancelledError` comes back up to us, who take it back and finish the answer:

- *ended* (it had no end of its own): a proper last chunk, so that the client sees a
  complete answer;
- *cut* (its grace was over): no last chunk, so that the client sees that it is not.

On trio every request runs in an `interruptible` scope instead. granian's Rust tasks
(Python 3.11 only, and not the default) cannot be cancelled; they are waited for, and
reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any

import anyio

from .._concurrency.backend import current_task_id, on_trio
from .._concurrency.bell import Bell
from .._concurrency.interruption import Interruption, interruptible
from .._events import Event, RequestCut, StreamEnded
from .answers import answer_http, closing, problem, sent
from .paths import app_path, lies_under
from .socket import Socket
from .types import ASGIApp, Message, Receive, Scope, Send


_LAST_CHUNK: Message = {"type": "http.response.body", "body": b"", "more_body": False}


class How(Enum):
    """How an exchange is brought to its end."""

    ENDED = "ended"
    CUT = "cut"


class Exchanges:
    """What is in flight.

    Attributes:
        live: ``id(scope)`` → (task, scope, send), where task has a ``cancel()``. The
            pass-through path writes into it directly.
        watched: Whether a drain is on, and must hear of each that is over.
    """

    def __init__(
        self, endless: Sequence[str], observe: Callable[[Event], None]
    ) -> None:
        self.live: dict[int, tuple[Any, Scope, Send]] = {}
        self.watched = False
        self._sockets: dict[int, Socket] = {}
        self._endless = tuple(endless)
        self._observe = observe
        self._told: dict[int, How] = {}
        self._bell = Bell()

    # What runs in an exchange's own task

    async def run(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Call *app* as an exchange that a drain can end."""
        if scope["type"] != "websocket":
            await self._run(app, scope, receive, send)
            return
        key = id(scope)
        socket = self._sockets[key] = Socket(scope, receive, send)
        try:
            await self._run(app, scope, socket.receive, socket.send)
        finally:
            del self._sockets[key]

    async def _run(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        run = self._run_on_trio if on_trio() else self._run_on_asyncio
        try:
            await run(id(scope), app, scope, receive, send)
        finally:
            self.forget(id(scope))

    async def _run_on_asyncio(
        self, key: int, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Do what the pass-through path does inline."""
        self.live[key] = (asyncio.current_task(), scope, send)
        try:
            await app(scope, receive, send)
            await self.settle(key)
        except BaseException as error:
            if not await self.conclude(key, error):
                raise

    async def _run_on_trio(
        self, key: int, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Do the same where only cancel scopes can do what ``task.cancel()`` does."""
        async with interruptible(float("inf")) as work:
            self.live[key] = (_Cancellable(work), scope, send)
            await app(scope, receive, send)
        if work.interrupted:
            await self._finish(key, scope, send)

    async def conclude(self, key: int, error: BaseException) -> bool:
        """Finish an exchange that raised; ``False``: it was not our doing.

        Args:
            key: In `live`.
            error: What came up from the app.
        """
        if key not in self._told or not isinstance(error, asyncio.CancelledError):
            return False
        task, scope, send = self.live[key]
        task.uncancel()
        await self._finish(key, scope, send)
        return True

    async def settle(self, key: int) -> None:
        """Take in a cancellation that came when the app had already returned."""
        if key in self._told:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            self.live[key][0].uncancel()

    def look_again(self) -> None:
        """Have `wait_over` look again."""
        self._bell.ring()

    def forget(self, key: int) -> None:
        """Take an exchange that is over out of the registry."""
        del self.live[key]
        self._told.pop(key, None)
        self._bell.ring()

    # What a drain does with them

    def is_endless(self, scope: Scope) -> bool:
        """Whether the answer to *scope* has no end of its own."""
        if scope["type"] == "websocket":
            return True
        path = app_path(scope)
        if any(lies_under(path, prefix) for prefix in self._endless):
            return True
        return bool(scope["method"] == "GET" and _accepts_event_stream(scope))

    async def end_endless(self) -> None:
        """End everything that has no end of its own."""
        sockets = list(self._sockets.values())
        for key, (task, scope, _) in list(self.live.items()):
            if self.is_endless(scope):
                self._told[key] = How.ENDED
                self._observe(StreamEnded(app_path(scope)))
                self._end(key, task)
        async with anyio.create_task_group() as group:
            for socket in sockets:
                group.start_soon(socket.say_goodbye)

    def cut(self, after: float) -> None:
        """Cancel everything that is left, *after* seconds; again, if told before."""
        for key, (task, scope, _) in list(self.live.items()):
            if key not in self._told or key in self._sockets:
                self._observe(RequestCut(app_path(scope), after))
                self._told[key] = How.CUT
            task.cancel()

    def key_of(self, scope: Any) -> int | None:
        """Return the key of the exchange that *scope* belongs to, copied or not.

        ``None`` for a scope means the exchange of the current task.
        """
        task, state = current_task_id(), scope and scope.get("state")
        for key, (own_task, own, _) in self.live.items():
            same_state = state is not None and own.get("state") is state
            if own is scope or same_state or (scope is None and id(own_task) == task):
                return key
        return None

    def left(self, spared: Collection[int] = ()) -> list[Scope]:
        """Return the scopes of what is in flight, but for the *spared* keys."""
        kept = [key for key in self.live if key not in spared]
        return [self.live[key][1] for key in kept]

    async def wait_over(self, spared: Collection[int]) -> None:
        """Return when nothing is in flight but what is *spared*, by key."""
        await self._bell.wait_until(lambda: not self.left(spared))

    def _end(self, key: int, task: Any) -> None:
        if key in self._sockets:
            self._sockets[key].end()
        else:
            task.cancel()

    async def _finish(self, key: int, scope: Scope, send: Send) -> None:
        if scope["type"] == "websocket":
            return
        ended = self._told.get(key) is How.ENDED
        if ended and await sent(lambda: send(_LAST_CHUNK)):
            return
        # Where the answer has not begun it can still be a whole one; where it has, the
        # server objects, and the client sees that it is incomplete.
        sorry = problem(503, "Service Unavailable", "The service is stopping.")
        await sent(lambda: answer_http(scope, closing(scope, send), sorry))


class _Cancellable:
    """Gives an interruption the face of a task."""

    def __init__(self, work: Interruption) -> None:
        self._work = work

    def cancel(self) -> None:
        """Cancel it once; when called again, for good."""
        if self._work.interrupted:
            self._work.bound(0.0)
        self._work.interrupt()


def _accepts_event_stream(scope: Scope) -> bool:
    return any(
        name == b"accept" and b"text/event-stream" in value.lower()
        for name, value in scope.get("headers", ())
    )
