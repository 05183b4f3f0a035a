"""One request that is held at the gate.

While it waits its messages are read ahead, because that is the only way in which a
server tells that the client has left; what was read is handed on, none is lost.
"""

from __future__ import annotations

import anyio

from .._tasks.bell import Bell
from .types import Message, Receive


READ_AHEAD = 64 * 1024
"""Bytes of body that are kept."""


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
        "_bell",
        "_ended",
        "_error",
        "_messages",
        "_read",
        "_reading",
        "_receive",
        "_size",
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
        self._bell = Bell()
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
        self._bell.ring()

    async def wait(self) -> None:
        """Return when it is released, its client has left, or its time is over."""
        scope = anyio.CancelScope(deadline=self.deadline)
        with scope:
            await self._bell.wait_until(lambda: self.released or self.left)
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
        self._size += len(message.get("body", b""))
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            self.left = True
            self._bell.ring()
