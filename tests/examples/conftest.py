"""Fixtures for the examples: a database that is down at first, and an upstream."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from examples.demo.postgres import Postgres


class Teapot(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(418)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def upstream() -> Iterator[str]:
    """Serve what the examples call, and return its URL; the answer is 418."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Teapot) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    """Plan a PostgreSQL, and end it after the test; the test starts it."""
    with Postgres(tmp_path) as server:
        yield server
