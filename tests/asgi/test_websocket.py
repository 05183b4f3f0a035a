"""A WebSocket that is ended: a disconnect for the app, a close frame for the peer."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from asgi_lifespan_guard._asgi.websocket import Socket


pytestmark = pytest.mark.anyio

CONNECT = {"type": "websocket.connect"}
GOODBYE = {"type": "websocket.close", "code": 1012, "reason": "Service Restart"}
GONE = {"type": "websocket.disconnect", "code": 1012, "reason": "Service Restart"}
HELLO = {"type": "websocket.send", "text": "hello"}


class Peer:
    """The server's end of a WebSocket."""

    def __init__(self, *messages: Any) -> None:
        self.sent: list[Any] = []
        self._messages = list(messages)

    async def receive(self) -> Any:
        if not self._messages:
            await anyio.sleep_forever()
        return self._messages.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def between(peer: Peer) -> Socket:
    """Stand in front of *peer*."""
    return Socket({"type": "websocket"}, peer.receive, peer.send)


async def connected(peer: Peer) -> Socket:
    """Stand in front of *peer*, whose connect the app has got."""
    socket = between(peer)
    assert await socket.receive() == CONNECT
    return socket


async def test_until_it_is_ended_messages_pass() -> None:
    """Both ways, as they are."""
    peer = Peer(CONNECT)
    socket = await connected(peer)
    await socket.send(HELLO)
    assert peer.sent == [HELLO]


async def test_a_handshake_that_is_ended_begins_with_its_connect() -> None:
    """Frameworks assert it; the disconnect comes after it."""
    peer = Peer(CONNECT)
    socket = between(peer)
    socket.end()
    assert [await socket.receive(), await socket.receive()] == [CONNECT, GONE]


async def test_who_takes_no_notice_holds_nobody_up() -> None:
    """Neither one that asks for the next message again and again nor one that talks."""
    peer = Peer(CONNECT)
    socket = await connected(peer)
    socket.end()
    with anyio.move_on_after(0.05):
        while True:
            assert await socket.receive() == GONE
    with anyio.move_on_after(0.05):
        while True:
            with pytest.raises(OSError, match="1012"):
                await socket.send(HELLO)


async def test_who_waits_for_a_message_gets_a_disconnect() -> None:
    """The close frame goes out when the server's own wait is over, not before."""
    peer = Peer(CONNECT)
    socket = await connected(peer)
    got: list[Any] = []

    async def listen() -> None:
        got.extend([await socket.receive(), await socket.receive()])

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        await socket.say_goodbye()
        assert peer.sent == []
        socket.end()
    assert got == [GONE, GONE]
    assert peer.sent == [GOODBYE]


async def test_who_sends_gets_an_error() -> None:
    """It is one that servers raise, too, when the client is gone."""
    peer = Peer(CONNECT)
    socket = await connected(peer)
    socket.end()
    await socket.say_goodbye()
    with pytest.raises(OSError, match="1012"):
        await socket.send(HELLO)
    assert await socket.receive() == GONE
    assert peer.sent == [GOODBYE]


async def test_a_close_of_the_app_is_not_minded() -> None:
    """After the end it is what says goodbye, if nobody has; a second is nothing."""
    peer = Peer()
    socket = between(peer)
    socket.end()
    for _ in range(2):
        await socket.send({"type": "websocket.close", "code": 1000})
    assert peer.sent == [GOODBYE]


async def test_what_the_app_has_closed_needs_no_goodbye() -> None:
    """The peer has its close frame."""
    peer = Peer()
    socket = between(peer)
    await socket.send({"type": "websocket.close", "code": 4000})
    socket.end()
    await socket.say_goodbye()
    assert peer.sent == [{"type": "websocket.close", "code": 4000}]
