"""Paths as the app sees them, whatever the server makes of a root path."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, TypeVar


T = TypeVar("T")


def app_path(scope: Mapping[str, Any]) -> str:
    """Return the path below ``root_path``; where there is no path, an empty one.

    uvicorn puts the root path in front of the path (as the specification asks),
    hypercorn, granian and daphne do not; it is stripped where it stands as a whole.
    """
    path = scope.get("path")
    if not isinstance(path, str):
        return ""  # A direct call in somebody's tests, whose app reads no path.
    if not scope.get("root_path"):
        return path
    return below_root(path, root_path_of(scope))


def below_root(path: str, root_path: str) -> str:
    """Return *path* without *root_path*, where it stands in front as a whole."""
    root = root_path.rstrip("/")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path


def root_path_of(scope: Mapping[str, Any]) -> str:
    """Return the root path as it is in *scope*; what is no text is none."""
    root_path = scope.get("root_path")
    return root_path if isinstance(root_path, str) else ""


def below(root_path: str, paths: Set[str]) -> Set[str]:
    """Return every path that `app_path` makes one of *paths*, below *root_path*."""
    root = root_path.rstrip("/")
    at_root = {root} if root and "/" in paths else set[str]()
    return paths | {root + path for path in paths} | at_root


def longest_prefix(table: Mapping[str, T], path: str) -> str | None:
    """Return the longest key of *table* that *path* lies under, by whole segments."""
    matching = (prefix for prefix in table if lies_under(path, prefix))
    return max(matching, key=len, default=None)


def lies_under(path: str, prefix: str) -> bool:
    """Whether *path* is *prefix* or below it, by whole segments."""
    stem = prefix.rstrip("/")
    return path in (prefix, stem) or path.startswith(stem + "/")
