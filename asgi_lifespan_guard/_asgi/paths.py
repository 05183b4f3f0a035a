"""Paths as the app sees them, whatever the server makes of a root path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from .types import Scope


T = TypeVar("T")


def app_path(scope: Scope) -> str:
    """Return the path below ``root_path``.

    uvicorn puts the root path in front of the path (as the specification asks),
    hypercorn, granian and daphne do not; it is stripped where it stands as a whole.
    """
    path: str = scope["path"]
    root_path = scope.get("root_path")
    if not root_path:
        return path
    root = root_path.rstrip("/")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path


def longest_prefix(table: Mapping[str, T], path: str) -> str | None:
    """Return the longest key of *table* that *path* lies under, by whole segments."""
    matching = (prefix for prefix in table if lies_under(path, prefix))
    return max(matching, key=len, default=None)


def lies_under(path: str, prefix: str) -> bool:
    """Whether *path* is *prefix* or below it, by whole segments."""
    stem = prefix.rstrip("/")
    return path in (prefix, stem) or path.startswith(stem + "/")
