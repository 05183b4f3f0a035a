"""Answers that we write ourselves, whole: to HTTP, and to a WebSocket's handshake."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import anyio

from .._frozen import Frozen
from .reading import accepts, has_extension
from .types import Message, Receive, Scope, Send


FAREWELL = 1.0
"""Seconds that the last message of an exchange may take to be sent."""

TRY_AGAIN_LATER = 1013
"""The close code (RFC 6455 registry) for "the service is overloaded or starting"."""


class Answer(Frozen):
    """One whole response.

    Attributes:
        status: The HTTP status.
        content_type: Of the body.
        body: All of it.
        headers: Further ones, as ASGI wants them.
    """

    status: int
    content_type: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @cached_property
    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Every header, as ASGI wants them."""
        return [
            (b"content-type", self.content_type),
            (b"content-length", str(len(self.body)).encode()),
            (b"cache-control", b"no-store"),
            *self.headers,
        ]

    def with_header(self, name: bytes, value: bytes) -> Answer:
        """Return a copy with one more header."""
        return replace(self, headers=(*self.headers, (name, value)))


def json_answer(status: int, content_type: bytes, content: Mapping[str, Any]) -> Answer:
    """Return *content* as JSON."""
    return Answer(status, content_type, json.dumps(content).encode() + b"\n")


def problem(status: int, title: str, detail: str) -> Answer:
    """Return an ``application/problem+json`` answer (RFC 9457)."""
    content = {"type": "about:blank", "title": title, "status": status}
    return json_answer(
        status, b"application/problem+json", {**content, "detail": detail}
    )


def waiting_page(status: int, title: str, detail: str, reload: int | None) -> Answer:
    """Return a small page for people; it reloads itself after *reload* seconds."""
    from html import escape

    refresh = (
        "" if reload is None else f'<meta http-equiv="refresh" content="{reload}">'
    )
    body = _PAGE.format(refresh=refresh, title=escape(title), detail=escape(detail))
    return Answer(status, b"text/html; charset=utf-8", body.encode())


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}
<title>{title}</title>
<style>
body {{ font: 1.1rem/1.5 system-ui, sans-serif; margin: 20vh auto; max-width: 32rem;
        padding: 0 1.5rem; color: #222; background: #fafafa; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #181818; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{detail}</p>
</body>
</html>
"""


def closing(scope: Scope, send: Send) -> Send:
    """Return a *send* that asks an HTTP/1.1 client to come back on a new connection."""
    if not str(scope.get("http_version", "1.1")).startswith("1"):
        return send

    async def send_closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message["headers"], (b"connection", b"close")]
            message = {**message, "headers": headers}
        await send(message)

    return send_closing


def prefers_html(scope: Scope) -> bool:
    """Whether the client is a person's browser: a GET that names ``text/html``."""
    return scope.get("method") == "GET" and accepts(scope, b"text/html")


async def sent(say: Callable[[], Awaitable[None]]) -> bool:
    """Say something that the server may not want to hear any more; say whether it did.

    A client that reads slowly must not hold up a drain, so it is tried for a second.
    """
    with anyio.move_on_after(FAREWELL):
        try:
            await say()
        except Exception:
            return False
        return True
    return False


async def answer_http(scope: Scope, send: Send, answer: Answer) -> None:
    """Send *answer*; to a HEAD request without its body."""
    # Written out, because refusals may be many.
    headers, body = answer.all_headers.copy(), answer.body
    start = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    if scope.get("method") == "HEAD":
        body = b""
    # The specification has a default for it, which Quart's test client does not know.
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def deny_websocket(
    scope: Scope, receive: Receive, send: Send, answer: Answer
) -> None:
    """Answer the handshake with *answer* where the server can, else close before it.

    The extension must not be used where it is not advertised: daphne never answers
    the client then.
    """
    await receive()  # websocket.connect
    if not has_extension(scope, "websocket.http.response"):
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
        return
    start = {"status": answer.status, "headers": answer.all_headers.copy()}
    await send({"type": "websocket.http.response.start", **start})
    body = {"body": answer.body, "more_body": False}
    await send({"type": "websocket.http.response.body", **body})
