"""Answers that the guard writes itself."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_lifespan_guard._asgi.responses import (
    answer_http,
    deny_websocket,
    prefers_html,
    problem,
    waiting_page,
)
from asgi_lifespan_guard._asgi.types import Receive, Scope, Send
from tests.support.memory_server import MemoryServer


pytestmark = pytest.mark.anyio

SORRY = problem(503, "Sorry", "Come back <later>.").with_header(b"retry-after", b"7")


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer everything with SORRY."""
    if scope["type"] == "http":
        await answer_http(scope, send, SORRY)
    else:
        await deny_websocket(scope, receive, send, SORRY)


async def test_answers_a_request() -> None:
    """A whole response is sent: status, type, length, no caching, body."""
    response = await MemoryServer(refuse).get("/")
    assert response.status == 503
    assert response.headers == {
        "content-type": "application/problem+json",
        "content-length": str(len(response.body)),
        "cache-control": "no-store",
        "retry-after": "7",
    }
    assert response.json() == {
        "type": "about:blank",
        "title": "Sorry",
        "status": 503,
        "detail": "Come back <later>.",
    }


async def test_answers_head_without_a_body() -> None:
    """A HEAD request gets the same headers, length included, and no body."""
    server = MemoryServer(refuse)
    whole = await server.get("/")
    head = await server.http("/", method="HEAD").run()
    assert (head.headers, head.body) == (whole.headers, b"")


async def test_denies_a_websocket_through_the_extension() -> None:
    """Where the server advertises the extension the client sees the whole answer."""
    handshake = await MemoryServer(refuse).websocket("/").run()
    assert (handshake.status, handshake.json()["title"]) == (503, "Sorry")
    assert handshake.phase == "denied"


@pytest.mark.parametrize(
    ("kind", "method"), [("http", "GET"), ("http", "HEAD"), ("websocket", "GET")]
)
async def test_says_that_nothing_more_comes(kind: str, method: str) -> None:
    """The last message of an answer says that it is, to whoever knows no default."""
    request: Any = getattr(MemoryServer(refuse), kind)("/")
    request.scope["method"] = method
    await request.run()
    assert request.sent[-1]["more_body"] is False


async def test_closes_a_websocket_where_the_extension_is_missing() -> None:
    """Elsewhere the handshake is closed before it is accepted."""
    server = MemoryServer(refuse, denies_websockets=False)
    handshake = await server.websocket("/").run()
    assert handshake.sent == [{"type": "websocket.close", "code": 1013}]


async def test_closes_a_websocket_without_any_extensions() -> None:
    """The extensions may be ``None`` in a scope."""
    handshake = MemoryServer(refuse, denies_websockets=False).websocket("/")
    handshake.scope["extensions"] = None
    await handshake.run()
    assert handshake.phase == "closed"


def test_page_escapes_and_reloads() -> None:
    """The page for people escapes its texts, and reloads itself when told when."""
    page = waiting_page(503, "A & B", "<script>", 3).body.decode()
    assert "A &amp; B" in page
    assert "&lt;script&gt;" in page
    assert '<meta http-equiv="refresh" content="3">' in page


def test_page_does_not_reload_without_hope() -> None:
    """Where nothing is to be expected the page stays as it is."""
    assert b"refresh" not in waiting_page(503, "T", "D", None).body


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        pytest.param("GET", [(b"accept", b"text/html,*/*;q=0.8")], True, id="browser"),
        pytest.param("GET", [(b"accept", b"Text/HTML")], True, id="any-case"),
        pytest.param("GET", [(b"accept", b"*/*")], False, id="curl"),
        pytest.param("GET", [(b"x-accept", b"text/html")], False, id="another-header"),
        pytest.param("GET", [], False, id="nothing-said"),
        pytest.param("POST", [(b"accept", b"text/html")], False, id="post"),
        pytest.param("HEAD", [(b"accept", b"text/html")], False, id="head"),
    ],
)
def test_knows_a_browser(
    method: str, headers: list[tuple[bytes, bytes]], expected: bool
) -> None:
    """HTML is for a GET that names it, and for nothing else."""
    assert prefers_html({"method": method, "headers": headers}) is expected
