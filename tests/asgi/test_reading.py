"""Scopes and messages are read gently: what they lack is no error."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_lifespan_guard._asgi.reading import (
    accepts,
    has_extension,
    query_of,
    size_of,
    state_in,
    type_of,
)


ODD: list[Any] = [None, 5, "text", b"bytes", [], [5], {}, object()]


@pytest.mark.parametrize("thing", [*ODD, {"type": None}])
def test_what_has_no_type(thing: Any) -> None:
    """A scope or a message may have no type, or be neither."""
    assert type_of(thing) is None


@pytest.mark.parametrize("value", ODD)
def test_values_of_the_wrong_kind(value: Any) -> None:
    """What is not as it should be counts for nothing."""
    scope = {"headers": value, "extensions": value, "query_string": value}
    assert not accepts(scope, b"text/html")
    assert not has_extension(scope, "websocket.http.response")
    assert query_of(scope) == (b"bytes" if value == b"bytes" else b"")
    assert state_in({"state": value}) == ({} if value == {} else None)
    sized = len(value) if isinstance(value, bytes | str) else 0
    assert size_of({"body": value}) == sized
    assert size_of(value) == 0


@pytest.mark.parametrize(
    "header", [(b"accept",), (b"accept", None), (b"accept", "text/html"), b"accept"]
)
def test_headers_of_the_wrong_kind(header: Any) -> None:
    """One header that cannot be read is no reason to fail."""
    assert not accepts({"headers": [(b"host", b"h"), header]}, b"text/html")


def test_what_is_as_it_should_be() -> None:
    """What is there is found; media types in any case."""
    headers = [(b"host", b"h"), (b"accept", b"a/b, Text/HTML;q=0.9")]
    assert accepts({"headers": headers}, b"text/html")
    assert not accepts({}, b"text/html")
    assert has_extension({"extensions": {"x": {}}}, "x")
    assert query_of({"query_string": b"verbose"}) == b"verbose"
    assert state_in({"state": {"a": 1}}) == {"a": 1}
    assert size_of({"body": b"abc"}) == size_of({"text": "abc"}) == 3
    assert size_of({"body": bytearray(b"abc")}) == 3
    assert type_of({"type": "http"}) == "http"
