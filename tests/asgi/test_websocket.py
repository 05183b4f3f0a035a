"""A WebSocket that is ended: a disconnect for the app, a close frame for the peer."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from asgi_lifespan_guard._asgi.websocket import Socket


pytestmark = pytest.mark.anyio

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


async def test_until_it_is_ended_messages_pass() -> None:
    """Both ways, as they are."""
    peer = Peer({"type": "websocket.connect"})
    socket = between(peer)
    assert await socket.receive() == {"type": "websocket.connect"}
    await socket.send(HELLO)
    assert peer.sent == [HELLO]


async def test_who_waits_for_a_message_gets_a_disconnect() -> None:
    """The close frame goes out when the server's own wait is over, not before."""
    peer = Peer()
    socket = between(peer)
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
    peer = Peer()
    socket = between(peer)
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
