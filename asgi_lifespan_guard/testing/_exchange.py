"""What is said in one scope, with a server's strictness about the protocol.

An app that says what its scope does not allow gets a `ProtocolError`. The tables tell
what is allowed.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from .._asgi.types import Message


Table: TypeAlias = Mapping[str, Mapping[str, str]]

# Phase × message type → next phase. What is not listed is a violation.
LIFESPAN: Table = {
    "starting": {
        "lifespan.startup.complete": "serving",
        "lifespan.startup.failed": "failed",
    },
    "stopping": {
        "lifespan.shutdown.complete": "stopped",
        "lifespan.shutdown.failed": "failed",
    },
}
HTTP: Table = {
    "unanswered": {"http.response.start": "started"},
    "started": {"http.response.body": "answered"},
}
WEBSOCKET: Table = {
    "unanswered": {
        "websocket.accept": "open",
        "websocket.close": "closed",
        "websocket.http.response.start": "denying",
    },
    "denying": {"websocket.http.response.body": "denied"},
    "open": {"websocket.send": "open", "websocket.close": "closed"},
}

# The fields that servers look into, and what they expect there.
FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "body": bytes,
    "bytes": (bytes, type(None)),
    "code": int,
    "headers": Iterable,
    "message": str,
    "more_body": bool,
    "status": int,
    "subprotocol": (str, type(None)),
    "text": (str, type(None)),
}


NO_STATUS = 1005
"""The close code (RFC 6455) of a peer that has said none."""


class ProtocolError(AssertionError):
    """Raised into an app that does what no server need put up with.

    Raised to the test where the app left something undone. An `AssertionError`, so
    that what catches ``Exception`` in the app hides it no better than a failed test.
    """


class Exchange:
    """One scope, and all that is said in it.

    Args:
        app: Called with the scope.
        scope: A dict of its own.
        table: What may be said in it, and when.

    Attributes:
        scope: What the app is called with.
        sent: What the app sent, in order.
        phase: Where the conversation stands, by its table.
        reads: How often the app has asked for a message.
    """

    def __init__(self, app: Any, scope: dict[str, Any], table: Table) -> None:
        self.scope = scope
        self.sent: list[Message] = []
        self.phase = next(iter(table))
        self.reads = 0
        self._receivers = 0
        self._app = app
        self._table = table
        self._inbox: deque[Message] = deque()
        self._news = anyio.Event()

    async def run(self) -> Self:
        """Call the app, and return when it has returned.

        Raises:
            Exception: Whatever the app raises, as it is.
        """
        await self._app(self.scope, self.receive, self.send)
        return self

    def feed(self, *messages: Message) -> None:
        """Give the app something to receive."""
        self._inbox.extend(messages)
        self._tell()

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Return once *condition* holds; asked again whenever something was said."""
        while not condition():
            await self._news.wait()

    @property
    def receiving(self) -> bool:
        """Whether the app is waiting for a message."""
        return self._receivers > 0

    async def receive(self) -> Message:
        """Be the app's ``receive``; of several receivers each gets another message."""
        self._receivers += 1
        self.reads += 1
        self._tell()
        try:
            await checkpoint()
            await self.wait_until(lambda: self._inbox or self._last_message())
        finally:
            self._receivers -= 1
        return self._inbox.popleft() if self._inbox else self._last_message()

    async def send(self, message: Message) -> None:
        """Be the app's ``send``.

        Raises:
            ProtocolError: When the scope does not allow *message*, or not now.
        """
        await checkpoint()
        kind = message.get("type")
        expected = self._table.get(self.phase, {})
        if not isinstance(kind, str) or kind not in expected:
            raise ProtocolError(f"{kind!r} sent while {self.phase}")
        _check_fields(message)
        self._check(message)
        self.sent.append(message)
        if not message.get("more_body"):
            self.phase = expected[kind]
        self._tell()

    def _last_message(self) -> Message:
        """Return what every receiver is told from now on; empty: nothing yet."""
        return {}

    def _check(self, message: Message) -> None:
        if self._inbox:
            raise ProtocolError(f"{message['type']!r} answers what was not received")

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()


class Request(Exchange):
    """A client's request, and the response to it, which a handshake may get too.

    Attributes:
        left: Whether the client has gone away.
    """

    def __init__(self, app: Any, scope: dict[str, Any], table: Table = HTTP) -> None:
        super().__init__(app, scope, table)
        self.left = False

    async def run(self) -> Self:
        """Call the app, and return when it has returned.

        Raises:
            ProtocolError: When it left the client without an answer.
            Exception: Whatever the app raises, as it is.
        """
        await super().run()
        if self.phase in ("unanswered", "started", "denying") and not self.left:
            raise ProtocolError(f"the app returned, and the client is {self.phase}")
        return self

    def leave(self) -> None:
        """Go away before the app is done."""
        self.left = True
        self._tell()

    async def send(self, message: Message) -> None:
        """Be the app's ``send``.

        Raises:
            OSError: When the client has left.
            ProtocolError: When the scope does not allow *message*, or not now.
        """
        if self.left:
            raise OSError("the client has left")
        await super().send(message)

    @property
    def status(self) -> int | None:
        """The response's status; ``None``: there is no response."""
        starts = [m for m in self.sent if m["type"].endswith("response.start")]
        return starts[0]["status"] if starts else None

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers; Django does not write them in lower case."""
        pairs = self.sent[0].get("headers", ()) if self.sent else ()
        return {name.decode().lower(): value.decode() for name, value in pairs}

    @property
    def body(self) -> bytes:
        """The response's body."""
        return b"".join(message.get("body", b"") for message in self.sent)

    def json(self) -> Any:
        """Return the response's body, read as JSON.

        Raises:
            ValueError: When it is none.
        """
        return json.loads(self.body)

    def _last_message(self) -> Message:
        if not self.left and self.phase not in ("answered", "closed", "denied"):
            return {}
        if self.scope["type"] == "http":
            return {"type": "http.disconnect"}
        return {"type": "websocket.disconnect", "code": NO_STATUS, "reason": ""}

    def _check(self, message: Message) -> None:
        if not self._may_deny() and "websocket.http" in message["type"]:
            raise ProtocolError("the app uses an extension that is not advertised")
        if message["type"].endswith("response.start") and "status" not in message:
            raise ProtocolError("the response has no status")
        if message["type"] == "websocket.send":
            _check_payload(message)
        for pair in message.get("headers", ()):
            _check_header(pair)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._check_length(self.body + message.get("body", b""))

    def _check_length(self, body: bytes) -> None:
        promised = self.headers.get("content-length", str(len(body)))
        # Servers drop the body of an answer to HEAD, and frameworks count on it.
        if promised != str(len(body)) and self.scope["method"] != "HEAD":
            raise ProtocolError(f"{len(body)} bytes of body instead of {promised}")

    def _may_deny(self) -> bool:
        return "websocket.http.response" in (self.scope.get("extensions") or ())


def _check_fields(message: Message) -> None:
    for field, kind in FIELDS.items():
        if field in message and not isinstance(message[field], kind):
            value = message[field]
            raise ProtocolError(f"{message['type']!r} has {field}={value!r}")


def _check_payload(message: Message) -> None:
    given = [key for key in ("bytes", "text") if message.get(key) is not None]
    if len(given) != 1:
        raise ProtocolError("'websocket.send' has to have either bytes or text")


def _check_header(pair: Any) -> None:
    name, value = pair
    if not (isinstance(name, bytes) and isinstance(value, bytes)):
        raise ProtocolError(f"{name!r}: {value!r} is no header")
