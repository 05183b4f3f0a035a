"""What is left of a path below its root path, and which prefix it lies under."""

from __future__ import annotations

import pytest

from asgi_lifespan_guard._asgi.paths import app_path, longest_prefix


@pytest.mark.parametrize(
    ("root_path", "path", "expected"),
    [
        pytest.param("", "/readyz", "/readyz", id="no-root"),
        pytest.param("/api", "/api/readyz", "/readyz", id="uvicorn"),
        pytest.param("/api", "/readyz", "/readyz", id="hypercorn"),
        pytest.param("/api/", "/api/readyz", "/readyz", id="trailing-slash"),
        pytest.param("/api", "/api", "/", id="root-itself"),
        pytest.param("/api", "/apiary", "/apiary", id="no-segment-boundary"),
        pytest.param("/api", "/api/api/x", "/api/x", id="stripped-once"),
        pytest.param("/", "/x", "/x", id="slash"),
        pytest.param(None, "/x", "/x", id="none"),
        pytest.param("/api", "/api*", "/api*", id="options-star"),
    ],
)
def test_strips_the_root_path(root_path: str | None, path: str, expected: str) -> None:
    """The root path is stripped where it stands as whole segments, else left alone."""
    assert app_path({"path": path, "root_path": root_path}) == expected


def test_needs_no_root_path() -> None:
    """A scope may leave the root path out."""
    assert app_path({"path": "/x"}) == "/x"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/docs", "/docs"),
        ("/docs/", "/docs"),
        ("/docs/a", "/docs"),
        ("/docs/api", "/docs/api"),
        ("/docs/api/x", "/docs/api"),
        ("/docsearch", None),
        ("/search", "/search/"),
        ("/search/x", "/search/"),
        ("/", None),
    ],
)
def test_finds_the_longest_prefix(path: str, expected: str | None) -> None:
    """The longest listed prefix wins, and only on a segment boundary."""
    table = {"/docs": 1, "/docs/api": 2, "/search/": 3}
    assert longest_prefix(table, path) == expected


@pytest.mark.parametrize("path", ["/", "/any/thing"])
def test_a_slash_is_a_prefix_of_everything(path: str) -> None:
    """The prefix "/" is every path's, unless a longer one is listed."""
    assert longest_prefix({"/": 1, "/x": 2}, path) == "/"
