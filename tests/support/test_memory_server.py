"""The server in memory plays its part, and objects to what no server puts up with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from tests.support.memory_server import LifespanError, MemoryServer, ProtocolError
from tests.support.resources import hello


pytestmark = pytest.mark.anyio

App = Callable[[Any, Any, Any], Awaitable[None]]


def saying(*messages: dict[str, Any]) -> App:
    """Make an app that sends *messages*, whatever it is asked."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"hello"}
ACCEPT = {"type": "websocket.accept"}
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
    ],
)
async def test_objects_to_bad_handshakes(
    messages: list[dict[str, Any]], text: str
) -> None:
    """So does what breaks the protocol of WebSockets."""
    with pytest.raises(ProtocolError, match=text):
        await MemoryServer(saying(*messages)).websocket("/").run()


async def test_objects_to_an_extension_that_is_not_there() -> None:
    """A denial is for servers that advertise it."""
    server = MemoryServer(saying(DENY), denies_websockets=False)
    with pytest.raises(ProtocolError, match="not advertised"):
        await server.websocket("/").run()


async def test_objects_to_two_receivers() -> None:
    """Only one task at a time may receive."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            group.start_soon(receive)

    request = MemoryServer(app).http("/", body=None)
    with pytest.raises(ExceptionGroup) as caught:
        await request.run()
    assert caught.group_contains(ProtocolError, match="twice at the same time")


async def test_sending_to_a_client_that_left() -> None:
    """As the specification wants it, that is an `OSError`."""
    request = MemoryServer(saying(START)).http("/")
    request.leave()
    with pytest.raises(OSError, match="has left"):
        await request.run()


async def test_objects_to_a_second_startup_complete() -> None:
    """What is no answer to anything is a violation, in a lifespan too."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for _ in range(2):
            await send({"type": "lifespan.startup.complete"})

    server = MemoryServer(app)
    with pytest.raises(LifespanError) as caught:
        async with server:
            await anyio.wait_all_tasks_blocked()
    assert isinstance(caught.value.__cause__, ProtocolError)
    assert server.said == ["lifespan.startup.complete"]


async def test_an_app_without_a_lifespan() -> None:
    """It cannot be entered, but it can be asked."""
    server = MemoryServer(hello)
    with pytest.raises(LifespanError) as caught:
        async with server:
            pytest.fail("it started")
    assert isinstance(caught.value.__cause__, NotImplementedError)
    assert (await server.get("/")).body == b"hello"
