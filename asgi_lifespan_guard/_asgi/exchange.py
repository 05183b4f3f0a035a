"""One request or WebSocket in flight, and how a drain brings it to its end.

An exchange is ended by cancelling its task; asyncio's ``task.cancel()`` reaches
handlers that never call ``receive()`` too, and its `CancelledError` comes back up to
us, who take it back and finish the answer:

- *ended* (it had no end of its own): a proper last chunk, so that the client sees a
  complete answer;
- *cut* (its grace was over): no last chunk, so that the client sees that it is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from .responses import answer_http, closing, problem, sent
from .types import Message, Scope, Send
from .websocket import Socket


FRAMEWORKS = frozenset({"django", "quart"})
"""Packages that run a view in a task of its own, and wait for it in ``asyncio.wait``.

Named, because what somebody else waits for may be a task that others share.
"""

_LAST_CHUNK: Message = {"type": "http.response.body", "body": b"", "more_body": False}


class How(Enum):
    """How an exchange is brought to its end."""

    ENDED = "ended"
    CUT = "cut"


class Exchange:
    """One request or WebSocket in flight, as a drain sees it.

    Args:
        scope: Its scope.
        send: The server's own.
        path: Its path, as the app saw it when the request began.
        cancel: Cancels it; may be called again.
        socket: The WebSocket, if it is one.
        task: The task that it runs in, where it can be looked into.

    Attributes:
        declared_endless: Whether its handler has said that it has no end of its own.
        told: How it was told to end, if it was.
        cancelled: How often its task was cancelled by us.
        spoken_to: Whether what its task waits for was cancelled instead.
    """

    __slots__ = (
        "cancel",
        "cancelled",
        "declared_endless",
        "path",
        "scope",
        "send",
        "socket",
        "spoken_to",
        "task",
        "told",
    )

    def __init__(
        self,
        scope: Scope,
        send: Send,
        path: str,
        cancel: Callable[[], object],
        socket: Socket | None = None,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        self.scope = scope
        self.send = send
        self.path = path
        self.cancel = cancel
        self.socket = socket
        self.task = task
        self.declared_endless = False
        self.told: How | None = None
        self.cancelled = 0
        self.spoken_to = False

    @property
    def is_answered(self) -> bool:
        """Whether its response is complete, where the server lets us see that.

        What its app still does it does in the background. uvicorn's and hypercorn's
        *send* are methods of an object that knows; granian's is not.
        """
        sender = getattr(self.send, "__self__", None)
        if getattr(sender, "response_complete", False) is True:
            return True
        return getattr(getattr(sender, "state", None), "name", None) == "CLOSED"

    @property
    def was_only_told(self) -> bool:
        """Whether it is a WebSocket whose app has seen a disconnect, and no more."""
        told = self.socket is not None and self.told is not None
        return told and not self.was_cancelled

    @property
    def was_cancelled(self) -> bool:
        """Whether it has been cancelled, or what its task waits for."""
        return self.spoken_to or self.cancelled > 0

    def end(self) -> None:
        """End it as what has no end of its own."""
        self.told = How.ENDED
        if self.socket is None:
            self.interrupt()
        else:
            self.socket.end()

    def interrupt(self) -> None:
        """Cancel its app; at first only the tasks that it waits for, if it does."""
        waited = views_of(self.task) if self.task and not self.spoken_to else []
        for child in waited:
            child.cancel()
        self.spoken_to = bool(waited)
        if not waited:
            self.cancelled += 1
            self.cancel()

    async def finish(self) -> None:
        """Finish the answer, now that its app has ended."""
        if self.socket is not None:
            await self.socket.say_goodbye()
            return
        if self.told is How.ENDED and await sent(lambda: self.send(_LAST_CHUNK)):
            return
        # Where the answer has not begun it can still be a whole one; where it has, the
        # server objects, and the client sees that it is incomplete.
        sorry = problem(503, "Service Unavailable", "The service is stopping.")
        send = closing(self.scope, self.send)
        await sent(lambda: answer_http(self.scope, send, sorry))


def views_of(task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
    """Return the tasks in which a framework runs the view that *task* waits for.

    A cancelled ``asyncio.wait`` leaves them running: cancelling the request's task
    would orphan the view, with the database connection that it holds. Cancelling the
    view instead is what these frameworks do themselves when a client leaves.
    """
    caller: Any = None
    waiting: Any = task.get_coro()
    while waiting is not None:
        if getattr(waiting, "cr_code", None) is asyncio.wait.__code__:
            return _tasks(waiting.cr_frame.f_locals["fs"]) if _is_known(caller) else []
        caller, waiting = waiting, getattr(waiting, "cr_await", None)
    return []


def _is_known(caller: Any) -> bool:
    """Whether the coroutine *caller* is a framework's, of those that we know."""
    if caller is None:
        return False
    module = str(caller.cr_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in FRAMEWORKS


def _tasks(futures: Iterable[Any]) -> list[asyncio.Task[Any]]:
    return [future for future in futures if isinstance(future, asyncio.Task)]
