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

import anyio
from anyio.lowlevel import checkpoint

from .._settings import Gate
from .._tasks.groups import transparent_task_group
from .._tasks.waiting import Waiters
from ..events import (
    Event,
    RequestAbandoned,
    RequestAdmitted,
    RequestHeld,
    RequestRefused,
)
from .reading import size_of, type_of
from .responses import (
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
"""Bytes of body that are kept."""

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
        left: Whether its client has left.
        released: Whether it is to look at the gate again.
    """

    __slots__ = (
        "_ended",
        "_error",
        "_messages",
        "_read",
        "_reading",
        "_receive",
        "_size",
        "_waiters",
        "deadline",
        "left",
        "path",
        "released",
    )

    def __init__(self, path: str, deadline: float, receive: Receive) -> None:
        self.path = path
        self.deadline = deadline
        self.left = False
        self.released = False
        self._waiters = Waiters()
        self._receive = receive
        self._messages: list[Message] = []
        self._error: Exception | None = None
        self._reading = True
        self._read: anyio.Event | None = None
        self._ended = False
        self._size = 0

    def release(self) -> None:
        """Wake it."""
        self.released = True
        self._waiters.wake()

    async def wait(self) -> None:
        """Return when it is released, its client has left, or its time is over."""
        scope = anyio.CancelScope(deadline=self.deadline)
        with scope:
            await self._waiters.wait_until(lambda: self.released or self.left)
        self._reading = False

    async def read_ahead(self) -> None:
        """Read until `wait` is over, 64 KiB are there, or the client has left."""
        try:
            while self._reading and not self.left and self._size < READ_AHEAD:
                self._take(await self._receive())
        except Exception as error:
            self._error = error
        finally:
            self._ended = True
            if self._read is not None:
                self._read.set()

    async def receive(self) -> Message:
        """Return the next message, as the server's own would."""
        if not self._messages and not self._ended:
            self._read = anyio.Event()
            await self._read.wait()
        if self._messages:
            return self._messages.pop(0)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return await self._receive()

    def _take(self, message: Message) -> None:
        self._messages.append(message)
        self._size += size_of(message)
        if type_of(message) in ("http.disconnect", "websocket.disconnect"):
            self.left = True
            self._waiters.wake()


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

    async def pass_or_refuse(
        self, path: str, scope: Scope, receive: Receive, send: Send, go: Go
    ) -> None:
        """Call *go* with what to receive from, once the request may pass; or refuse."""
        verdict = self._judge(path)
        if verdict.admitted:
            await go(receive)
        elif verdict.due > self._settings.wait or not self._settings.wait:
            await self._refuse(path, verdict, verdict.reason, scope, receive, send)
        elif self._held >= self._settings.max_waiting:
            await self._refuse(path, verdict, "full", scope, receive, send)
        else:
            await self._hold(path, verdict.key, scope, receive, send, go)

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
        too_late = anyio.current_time() + verdict.due > held.deadline
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
        deadline = anyio.current_time() + self._settings.wait
        held = HeldRequest(path, deadline, receive)
        failure: Exception | None = None
        async with transparent_task_group() as group:
            group.start_soon(held.read_ahead)
            try:
                if await self._is_admitted(key, held):
                    await go(held.receive)
                elif not held.left:
                    verdict = self._judge(path)
                    args = (scope, held.receive, send)
                    await self._refuse(path, verdict, verdict.reason, *args)
            except Exception as error:
                failure = error  # raised outside, where no group is made of it
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _is_admitted(self, key: Hashable, held: HeldRequest) -> bool:
        began = anyio.current_time()
        self._observe(RequestHeld(held.path))
        await self._wait_in_queue(key, held)
        waited = anyio.current_time() - began
        if held.left:
            self._observe(RequestAbandoned(held.path, waited))
            return False
        admitted = self._judge(held.path).admitted
        if admitted:
            self._observe(RequestAdmitted(held.path, waited))
        return admitted

    async def _wait_in_queue(self, key: Hashable, held: HeldRequest) -> None:
        self._held += 1
        queue = self._waiting.setdefault(key, {})
        queue[held] = None
        try:
            await held.wait()
        finally:
            self._held -= 1
            queue.pop(held, None)
            if not queue and self._waiting.get(key) is queue:
                del self._waiting[key]

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
