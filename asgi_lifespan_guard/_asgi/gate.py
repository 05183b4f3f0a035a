"""Keeps requests out until what they need is up: holds them, or answers 503.

A request is held until it is let in, its time is over, its client has left, or the next
attempt to open what it needs comes too late for it. While it waits its messages are
read ahead, because that is the only way in which a server tells that the client has
left; what was read is handed on, none is lost.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable, Iterable
from functools import lru_cache
from itertools import islice, takewhile
from typing import Literal, NamedTuple, TypeAlias

from anyio.lowlevel import checkpoint

from .._settings import Gate
from .._tasks.backend import now
from .._tasks.beside import Alarm, Beside
from .._tasks.waiting import Waiters
from ..events import (
    Event,
    RequestAbandoned,
    RequestAdmitted,
    RequestHeld,
    RequestRefused,
)
from .responses import (
    Answer,
    answer_http,
    deny_websocket,
    prefers_html,
    problem,
    sent,
    waiting_page,
)
from .types import Message, Receive, Scope, Send


BATCH = 100
"""Waiters that are let in at once; the loop serves others in between."""

GOING_AWAY = 1001
"""The close code (RFC 6455) of an endpoint that is not there any more."""

READ_AHEAD = 64 * 1024
"""Bytes of body that are kept, or a little more: up to one message of the server's."""

PER_MESSAGE = 64
"""Bytes that each message counts for on top, or very many empty ones would be free."""

Reason: TypeAlias = Literal["never started", "not ready", "stopped", "draining"]
Go: TypeAlias = Callable[[Receive], Awaitable[None]]


class Verdict(NamedTuple):
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


class HeldRequest:
    """Waits to be released, and reads ahead meanwhile.

    Args:
        path: Its path as the app sees it.
        deadline: Until when it is held, on the event loop's clock.
        receive: The server's.

    Attributes:
        left: The message that says that its client has left, if it has.
    """

    __slots__ = (
        "_alarm",
        "_ended",
        "_error",
        "_kept",
        "_reading",
        "_readings",
        "_receive",
        "_size",
        "deadline",
        "left",
        "path",
    )

    def __init__(self, path: str, deadline: float, receive: Receive) -> None:
        self.path = path
        self.deadline = deadline
        self.left: Message | None = None
        self._alarm = Alarm(deadline)
        self._receive = receive
        self._kept: list[Message] = []
        self._size = 0
        self._error: Exception | None = None
        self._reading = True
        self._ended = False
        self._readings: Waiters | None = None

    def release(self) -> None:
        """Have it look at the gate again."""
        self._alarm.ring()

    async def wait(self) -> None:
        """Return when it is released, its client has left, or its time is over."""
        try:
            await self._alarm.wait()
        finally:
            self._alarm.stop()
            self._reading = False

    async def read_ahead(self) -> None:
        """Read until `wait` is over, as much is kept as may be, or the client left."""
        try:
            while self._reading and self.left is None and self._size < READ_AHEAD:
                self._keep(await self._receive())
                self._tell()
        except Exception as error:
            self._error = error
        finally:
            self._ended = True
            self._tell()

    async def receive(self) -> Message:
        """Return the next message, as the server's own would; to many at once, too."""
        if not (self._kept or self._ended):
            self._readings = self._readings or Waiters()
            await self._readings.wait_until(lambda: bool(self._kept or self._ended))
        if self._kept:
            return _to_hand_on(self._kept.pop(0))
        if self.left is not None:
            await checkpoint()  # It may be asked for ever.
            return dict(self.left)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return await self._receive()

    def _keep(self, message: Message) -> None:
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            self.left = message
            self._alarm.ring()
            return
        body = message.get("body") or message.get("bytes") or message.get("text") or b""
        self._size += PER_MESSAGE + len(body)
        last = self._kept[-1] if self._kept else None
        if last is not None and last["type"] == message["type"] == "http.request":
            self._kept[-1] = _joined(last, message)
        else:
            self._kept.append(message)

    def _tell(self) -> None:
        if self._readings is not None:
            self._readings.wake()


def _joined(kept: Message, message: Message) -> Message:
    """Add a piece of a body to what is kept of it, as servers do among themselves."""
    body = kept.get("body", b"")
    joined = body if isinstance(body, bytearray) else bytearray(body)
    joined += message.get("body", b"")
    more = message.get("more_body", False)
    return {"type": "http.request", "body": joined, "more_body": more}


def _to_hand_on(kept: Message) -> Message:
    if isinstance(kept.get("body"), bytearray):
        return {**kept, "body": bytes(kept["body"])}
    return kept


async def _take_leave(scope: Scope, send: Send) -> None:
    """End a handshake whose client has left: uvicorn misses an answer otherwise."""
    if scope["type"] == "websocket":
        await sent(lambda: send({"type": "websocket.close", "code": GOING_AWAY}))


class GateKeeper:
    """Judges each request at the gate, and lets the held ones in when that changes.

    Args:
        settings: How long, and how many.
        judge: Called with a path as the app sees it.
        observe: Told of held and refused requests.
        news: Woken when verdicts may have changed.
    """

    def __init__(
        self,
        settings: Gate,
        judge: Callable[[str], Verdict],
        observe: Callable[[Event], None],
        news: Waiters,
    ) -> None:
        self._settings = settings
        self._judge = judge
        self._observe = observe
        self._held = 0
        self._waiting: dict[Hashable, dict[HeldRequest, None]] = {}
        self._news = news

    def pass_or_refuse(
        self, path: str, scope: Scope, receive: Receive, send: Send, go: Go
    ) -> Awaitable[None]:
        """Call *go* with what to receive from, once the request may pass; or refuse.

        Returns:
            What is to be awaited. It decides at once, and adds no frame of its own.
        """
        verdict = self._judge(path)
        if verdict.admitted:
            return go(receive)
        if verdict.due > self._settings.wait or not self._settings.wait:
            return self._refuse(path, verdict, verdict.reason, scope, receive, send)
        if self._held >= self._settings.max_waiting:
            return self._refuse(path, verdict, "full", scope, receive, send)
        return self._hold(path, verdict.key, scope, receive, send, go)

    async def refuse_for_good(
        self, path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Refuse a request because it would have no end and the drain is on."""
        verdict = Verdict(False, None, math.inf, "draining")
        await self._refuse(path, verdict, verdict.reason, scope, receive, send)

    async def run(self) -> None:
        """Release waiters in batches as verdicts change, until cancelled; then all."""
        seen = -1
        try:
            while True:
                seen = await self._news.wait_past(seen)
                for key in list(self._waiting):
                    await self._release(key)
        finally:
            for queue in self._waiting.values():
                for waiter in queue:
                    waiter.release()

    async def _release(self, key: Hashable) -> None:
        queue = self._waiting.get(key, {})
        while batch := self._decided(queue):
            for held in batch:
                del queue[held]
                held.release()
            await checkpoint()

    def _decided(self, queue: Iterable[HeldRequest]) -> list[HeldRequest]:
        """Return the next few, oldest first, that need not wait any more."""
        first = islice(queue, BATCH)
        return list(takewhile(self._is_decided, first))

    def _is_decided(self, held: HeldRequest) -> bool:
        verdict = self._judge(held.path)
        too_late = now() + verdict.due > held.deadline
        return verdict.admitted or too_late

    async def _hold(
        self,
        path: str,
        key: Hashable,
        scope: Scope,
        receive: Receive,
        send: Send,
        go: Go,
    ) -> None:
        began = now()
        held = HeldRequest(path, began + self._settings.wait, receive)
        self._observe(RequestHeld(path))
        failure: Exception | None = None
        async with Beside(held.read_ahead):
            try:
                self._enqueue(key, held)
                try:
                    await held.wait()
                finally:
                    self._dequeue(key, held)
                await self._go_on(held, now() - began, scope, send, go)
            except Exception as error:
                failure = error  # raised outside, where no group is made of it
        if failure is not None:
            raise failure

    async def _go_on(
        self, held: HeldRequest, waited: float, scope: Scope, send: Send, go: Go
    ) -> None:
        """Do what is to be done with a request that waits no more."""
        verdict = self._judge(held.path)
        if held.left is not None:
            self._observe(RequestAbandoned(held.path, waited))
            await _take_leave(scope, send)
        elif verdict.admitted:
            self._observe(RequestAdmitted(held.path, waited))
            await go(held.receive)
        else:
            args = (scope, held.receive, send)
            await self._refuse(held.path, verdict, verdict.reason, *args)

    def _enqueue(self, key: Hashable, held: HeldRequest) -> None:
        self._held += 1
        self._waiting.setdefault(key, {})[held] = None

    def _dequeue(self, key: Hashable, held: HeldRequest) -> None:
        self._held -= 1
        queue = self._waiting.get(key, {})
        queue.pop(held, None)
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
        retry_after = _retry_after(verdict.due)
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
        " opened. Turn the server's lifespan support on (uvicorn --lifespan on), or"
        " where it has none say LifespanGuard(..., lazy_start=True). In tests run it:"
        " `with TestClient(app)`, Quart's `test_app()`, asgi_lifespan_guard.testing's"
        " `running(app)`; or show values instead of what is not opened:"
        " `testing.override(resource, value=...)`."
    ),
    "stopped": "The service has stopped.",
    "draining": "The service is stopping; another instance will answer.",
}


def _retry_after(due: float) -> int | None:
    # Rounded first, or float noise makes one second more of a whole number.
    return None if due == math.inf else max(1, math.ceil(round(due, 3)))


@lru_cache(maxsize=64)
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
