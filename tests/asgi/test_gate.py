"""The gate: who is held, who is let in, who is refused, and what they are told."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from math import inf
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard import Gate
from asgi_lifespan_guard._asgi import gate
from asgi_lifespan_guard._asgi.gate import (
    BATCH,
    GateKeeper,
    Reason,
    Verdict,
)
from asgi_lifespan_guard._asgi.held import PER_MESSAGE, READ_AHEAD
from asgi_lifespan_guard._asgi.types import Receive
from asgi_lifespan_guard._tasks.waiting import Waiters
from asgi_lifespan_guard.events import (
    Event,
    Observer,
    RequestAbandoned,
    RequestAdmitted,
    RequestHeld,
    RequestRefused,
)
from asgi_lifespan_guard.testing import Request
from tests.recorder import Recorder
from tests.support.memory_server import MemoryServer


pytestmark = pytest.mark.anyio

HOUR = 3600.0
MOMENT = 0.001
BROWSER = (b"accept", b"text/html,application/xhtml+xml")


class Gated:
    """An app behind a gate whose verdict the test says.

    Attributes:
        verdicts: By path; ``soon`` for any other.
        app: Behind the gate; echoes the body where it is not replaced.
        entered: Paths of the requests that were let in, in order.
        judged: Paths that were asked about.
        server: Puts requests to the gate.
    """

    soon = Verdict(False, None)

    def __init__(self, observe: Observer, gate: Gate | None = None) -> None:
        self.verdicts: dict[str, Verdict] = {}
        self.entered: list[str] = []
        self.judged: list[str] = []
        self.app: Any = echo
        self.server = MemoryServer(self._serve)
        self.news = Waiters()
        self.keeper = GateKeeper(
            gate or Gate(wait=HOUR),
            self._judge,
            lambda path: self.verdicts.get(path, self.soon).key,
            observe,
            self.news,
            lambda kind: True,
        )

    def say(self, verdict: Verdict, *paths: str) -> None:
        """Give the verdict on *paths*, and have the keeper look again."""
        self.verdicts.update(dict.fromkeys(paths or ("/",), verdict))
        self.news.wake()

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[anyio.abc.TaskGroup, None]:
        """Have the gate kept inside the block, and everything put to it finished."""
        async with anyio.create_task_group() as keeping:
            keeping.start_soon(self.keeper.run)
            async with anyio.create_task_group() as group:
                yield group
            keeping.cancel_scope.cancel()

    def _judge(self, path: str) -> Verdict:
        self.judged.append(path)
        return self.verdicts.get(path, self.soon)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        async def go(receive: Receive) -> None:
            self.entered.append(scope["path"])
            await self.app(scope, receive, send)

        await self.keeper.pass_or_refuse(scope["path"], scope, receive, send, go)


ADMITTED = Verdict(True, None)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the request's body; accept a WebSocket and close it."""
    if scope["type"] == "websocket":
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def gated(recorder: Recorder) -> Gated:
    """Return a gate that holds everybody for as long as the test wants."""
    return Gated(recorder)


# Let in.


async def test_lets_in_at_once(gated: Gated, recorder: Recorder) -> None:
    """A request that may pass passes, with the server's own `receive`."""
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(receive)
        await echo(scope, receive, send)

    gated.app = app
    gated.say(ADMITTED)
    request = gated.server.http("/", body=[b"hello"])
    await request.run()
    assert received == [request.receive]
    assert (request.body, recorder.events) == (b"hello", [])


async def test_holds_and_lets_in(gated: Gated, recorder: Recorder) -> None:
    """A held request goes on, whole, as soon as it may."""
    request = gated.server.http("/", method="POST", body=[b"a", b"b", b"", b"c"])
    async with gated.kept() as group:
        group.start_soon(request.run)
        await recorder.wait_for(RequestHeld)
        assert gated.entered == []
        gated.say(ADMITTED)
    assert (request.status, request.body) == (200, b"abc")
    assert [type(event) for event in recorder.events] == [RequestHeld, RequestAdmitted]


async def test_holds_and_lets_in_a_websocket(gated: Gated, recorder: Recorder) -> None:
    """A held WebSocket is accepted by the app as soon as it may."""
    handshake = gated.server.websocket("/")
    async with gated.kept() as group:
        group.start_soon(handshake.run)
        await recorder.wait_for(RequestHeld)
        gated.say(ADMITTED)
    assert [message["type"] for message in handshake.sent] == [
        "websocket.accept",
        "websocket.close",
    ]


async def test_a_body_that_comes_late_arrives(gated: Gated, recorder: Recorder) -> None:
    """What the client sends after the release is received, too, in order."""
    request = gated.server.http("/", method="POST", body=None)
    async with gated.kept() as group:
        group.start_soon(request.run)
        await recorder.wait_for(RequestHeld)
        request.feed({"type": "http.request", "body": b"a", "more_body": True})
        await request.wait_until(lambda: request.reads == 2)
        gated.say(ADMITTED)
        await recorder.wait_for(RequestAdmitted)
        request.feed({"type": "http.request", "body": b"b", "more_body": True})
        await request.wait_until(lambda: request.reads == 3)
        request.feed({"type": "http.request", "body": b"c", "more_body": False})
    assert request.body == b"abc"


async def test_a_large_body_is_not_read_ahead(gated: Gated, recorder: Recorder) -> None:
    """No more than 64 KiB are kept for a held request; the rest stays outside."""
    pieces = [b"x" * (READ_AHEAD // 2)] * 5
    request = gated.server.http("/", method="POST", body=pieces)
    async with gated.kept() as group:
        group.start_soon(request.run)
        await request.wait_until(lambda: request.reads == 2)
        await anyio.wait_all_tasks_blocked()
        assert request.reads == 2
        gated.say(ADMITTED)
    assert len(request.body) == sum(map(len, pieces))


@pytest.mark.parametrize("piece", [b"", b"x"], ids=["empty", "one-byte"])
async def test_a_body_in_very_many_pieces_is_kept_as_one(
    gated: Gated, recorder: Recorder, piece: bytes
) -> None:
    """Pieces are joined, and there is an end to reading pieces of nothing, too."""
    pieces = [piece] * (READ_AHEAD // PER_MESSAGE + 10)
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            messages.append(await receive())
            more = messages[-1]["more_body"]
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    gated.app = app
    request = gated.server.http("/", method="POST", body=pieces)
    async with gated.kept() as group:
        group.start_soon(request.run)
        await anyio.wait_all_tasks_blocked()
        assert READ_AHEAD // (PER_MESSAGE + 1) <= request.reads < len(pieces)
        gated.say(ADMITTED)
    kept = messages[0]["body"]
    assert type(kept) is bytes
    assert len(messages) == 1 + len(pieces) - (len(kept) or READ_AHEAD // PER_MESSAGE)
    assert b"".join(message["body"] for message in messages) == b"".join(pieces)


async def test_a_server_that_uses_one_message_again(
    gated: Gated, recorder: Recorder
) -> None:
    """Its messages are neither changed nor counted on to stay as they were."""
    message = {"type": "http.request", "body": b"a", "more_body": True}
    request = gated.server.http("/", method="POST", body=None)
    async with gated.kept() as group:
        group.start_soon(request.run)
        request.feed(message, message, {**message, "more_body": False})
        await request.wait_until(lambda: request.reads == 4)
        gated.say(ADMITTED)
    assert request.body == b"aaa"
    assert message["body"] == b"a"


async def test_what_a_websocket_says_early_counts_too(
    gated: Gated, recorder: Recorder
) -> None:
    """Over HTTP/2 a client can talk before it was let in; that is bounded as well."""
    text = {"type": "websocket.receive", "text": "x" * READ_AHEAD}
    heard = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.extend([await receive() for _ in range(3)])
        await send({"type": "websocket.close"})

    gated.app = app
    handshake = gated.server.websocket("/")
    handshake.feed(text, text)
    async with gated.kept() as group:
        group.start_soon(handshake.run)
        await anyio.wait_all_tasks_blocked()
        assert handshake.reads == 2
        gated.say(ADMITTED)
    assert heard == [{"type": "websocket.connect"}, text, text]


async def test_an_app_that_reads_nothing(gated: Gated, recorder: Recorder) -> None:
    """What was read ahead for an app that does not want it is dropped."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    gated.app = app
    request = gated.server.http("/")
    async with gated.kept() as group:
        group.start_soon(request.run)
        await request.wait_until(lambda: request.reads == 2)
        gated.say(ADMITTED)
    assert request.status == 204


async def _be_let_in_and_leave(gated: Gated, recorder: Recorder) -> None:
    """Be a client who is held, reaches the app, and goes."""
    request = gated.server.http("/")
    async with gated.kept() as group:
        group.start_soon(request.run)
        await recorder.wait_for(RequestHeld)
        gated.say(ADMITTED)
        await recorder.wait_for_mark("in")
        request.leave()


async def test_a_client_that_leaves_later_is_seen_by_the_app(
    gated: Gated, recorder: Recorder
) -> None:
    """Once let in, the app receives the disconnect as it would have."""
    gone = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        recorder.mark("in")
        gone.extend([await receive(), await receive(), await receive()])

    gated.app = app
    await _be_let_in_and_leave(gated, recorder)
    assert [message["type"] for message in gone] == [
        "http.request",
        "http.disconnect",
        "http.disconnect",
    ]


@pytest.mark.parametrize("leaves", ["while it waits", "before"])
async def test_everybody_who_receives_hears_that_the_client_left(
    gated: Gated, recorder: Recorder, leaves: str
) -> None:
    """Two of them do in a framework that watches the client beside a stream."""
    heard = []

    async def hear(receive: Receive) -> None:
        heard.append((await receive())["type"])
        await checkpoint()  # Does not stop the others.
        heard.append((await receive())["type"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if leaves == "before":
            request.leave()
            await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as listening:
            listening.start_soon(hear, receive)
            listening.start_soon(hear, receive)
            await anyio.wait_all_tasks_blocked()
            request.leave()

    gated.app = app
    request = gated.server.http("/")
    async with gated.kept() as group:
        group.start_soon(request.run)
        await recorder.wait_for(RequestHeld)
        gated.say(ADMITTED)
    assert heard == ["http.disconnect"] * 4


async def test_who_asks_for_ever_whether_the_client_left_does_not_hold_the_loop(
    gated: Gated, recorder: Recorder
) -> None:
    """The answer is always there, and others run in between all the same."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        recorder.mark("in")
        with anyio.move_on_after(MOMENT):
            while True:
                await receive()

    gated.app = app
    await _be_let_in_and_leave(gated, recorder)


async def test_only_those_it_concerns_are_let_in(
    gated: Gated, recorder: Recorder
) -> None:
    """A verdict on one key lets in the requests with that key, no others."""
    gated.say(Verdict(False, "a"), "/a1", "/a2")
    gated.say(Verdict(False, "b"), "/b")
    async with gated.kept() as group:
        for path in ("/a1", "/b", "/a2"):
            group.start_soon(gated.server.get, path)
        await recorder.wait_for(RequestHeld, 3)
        gated.say(Verdict(True, "a"), "/a1", "/a2")
        await recorder.wait_for(RequestAdmitted, 2)
        await anyio.wait_all_tasks_blocked()
        assert sorted(gated.entered) == ["/a1", "/a2"]
        gated.say(Verdict(True, "b"), "/b")
    assert gated.entered[-1] == "/b"


async def test_news_without_a_decision_lets_nobody_in(
    gated: Gated, recorder: Recorder
) -> None:
    """Looking again changes nothing as long as the verdict stays."""
    async with gated.kept() as group:
        group.start_soon(gated.server.get, "/")
        await recorder.wait_for(RequestHeld)
        gated.news.wake()
        await anyio.wait_all_tasks_blocked()
        assert gated.entered == []
        gated.say(ADMITTED)


async def test_lets_in_by_batches(gated: Gated, recorder: Recorder) -> None:
    """A crowd is let in batch by batch; others run in between."""
    crowd = 6 * BATCH
    seen = [0]

    async def bystander() -> None:
        while len(gated.entered) < crowd:
            await checkpoint()
            seen.append(len(gated.entered))

    async with gated.kept() as group:
        for _ in range(crowd):
            group.start_soon(gated.server.get, "/")
        await recorder.wait_for(RequestHeld, crowd)
        gated.say(ADMITTED)
        group.start_soon(bystander)
    steps = [later - earlier for earlier, later in pairwise(seen)]
    assert len(gated.entered) == crowd
    assert max(steps) <= 2 * BATCH


# Refused.


FIVE = Gate(wait=5)


@pytest.mark.parametrize(
    ("gate", "due", "retry_after", "reason", "told"),
    [
        pytest.param(FIVE, 5.1, "6", "not ready", "not ready", id="too-far"),
        pytest.param(Gate(wait=0), 0.0, "1", "not ready", "not ready", id="no-wait"),
        pytest.param(FIVE, inf, None, "not ready", "not ready", id="never"),
        pytest.param(FIVE, inf, None, "never started", "never started", id="idle"),
        pytest.param(FIVE, inf, None, "stopped", "stopped", id="stopped"),
        pytest.param(Gate(max_waiting=0), 2.0, "2", "not ready", "full", id="full"),
    ],
)
async def test_refuses_at_once(
    recorder: Recorder,
    gate: Gate,
    due: float,
    retry_after: str | None,
    reason: Reason,
    told: str,
) -> None:
    """Who cannot be let in within the wait is told so, and when to come back."""
    gated = Gated(recorder, gate)
    gated.say(Verdict(False, None, due, reason))
    request = await gated.server.get("/")
    assert (request.status, request.reads) == (503, 0)
    assert request.headers["content-type"] == "application/problem+json"
    assert request.headers.get("retry-after") == retry_after
    assert request.json()["status"] == 503
    seconds = None if retry_after is None else int(retry_after)
    assert recorder.events == [RequestRefused("/", seconds, told, 0.0)]


async def test_the_same_refusal_is_judged_once(
    gated: Gated, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds until there is news, or as many seconds as it tells are another number.

    Each is told of all the same.
    """
    clock = 1000.0
    monkeypatch.setattr(gate, "monotonic", lambda: clock)
    gated.say(Verdict(False, "a", 7200.5), "/a", "/a/b")
    gated.say(Verdict(False, "c", inf), "/c")

    async def told(path: str) -> str | None:
        return (await gated.server.get(path)).headers.get("retry-after")

    assert [await told("/a"), await told("/a/b"), await told("/c")] == [
        "7201",
        "7201",
        None,
    ]
    assert gated.judged == ["/a", "/c"]
    clock += 0.4
    assert await told("/a") == "7201"
    assert gated.judged == ["/a", "/c"]
    clock += 0.2
    gated.verdicts["/a"] = Verdict(False, "a", 7199.9)
    assert await told("/a") == "7200"
    clock += HOUR
    await told("/c")
    assert gated.judged == ["/a", "/c", "/a"]
    gated.say(ADMITTED, "/a")
    assert (await gated.server.get("/a")).status == 200
    assert len(recorder.of(RequestRefused)) == 6


async def test_who_may_wait_by_now_is_held(
    gated: Gated, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal is not remembered for longer than the wait is too long."""
    clock = 1000.0
    monkeypatch.setattr(gate, "monotonic", lambda: clock)
    gated.say(Verdict(False, None, HOUR + 0.25))
    assert (await gated.server.get("/")).status == 503
    clock += 0.5
    gated.verdicts["/"] = Verdict(False, None, HOUR - 0.25)
    async with gated.kept() as group:
        group.start_soon(gated.server.get, "/")
        await recorder.wait_for(RequestHeld)
        gated.say(ADMITTED)


async def test_nothing_is_made_that_nobody_hears(
    gated: Gated, recorder: Recorder
) -> None:
    """Where no observer is interested a refusal is told of once, until it changes."""
    gated.keeper._hears = lambda kind: False
    gated.say(Verdict(False, None, inf))
    for _ in range(3):
        assert (await gated.server.get("/")).status == 503
    assert recorder.events == [RequestRefused("/", None, "not ready", 0.0)]


async def test_says_what_to_do_where_nothing_was_started(recorder: Recorder) -> None:
    """Where no lifespan ever came the answer names the remedies."""
    gated = Gated(recorder)
    gated.say(Verdict(False, None, inf, "never started"))
    detail = (await gated.server.get("/")).json()["detail"]
    for remedy in ("--lifespan on", "with TestClient(app)", "test_app()"):
        assert remedy in detail


async def test_refuses_after_the_wait(recorder: Recorder) -> None:
    """Who has waited in vain is told when to come back, by what is known then."""

    def observe(event: Event) -> None:
        recorder(event)
        if isinstance(event, RequestHeld):
            impatient.verdicts["/"] = Verdict(False, None, 2.4)

    impatient = Gated(observe, Gate(wait=MOMENT))
    request = await impatient.server.get("/")
    assert (request.status, request.headers["retry-after"]) == (503, "3")
    (refused,) = recorder.of(RequestRefused)
    assert (refused.retry_after, refused.reason) == (3, "not ready")
    assert refused.waited >= MOMENT
    assert impatient.entered == []


async def test_refuses_the_held_when_hope_is_lost(
    gated: Gated, recorder: Recorder
) -> None:
    """The held are answered at once when nothing is to be expected any more."""
    request = gated.server.http("/")
    async with gated.kept() as group:
        group.start_soon(request.run)
        await recorder.wait_for(RequestHeld)
        gated.say(Verdict(False, None, inf, "stopped"))
    assert (request.status, request.headers.get("retry-after")) == (503, None)


async def test_answers_the_held_when_the_gate_is_kept_no_longer(
    gated: Gated, recorder: Recorder
) -> None:
    """When nobody is left to let them in, the held need not wait for it."""
    crowd = 2 * BATCH + 1
    async with anyio.create_task_group() as group:
        async with anyio.create_task_group() as keeping:
            keeping.start_soon(gated.keeper.run)
            for _ in range(crowd):
                group.start_soon(gated.server.get, "/")
            await recorder.wait_for(RequestHeld, crowd)
            keeping.cancel_scope.cancel()
        gated.verdicts["/"] = Verdict(False, None, inf, "stopped")
    assert len(recorder.of(RequestRefused)) == crowd


@pytest.mark.parametrize(
    ("method", "header", "html"),
    [
        ("GET", BROWSER, True),
        ("GET", (b"accept", b"application/json"), False),
        ("POST", BROWSER, False),
        ("HEAD", BROWSER, False),
    ],
)
async def test_shows_people_a_page(
    recorder: Recorder, method: str, header: tuple[bytes, bytes], html: bool
) -> None:
    """A browser's GET gets a page that reloads itself, everybody else a problem."""
    gated = Gated(recorder, Gate(wait=0))
    gated.say(Verdict(False, None, 3.0))
    request = await gated.server.http("/", method=method, headers=[header]).run()
    assert request.headers["content-type"].startswith("text/html") is html
    assert request.headers["retry-after"] == "3"
    assert (b'content="3"' in request.body) is html


@pytest.mark.parametrize("wait", [0.0, MOMENT])
@pytest.mark.parametrize("denies", [True, False])
async def test_refuses_websockets(
    recorder: Recorder, wait: float, denies: bool
) -> None:
    """A WebSocket is refused with 503, or closed where the server cannot say so."""
    gated = Gated(recorder, Gate(wait=wait))
    gated.server = MemoryServer(gated._serve, denies_websockets=denies)
    handshake = gated.server.websocket("/", headers=[BROWSER])
    await handshake.run()
    assert handshake.status == (503 if denies else None)
    assert handshake.phase == ("denied" if denies else "closed")
    if denies:
        assert handshake.headers["retry-after"] == "1"
        assert handshake.json()["title"] == "Service Unavailable"


async def test_holds_so_many_and_no_more(recorder: Recorder) -> None:
    """The held ones are counted; when one leaves, another can be held."""
    gated = Gated(recorder, Gate(wait=HOUR, max_waiting=2))
    first, second = gated.server.http("/"), gated.server.http("/")
    async with gated.kept() as group:
        group.start_soon(first.run)
        group.start_soon(second.run)
        await recorder.wait_for(RequestHeld, 2)
        refused = await gated.server.get("/")
        assert recorder.of(RequestRefused) == [RequestRefused("/", 1, "full", 0.0)]
        assert refused.status == 503
        first.leave()
        await recorder.wait_for(RequestAbandoned)
        group.start_soon(gated.server.get, "/")
        await recorder.wait_for(RequestHeld, 3)
        gated.say(ADMITTED)
    assert (second.status, len(gated.entered)) == (200, 2)


# Gone.


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_lets_go_of_a_client_that_left(
    gated: Gated, recorder: Recorder, kind: str
) -> None:
    """Who leaves is not let in, not answered, and does not count any more."""
    make: Any = getattr(gated.server, kind)
    request: Request = make("/")
    async with gated.kept() as group:
        group.start_soon(request.run)
        await recorder.wait_for(RequestHeld)
        request.leave()
    assert [type(event) for event in recorder.events] == [RequestHeld, RequestAbandoned]
    assert (gated.entered, request.sent) == ([], [])


@pytest.mark.parametrize("deaf", [False, True])
async def test_a_handshake_is_ended_whose_client_left(
    gated: Gated, recorder: Recorder, deaf: bool
) -> None:
    """Uvicorn takes one that is left without a word for a fault of the app."""
    handshake = gated.server.websocket("/")
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)
        if deaf:
            raise OSError("the client has left")

    async with gated.kept() as group:
        group.start_soon(gated._serve, handshake.scope, handshake.receive, send)
        await recorder.wait_for(RequestHeld)
        handshake.leave()
    assert sent == [{"type": "websocket.close", "code": 1001}]


async def test_a_cancelled_request_waits_for_what_it_reads(
    gated: Gated, recorder: Recorder
) -> None:
    """No task of ours outlives it, even if the server's `receive` has to clean up."""
    cleaning, cleaned = anyio.Event(), anyio.Event()

    async def receive() -> Any:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                cleaning.set()
                await cleaned.wait()
                recorder.mark("cleaned")

    async def client() -> None:
        scope = gated.server.http("/").scope
        try:
            await gated._serve(scope, receive, None)
        finally:
            recorder.mark("over")

    async with gated.kept() as keeping, anyio.create_task_group() as group:
        group.start_soon(client)
        await recorder.wait_for(RequestHeld)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        keeping.start_soon(_set_after, cleaning, cleaned)
    assert recorder.marks == ["cleaned", "over"]


async def _set_after(first: anyio.Event, second: anyio.Event) -> None:
    await first.wait()
    await anyio.wait_all_tasks_blocked()
    second.set()


async def test_a_cancelled_request_does_not_count_any_more(recorder: Recorder) -> None:
    """A server may cancel a held request's task; then another can be held.

    Whoever counts the held ones is told.
    """
    gated = Gated(recorder, Gate(wait=HOUR, max_waiting=1))
    async with anyio.create_task_group() as group:
        group.start_soon(gated.server.get, "/")
        await recorder.wait_for(RequestHeld)
        group.cancel_scope.cancel()
    assert [type(event) for event in recorder.events] == [RequestHeld, RequestAbandoned]
    async with gated.kept() as group:
        group.start_soon(gated.server.get, "/")
        await recorder.wait_for(RequestHeld, 2)
        gated.say(ADMITTED)
    assert recorder.of(RequestRefused) == []


async def test_a_receive_that_raises_while_held(
    gated: Gated, recorder: Recorder
) -> None:
    """The server's error is raised where the app receives, and only once."""
    request = gated.server.http("/", body=[b"x"])
    outcomes: list[Any] = []
    errors = [OSError("broken pipe")]

    async def receive() -> Any:
        if request.reads == 1 and errors:
            raise errors.pop()
        return await request.receive()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        outcomes.append(await receive())
        with pytest.raises(OSError, match="broken pipe"):
            await receive()
        request.leave()
        outcomes.append(await receive())

    gated.app = app
    async with gated.kept() as group:
        group.start_soon(gated._serve, request.scope, receive, request.send)
        await recorder.wait_for(RequestHeld)
        await anyio.wait_all_tasks_blocked()
        gated.say(ADMITTED)
    assert [message["type"] for message in outcomes] == [
        "http.request",
        "http.disconnect",
    ]


# What the app raises.


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ValueError("boom"), id="exception"),
        pytest.param(ExceptionGroup("two", [ValueError(), KeyError()]), id="group"),
        pytest.param(ExceptionGroup("one", [ValueError("boom")]), id="group-of-one"),
        pytest.param(SystemExit(3), id="base-exception"),
    ],
)
@pytest.mark.parametrize("held", [False, True])
async def test_exceptions_come_through_unchanged(
    recorder: Recorder, gated: Gated, error: BaseException, held: bool
) -> None:
    """What the app raises reaches the server as it is, held or not."""
    caught: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    async def client() -> None:
        try:
            await gated.server.get("/")
        except BaseException as raised:
            caught.append(raised)

    gated.app = app
    async with gated.kept() as group:
        if not held:
            gated.say(ADMITTED)
        group.start_soon(client)
        if held:
            await recorder.wait_for(RequestHeld)
            gated.say(ADMITTED)
    assert caught == [error]
    assert caught[0].__cause__ is caught[0].__context__ is None


async def test_a_send_that_raises_comes_through_unchanged(recorder: Recorder) -> None:
    """A server that raises while the refusal is sent gets its own error back."""
    gated = Gated(recorder, Gate(wait=MOMENT))
    request = gated.server.http("/")

    async def send(message: Any) -> None:
        raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        await gated._serve(request.scope, request.receive, send)
