"""Keeps requests out until what they need is up: holds them, or answers 503.

A request is held until it is let in, its time is over, its client has left, or the next
attempt to open what it needs comes too late for it. Refusals may be many: what is said
is written once, and while it stays the same a request is not judged anew.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable, Iterable
from functools import cached_property, lru_cache
from itertools import islice, takewhile
from time import monotonic
from typing import Literal, NamedTuple, TypeAlias

from anyio.lowlevel import checkpoint

from .._frozen import Frozen
from .._settings import Gate
from .._tasks.backend import now
from .._tasks.beside import Beside
from .._tasks.waiting import Waiters
from ..events import (
    Event,
    RequestAbandoned,
    RequestAdmitted,
    RequestHeld,
    RequestRefused,
)
from .held import HeldRequest
from .responses import (
    Answer,
    answer_http,
    deny_websocket,
    prefers_html,
    problem,
    sent,
    waiting_page,
)
from .types import Receive, Scope, Send


BATCH = 100
"""Waiters that are let in at once; the loop serves others in between."""

GOING_AWAY = 1001
"""The close code (RFC 6455) of an endpoint that is not there any more."""

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


class Refusal(Frozen):
    """Why a request is not let in, and the answers that say so, each written once."""

    reason: str
    retry_after: int | None

    @cached_property
    def problem(self) -> Answer:
        """For programs."""
        return self._with_retry_after(problem(503, _TITLE, self._detail))

    @cached_property
    def page(self) -> Answer:
        """For people."""
        page = waiting_page(503, _TITLE, self._detail, self.retry_after)
        return self._with_retry_after(page)

    @property
    def _detail(self) -> str:
        return _DETAILS.get(self.reason) or _not_ready(self.retry_after)

    def _with_retry_after(self, answer: Answer) -> Answer:
        if self.retry_after is None:
            return answer
        return answer.with_header(b"retry-after", str(self.retry_after).encode())


_refusal = lru_cache(maxsize=64)(Refusal)


def _not_ready(retry_after: int | None) -> str:
    if retry_after is None:
        return "The service is not ready, and is not expected to become so by itself."
    return f"The service is not ready yet. Try again in {retry_after} s."


class Closed(NamedTuple):
    """That all requests with one key are refused, for now.

    Attributes:
        wakings: Of the news; when there are more, it has to be judged again.
        until: When that has to be, on `time.monotonic`.
        refusal: What they are told.
    """

    wakings: int
    until: float
    refusal: Refusal


async def _take_leave(scope: Scope, send: Send) -> None:
    """End a handshake whose client has left: uvicorn misses an answer otherwise."""
    if scope["type"] == "websocket":
        await sent(lambda: send({"type": "websocket.close", "code": GOING_AWAY}))


class GateKeeper:
    """Judges each request at the gate, and lets the held ones in when that changes.

    Args:
        settings: How long, and how many.
        judge: Called with a path as the app sees it.
        key_of: Called with it, too; what `judge` would give as the verdict's key.
        observe: Told of held and refused requests.
        news: Woken when verdicts may have changed.
        hears: Whether *observe* would do anything with an event of a kind. Otherwise a
            refusal that is remembered is not made one of: there may be many.
    """

    def __init__(
        self,
        settings: Gate,
        judge: Callable[[str], Verdict],
        key_of: Callable[[str], Hashable],
        observe: Callable[[Event], None],
        news: Waiters,
        hears: Callable[[type[Event]], bool],
    ) -> None:
        self._hears = hears
        self._settings = settings
        self._judge = judge
        self._key_of = key_of
        self._observe = observe
        self._held = 0
        self._closed: dict[Hashable, Closed] = {}
        self._waiting: dict[Hashable, dict[HeldRequest, None]] = {}
        self._news = news

    def pass_or_refuse(
        self, path: str, scope: Scope, receive: Receive, send: Send, go: Go
    ) -> Awaitable[None]:
        """Call *go* with what to receive from, once the request may pass; or refuse.

        Returns:
            What is to be awaited. It decides at once, and adds no frame of its own.
        """
        closed = self._closed.get(self._key_of(path))
        if (
            closed is not None
            and closed.wakings == self._news.wakings
            and closed.until > monotonic()
        ):
            if self._hears(RequestRefused):
                return self._refuse(path, closed.refusal, scope, receive, send)
            return _answer(closed.refusal, scope, receive, send)
        verdict = self._judge(path)
        if verdict.admitted:
            return go(receive)
        refusal = _refusal(verdict.reason, _retry_after(verdict.due))
        if verdict.due <= self._settings.wait and self._settings.wait:
            if self._held < self._settings.max_waiting:
                return self._hold(path, verdict.key, scope, receive, send, go)
            refusal = _refusal("full", refusal.retry_after)
        elif verdict.reason == "not ready":
            self._remember(verdict, refusal)
        return self._refuse(path, refusal, scope, receive, send)

    def _remember(self, verdict: Verdict, refusal: Refusal) -> None:
        """Remember that its key is refused, as long as that is the same answer."""
        until = math.inf
        if refusal.retry_after is not None:
            last = max(refusal.retry_after - 1, self._settings.wait)
            until = monotonic() + verdict.due - last
        self._closed[verdict.key] = Closed(self._news.wakings, until, refusal)

    async def refuse_for_good(
        self, path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Refuse a request because it would have no end and the drain is on."""
        await self._refuse(path, _refusal("draining", None), scope, receive, send)

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
                except BaseException:  # It is cancelled, and will not be told of.
                    self._observe(RequestAbandoned(path, now() - began))
                    raise
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
            refusal = _refusal(verdict.reason, _retry_after(verdict.due))
            receive = held.receive
            await self._refuse(held.path, refusal, scope, receive, send, waited)

    def _enqueue(self, key: Hashable, held: HeldRequest) -> None:
        self._held += 1
        self._waiting.setdefault(key, {})[held] = None

    def _dequeue(self, key: Hashable, held: HeldRequest) -> None:
        self._held -= 1
        queue = self._waiting.get(key, {})
        queue.pop(held, None)
        if not queue:
            self._waiting.pop(key, None)

    def _refuse(
        self,
        path: str,
        refusal: Refusal,
        scope: Scope,
        receive: Receive,
        send: Send,
        waited: float = 0.0,
    ) -> Awaitable[None]:
        told = RequestRefused(path, refusal.retry_after, refusal.reason, waited)
        self._observe(told)
        return _answer(refusal, scope, receive, send)


def _answer(
    refusal: Refusal, scope: Scope, receive: Receive, send: Send
) -> Awaitable[None]:
    if scope["type"] == "websocket":
        return deny_websocket(scope, receive, send, refusal.problem)
    answer = refusal.page if prefers_html(scope) else refusal.problem
    return answer_http(scope, send, answer)
