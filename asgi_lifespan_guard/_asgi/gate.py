"""Keeps requests out until what they need is up: holds them, or answers 503.

A held request costs a place. While it waits its messages are read ahead (up to 64 KiB
of body), because that is the only way in which a server tells that the client left;
what was read is handed on, none is lost.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from .._concurrency.bell import Bell
from .._events import (
    Event,
    RequestAbandoned,
    RequestAdmitted,
    RequestHeld,
    RequestRefused,
)
from .._settings import Gate
from .answers import (
    Answer,
    answer_http,
    deny_websocket,
    prefers_html,
    problem,
    waiting_page,
)
from .types import Message, Receive, Scope, Send


BATCH = 100
"""Waiters that are let in at once; the loop serves others in between."""

READ_AHEAD = 64 * 1024
"""Bytes of body that are kept for a held request."""

Reason: TypeAlias = Literal["never started", "not ready", "stopped", "draining"]
Go: TypeAlias = Callable[[Receive], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request may pass now.

    Attributes:
        admitted: It may.
        key: Requests with the same key have the same verdict.
        due: Seconds until that may change; inf: not to be expected.
        reason: Why not.
    """

    admitted: bool
    key: Hashable
    due: float = 0.0
    reason: Reason = "not ready"


class GateKeeper:
    """Judges each request at the gate, and lets the held ones in when that changes.

    Args:
        settings: How long, and how many.
        judge: Called with a path as the app sees it.
        observe: Told of held and refused requests.
    """

    def __init__(
        self,
        settings: Gate,
        judge: Callable[[str], Verdict],
        observe: Callable[[Event], None],
    ) -> None:
        self._settings = settings
        self._judge = judge
        self._observe = observe
        self._places = 0
        self._waiting: dict[Hashable, dict[_Waiter, None]] = {}
        self._bell = Bell()
        self._news = False

    async def pass_or_refuse(
        self, path: str, scope: Scope, receive: Receive, send: Send, go: Go
    ) -> None:
        """Call *go* with what to receive from, once the request may pass; or refuse."""
        verdict = self._judge(path)
        if verdict.admitted:
            await go(receive)
        elif verdict.due > self._settings.wait or not self._settings.wait:
            await self._refuse(path, verdict, verdict.reason, scope, receive, send)
        elif self._places >= self._settings.max_waiting:
            await self._refuse(path, verdict, "full", scope, receive, send)
        else:
            await self._hold(path, verdict.key, scope, receive, send, go)

    async def refuse_for_good(
        self, path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Refuse a request because it would have no end and the drain is on."""
        verdict = Verdict(False, None, math.inf, "draining")
        await self._refuse(path, verdict, verdict.reason, scope, receive, send)

    def look_again(self) -> None:
        """Judge the held requests again, soon, because something changed."""
        self._news = True
        self._bell.ring()

    async def run(self) -> None:
        """Release waiters in batches as verdicts change, until cancelled."""
        while True:
            await self._bell.wait_until(lambda: self._news)
            self._news = False
            for key in list(self._waiting):
                await self._release(key)

    async def _release(self, key: Hashable) -> None:
        queue = self._waiting.get(key, {})
        while queue and self._is_decided(next(iter(queue))):
            for waiter in list(queue)[:BATCH]:
                del queue[waiter]
                waiter.release()
            await checkpoint()

    def _is_decided(self, waiter: _Waiter) -> bool:
        verdict = self._judge(waiter.path)
        return verdict.admitted or verdict.due == math.inf

    async def _hold(
        self,
        path: str,
        key: Hashable,
        scope: Scope,
        receive: Receive,
        send: Send,
        go: Go,
    ) -> None:
        held = _HeldReceive(receive)
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(held.read_ahead)
            admitted = await self._wait_for_verdict(path, key, held)
            if admitted:
                try:
                    await go(held.receive)
                except Exception as error:
                    failure = error
            elif not held.left:
                verdict = self._judge(path)
                args = (scope, held.receive, send)
                await self._refuse(path, verdict, verdict.reason, *args)
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _wait_for_verdict(
        self, path: str, key: Hashable, held: _HeldReceive
    ) -> bool:
        waiter = _Waiter(path, held)
        began = anyio.current_time()
        self._observe(RequestHeld(path))
        self._places += 1
        self._waiting.setdefault(key, {})[waiter] = None
        try:
            with anyio.move_on_after(self._settings.wait):
                await held.bell.wait_until(waiter.is_done)
        finally:
            self._places -= 1
            self._forget(key, waiter)
        held.stop_reading_ahead()
        waited = anyio.current_time() - began
        if held.left:
            self._observe(RequestAbandoned(path, waited))
        admitted = not held.left and self._judge(path).admitted
        if admitted:
            self._observe(RequestAdmitted(path, waited))
        return admitted

    def _forget(self, key: Hashable, waiter: _Waiter) -> None:
        queue = self._waiting.get(key, {})
        queue.pop(waiter, None)
        if not queue:
            self._waiting.pop(key, None)

    async def _refuse(
        self,
        path: str,
        verdict: Verdict,
        reason: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        retry_after = (
            None if verdict.due == math.inf else max(1, math.ceil(verdict.due))
        )
        self._observe(RequestRefused(path, retry_after, reason))
        if scope["type"] == "websocket":
            answer = _refusal(reason, retry_after, html=False)
            await deny_websocket(scope, receive, send, answer)
        else:
            answer = _refusal(reason, retry_after, html=prefers_html(scope))
            await answer_http(scope, send, answer)


_TITLE = "Service Unavailable"
_DETAILS = {
    "never started": (
        "The server has not run this app's lifespan, so nothing that it needs was"
        " opened. Turn the server's lifespan support on (uvicorn --lifespan on); in"
        " tests enter the client (`with TestClient(app)`, Quart's `test_app()`)."
    ),
    "stopped": "The service has stopped.",
    "draining": "The service is stopping; another instance will answer.",
}


def _refusal(reason: str, retry_after: int | None, *, html: bool) -> Answer:
    detail = _DETAILS.get(reason) or _not_ready(retry_after)
    if html:
        answer = waiting_page(503, _TITLE, detail, retry_after)
    else:
        answer = problem(503, _TITLE, detail)
    if retry_after is None:
        return answer
    return answer.with_header(b"retry-after", str(retry_after).encode())


def _not_ready(retry_after: int | None) -> str:
    if retry_after is None:
        return "The service is not ready, and is not expected to become so by itself."
    return f"The service is not ready yet. Try again in {retry_after} s."


class _Waiter:
    __slots__ = ("_held", "_released", "path")

    def __init__(self, path: str, held: _HeldReceive) -> None:
        self.path = path
        self._held = held
        self._released = False

    def release(self) -> None:
        self._released = True
        self._held.bell.ring()

    def is_done(self) -> bool:
        return self._released or self._held.left


class _HeldReceive:
    """Reads ahead while a request is held, and hands on what was read."""

    __slots__ = (
        "_error",
        "_messages",
        "_read",
        "_reading",
        "_receive",
        "_size",
        "bell",
        "left",
    )

    def __init__(self, receive: Receive) -> None:
        self.bell = Bell()
        self.left = False
        self._receive = receive
        self._messages: deque[Message] = deque()
        self._error: Exception | None = None
        self._reading = True
        self._read = anyio.Event()
        self._size = 0

    async def read_ahead(self) -> None:
        """Read until told to stop, 64 KiB are there, or the client has left."""
        try:
            while self._reading and not self.left and self._size < READ_AHEAD:
                self._take(await self._receive())
        except Exception as error:
            self._error = error
        finally:
            self._reading = False
            self._read.set()

    def stop_reading_ahead(self) -> None:
        """Stop with the message that is being waited for."""
        self._reading = False

    async def receive(self) -> Message:
        """Return the next message, as the server's own would."""
        if not self._messages:
            await self._read.wait()
        if self._messages:
            return self._messages.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return await self._receive()

    def _take(self, message: Message) -> None:
        self._messages.append(message)
        self._size += len(message.get("body", b""))
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            self.left = True
            self.bell.ring()
