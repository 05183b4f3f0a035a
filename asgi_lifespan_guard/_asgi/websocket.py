"""A WebSocket that a drain can end: the app sees a disconnect, the peer a close frame.

WebSockets are few and long, so they are wrapped; HTTP exchanges are not.
"""

from __future__ import annotations

import anyio

from .reading import type_of
from .responses import sent
from .types import Message, Receive, Scope, Send


SERVICE_RESTART = 1012
"""The close code (RFC 6455 registry) for "the service is restarting"."""

REASON = "Service Restart"

PAUSE = 0.01
"""Seconds before an app is told once more that it was ended: one that takes no notice,
and goes on asking or talking, must neither hold the event loop nor burn a core."""


class SocketEndedError(OSError):
    """Raised when an app sends to a WebSocket that a drain has ended."""

    def __init__(self) -> None:
        super().__init__("the WebSocket was closed: the service is restarting (1012)")


class Socket:
    """One WebSocket: stands between the app and the server's *receive* and *send*."""

    __slots__ = (
        "_closed",
        "_connected",
        "_ended",
        "_receive",
        "_receiving",
        "_send",
        "scope",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._receiving: anyio.CancelScope | None = None
        self._connected = False
        self._ended = False
        self._closed = False

    async def receive(self) -> Message:
        """Return the server's next message, or a disconnect once it was ended.

        The first one is a connect all the same: Starlette asserts it.
        """
        if not self._connected:
            self._connected = True
            return await self._receive()
        if not self._ended:
            try:
                with anyio.CancelScope() as self._receiving:
                    return await self._receive()
            finally:
                self._receiving = None
            await self.say_goodbye()
        else:
            await anyio.sleep(PAUSE)
        return {
            "type": "websocket.disconnect",
            "code": SERVICE_RESTART,
            "reason": REASON,
        }

    async def send(self, message: Message) -> None:
        """Pass *message* to the server.

        Raises:
            SocketEndedError: When it was ended, as a server does whose client is gone.
                The app's own close is not minded.
        """
        closes = type_of(message) == "websocket.close"
        if not self._ended:
            self._closed = self._closed or closes
            await self._send(message)
        elif closes:
            await self.say_goodbye()
        else:
            await anyio.sleep(PAUSE)
            raise SocketEndedError

    def end(self) -> None:
        """Let the app see a disconnect from now on."""
        self._ended = True
        if self._receiving is not None:
            self._receiving.cancel()

    async def say_goodbye(self) -> None:
        """Send the peer its close frame (to a handshake: a refusal), once.

        Not while the server's *receive* is awaited, which does it then: granian loses
        the code otherwise.
        """
        if self._closed or self._receiving is not None:
            return
        self._closed = True
        goodbye = {"code": SERVICE_RESTART, "reason": REASON}
        with anyio.CancelScope(shield=True):  # It takes a second at most.
            await sent(lambda: self._send({"type": "websocket.close", **goodbye}))
