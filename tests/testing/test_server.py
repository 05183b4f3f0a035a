"""The server in memory plays its part, and objects to what no server puts up with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard.testing import LifespanError, MemoryServer, ProtocolError
from tests.support.resources import hello


pytestmark = pytest.mark.anyio

App = Callable[[Any, Any, Any], Awaitable[None]]


def saying(*messages: dict[str, Any]) -> App:
    """Make an app that sends *messages*, whatever it is asked."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def receiving_first(app: App) -> App:
    """Make an app that receives before it goes on."""

    async def receiving(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await app(scope, receive, send)

    return receiving


START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"hello"}
ACCEPT = {"type": "websocket.accept"}
SEND = {"type": "websocket.send", "text": "hello"}
CLOSE = {"type": "websocket.close", "code": 1000}
DENIED = {"type": "websocket.http.response.body", "body": b"no"}
DENY = {"type": "websocket.http.response.start", "status": 403, "headers": []}


async def test_answers() -> None:
    """A response is put together from its pieces."""
    header = (b"Content-Length", b"10")
    start = {**START, "headers": [header]}
    app = saying(start, {**BODY, "more_body": True}, BODY)
    response = await MemoryServer(app).get("/?q=1")
    assert response.scope["query_string"] == b"q=1"
    assert (response.status, response.body) == (200, b"hellohello")
    assert response.headers == {"content-length": "10"}


async def test_answers_in_json() -> None:
    """What is JSON is read as such."""
    app = saying(START, {**BODY, "body": b'{"up": true}'})
    assert (await MemoryServer(app).get("/")).json() == {"up": True}


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        pytest.param([], "client is unanswered", id="nothing"),
        pytest.param([START], "client is started", id="half"),
        pytest.param([BODY], "sent while unanswered", id="body-first"),
        pytest.param([START, START], "sent while started", id="two-starts"),
        pytest.param([START, BODY, BODY], "sent while answered", id="two-bodies"),
        pytest.param([ACCEPT], "sent while unanswered", id="foreign"),
        pytest.param(
            [{**START, "headers": [("a", "b")]}], "is no header", id="text-header"
        ),
        pytest.param([{}], "None sent while unanswered", id="no-type"),
        pytest.param([{"type": b"x"}], "b'x' sent while", id="bytes-type"),
        pytest.param([{"type": START["type"]}], "has no status", id="no-status"),
        pytest.param([{**START, "status": "200"}], "status='200'", id="text-status"),
        pytest.param([{**START, "headers": None}], "headers=None", id="no-headers"),
        pytest.param(
            [START, {**BODY, "body": "hello"}], "body='hello'", id="text-body"
        ),
        pytest.param([START, {**BODY, "more_body": 1}], "more_body=1", id="more-body"),
        pytest.param(
            [{**START, "headers": [(b"content-length", b"9")]}, BODY],
            "5 bytes of body instead of 9",
            id="length",
        ),
    ],
)
async def test_objects_to_bad_responses(
    messages: list[dict[str, Any]], text: str
) -> None:
    """What breaks the protocol of HTTP raises where it is said, or left unsaid."""
    with pytest.raises(ProtocolError, match=text):
        await MemoryServer(saying(*messages)).get("/")


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        pytest.param([], "client is unanswered", id="nothing"),
        pytest.param([DENY], "client is denying", id="half"),
        pytest.param([ACCEPT, ACCEPT], "sent while open", id="two-accepts"),
        pytest.param([START], "sent while unanswered", id="foreign"),
        pytest.param([SEND], "sent while unanswered", id="send-first"),
        pytest.param([CLOSE, SEND], "sent while closed", id="send-last"),
        pytest.param([ACCEPT, CLOSE, CLOSE], "sent while closed", id="two-closes"),
        pytest.param([{**CLOSE, "code": "1000"}], "code='1000'", id="text-code"),
        pytest.param([{**ACCEPT, "subprotocol": b"a"}], "subprotocol=", id="protocol"),
        pytest.param([ACCEPT, {**SEND, "text": b"a"}], "text=b'a'", id="bytes-text"),
        pytest.param([ACCEPT, {"type": SEND["type"]}], "either bytes or", id="neither"),
        pytest.param([ACCEPT, {**SEND, "bytes": b"a"}], "either bytes or", id="both"),
        pytest.param([DENY, DENIED, DENIED], "sent while denied", id="two-denials"),
    ],
)
async def test_objects_to_bad_handshakes(
    messages: list[dict[str, Any]], text: str
) -> None:
    """So does what breaks the protocol of WebSockets."""
    app = receiving_first(saying(*messages))
    with pytest.raises(ProtocolError, match=text):
        await MemoryServer(app).websocket("/").run()


async def test_talks_over_websockets() -> None:
    """An app may say what it likes between accepting and closing."""
    data = {"type": "websocket.send", "bytes": b"hello", "text": None}
    talk = await MemoryServer(saying(ACCEPT, SEND, data, CLOSE)).websocket("/").run()
    assert [m["type"] for m in talk.sent][1:3] == ["websocket.send"] * 2
    assert talk.phase == "closed"


async def test_objects_to_an_extension_that_is_not_there() -> None:
    """A denial is for servers that advertise it."""
    server = MemoryServer(saying(DENY), denies_websockets=False)
    with pytest.raises(ProtocolError, match="not advertised"):
        await server.websocket("/").run()


async def test_several_receivers_share_what_comes() -> None:
    """Each gets a message of its own, as from a server's queue."""
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def hear() -> None:
            heard.append((await receive())["body"].decode())

        async with anyio.create_task_group() as group:
            group.start_soon(hear)
            group.start_soon(hear)
        await hello(scope, receive, send)

    request = MemoryServer(app).http("/", method="POST", body=None)
    async with anyio.create_task_group() as group:
        group.start_soon(request.run)
        for piece in (b"a", b"b"):
            await anyio.wait_all_tasks_blocked()
            assert request.receiving
            request.feed({"type": "http.request", "body": piece, "more_body": True})
    assert sorted(heard) == ["a", "b"]
    assert not request.receiving


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "answered"])
@pytest.mark.parametrize(
    ("kind", "messages", "expected"),
    [
        pytest.param("http", [START, BODY], "http.disconnect", id="http"),
        pytest.param("websocket", [CLOSE], "websocket.disconnect", id="closed"),
        pytest.param("websocket", [DENY, DENIED], "websocket.disconnect", id="denied"),
    ],
)
async def test_who_waits_hears_of_the_end(
    kind: str, messages: list[dict[str, Any]], expected: str, leaves: bool
) -> None:
    """Receivers that wait are told of it: the client left, or got all of its answer."""
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def hear() -> None:
            heard.append((await receive())["type"])

        await receive()
        async with anyio.create_task_group() as group:
            group.start_soon(hear)
            group.start_soon(hear)
            await anyio.wait_all_tasks_blocked()
            assert heard == []
            if leaves:
                request.leave()
            else:
                await saying(*messages)(scope, receive, send)

    request: Any = getattr(MemoryServer(app), kind)("/")
    await request.run()
    assert heard == [expected] * 2


async def test_sending_to_a_client_that_left() -> None:
    """As the specification wants it, that is an `OSError`."""
    request = MemoryServer(saying(START)).http("/")
    request.leave()
    with pytest.raises(OSError, match="has left"):
        await request.run()


async def test_that_a_client_left_is_said_again() -> None:
    """Who asks twice is told twice, as by servers; so is who has answered."""
    heard = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await saying(START, BODY)(scope, receive, send)
        heard.extend([(await receive())["type"] for _ in range(2)])

    await MemoryServer(app).get("/")
    request = MemoryServer(hello).http("/", body=None)
    request.leave()
    heard.extend([(await request.receive())["type"] for _ in range(2)])
    assert heard == ["http.disconnect"] * 4


COMPLETE = {"type": "lifespan.startup.complete"}
FAILED = {"type": "lifespan.startup.failed", "message": "no database"}
GONE = {"type": "lifespan.shutdown.complete"}
NOT_GONE = {"type": "lifespan.shutdown.failed"}
RECEIVE = {"type": "receive"}


def living(*steps: dict[str, Any]) -> App:
    """Make an app whose lifespan sends and receives, step by step."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for step in steps:
            await (receive() if step is RECEIVE else send(step))

    return app


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        pytest.param([COMPLETE], "what was not received", id="unasked"),
        pytest.param([RECEIVE, COMPLETE, COMPLETE], "while serving", id="again"),
        pytest.param([RECEIVE, GONE], "while starting", id="shutdown-first"),
        pytest.param([RECEIVE, COMPLETE, GONE], "while serving", id="gone-early"),
        pytest.param([RECEIVE, COMPLETE, FAILED], "while serving", id="both"),
        pytest.param([RECEIVE, FAILED, COMPLETE], "while failed", id="both-otherwise"),
        pytest.param([RECEIVE, START], "while starting", id="foreign"),
        pytest.param([RECEIVE, {}], "None sent while starting", id="no-type"),
        pytest.param([RECEIVE, {**FAILED, "message": None}], "message=", id="message"),
        pytest.param(
            [RECEIVE, COMPLETE, RECEIVE, GONE, GONE], "while stopped", id="gone-twice"
        ),
        pytest.param(
            [RECEIVE, COMPLETE, RECEIVE, COMPLETE], "while stopping", id="up-again"
        ),
    ],
)
async def test_objects_to_bad_lifespans(steps: list[dict[str, Any]], text: str) -> None:
    """What is no answer to what was asked is a violation, in a lifespan too."""
    with pytest.raises(LifespanError) as caught:
        async with MemoryServer(living(*steps)):
            await anyio.wait_all_tasks_blocked()
    assert isinstance(caught.value.__cause__, ProtocolError)
    assert text in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        pytest.param([], "without an answer to lifespan.startup", id="nothing"),
        pytest.param([RECEIVE], "without an answer to lifespan.startup", id="silent"),
        pytest.param([RECEIVE, FAILED], "no database", id="failed"),
        pytest.param(
            [RECEIVE, COMPLETE], "without an answer to lifespan.shutdown", id="left"
        ),
        pytest.param(
            [RECEIVE, COMPLETE, RECEIVE, NOT_GONE], "shutdown", id="shutdown-failed"
        ),
    ],
)
async def test_tells_why_it_did_not_start_or_stop(
    steps: list[dict[str, Any]], text: str
) -> None:
    """What the app said, or did not say, is what is raised."""
    server = MemoryServer(living(*steps))
    with pytest.raises(LifespanError, match=text) as caught:
        async with server:
            await anyio.wait_all_tasks_blocked()
    assert caught.value.__cause__ is None


async def test_an_app_without_a_lifespan() -> None:
    """It cannot be entered, but it can be asked."""
    server = MemoryServer(hello)
    with pytest.raises(LifespanError) as caught:
        async with server:
            pytest.fail("it started")
    assert isinstance(caught.value.__cause__, NotImplementedError)
    assert (await server.get("/")).body == b"hello"
    async with MemoryServer(hello, lifespan="auto") as server:
        assert (await server.get("/")).body == b"hello"
        assert server.said == []
