"""One request that waits at the gate, and what it has read meanwhile.

Its messages are read ahead, because that is the only way in which a server tells that
the client has left; what was read is handed on, none is lost.
"""

from __future__ import annotations

from typing import TypeGuard

from anyio.lowlevel import checkpoint

from .._tasks.beside import Alarm
from .._tasks.waiting import Waiters
from .reading import size_of, type_of
from .types import Message, Receive


READ_AHEAD = 64 * 1024
"""Bytes of body that are kept, or a little more: up to one message of the server's."""

PER_MESSAGE = 64
"""Bytes that each message counts for on top, or very many empty ones would be free."""


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
        if type_of(message) in ("http.disconnect", "websocket.disconnect"):
            self.left = message
            self._alarm.ring()
            return
        self._size += PER_MESSAGE + size_of(message)
        last = self._kept[-1] if self._kept else None
        if _is_a_piece(last) and _is_a_piece(message):
            self._kept[-1] = _joined(last, message)
        else:
            self._kept.append(message)

    def _tell(self) -> None:
        if self._readings is not None:
            self._readings.wake()


def _is_a_piece(message: Message | None) -> TypeGuard[Message]:
    """Whether *message* is a piece of a body, as a server gives it."""
    if type_of(message) != "http.request" or message is None:
        return False
    return isinstance(message.get("body", b""), bytes | bytearray)


def _joined(kept: Message, message: Message) -> Message:
    """Add a piece of a body to what is kept of it, as servers do among themselves."""
    body = kept.get("body", b"")
    joined = body if isinstance(body, bytearray) else bytearray(body)
    joined += message.get("body", b"")
    more = message.get("more_body", False)
    return {"type": "http.request", "body": joined, "more_body": more}


def _to_hand_on(kept: Message) -> Message:
    if _is_a_piece(kept) and isinstance(kept.get("body"), bytearray):
        return {**kept, "body": bytes(kept["body"])}
    return kept
