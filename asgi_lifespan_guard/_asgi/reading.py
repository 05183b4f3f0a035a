"""What is read of scopes and messages, which may lack what they should have.

A server's are as they should be. Direct calls in somebody's tests, and wrappers around
us, leave keys out; what they get for that is the app's business, and no error of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .types import Scope


def type_of(thing: Any) -> object:
    """Return the type of a scope or message; ``None`` where there is none."""
    try:
        return thing["type"]
    except (KeyError, TypeError):
        return None


def accepts(scope: Scope, media: bytes) -> bool:
    """Whether a client names *media* among what it accepts."""
    try:
        for name, value in scope.get("headers") or ():
            if name == b"accept" and media in value.lower():
                return True
    except (AttributeError, TypeError, ValueError):
        return False
    return False


def has_extension(scope: Scope, name: str) -> bool:
    """Whether the server advertises an extension."""
    extensions = scope.get("extensions")
    return isinstance(extensions, Mapping) and name in extensions


def query_of(scope: Scope) -> bytes:
    """Return the query string."""
    query = scope.get("query_string")
    return query if isinstance(query, bytes) else b""


def state_in(scope: Scope) -> Mapping[str, Any] | None:
    """Return the state, if there is one."""
    state = scope.get("state")
    return state if isinstance(state, Mapping) else None


def size_of(message: Any) -> int:
    """Return how much payload a message has: bytes of body, or of what was sent."""
    if not isinstance(message, Mapping):
        return 0
    payload = message.get("body") or message.get("bytes") or message.get("text")
    return len(payload) if isinstance(payload, bytes | bytearray | str) else 0
