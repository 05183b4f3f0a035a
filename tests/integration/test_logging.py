"""What a person reads who has set up no logging: real servers, and their output."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from examples.demo.servers import COMMANDS, ServerProcess


pytestmark = pytest.mark.slow

AWAY = """
import os
from tenacity import wait_fixed
from asgi_lifespan_guard import Check, Gate, LifespanGuard, Retry, resource

class Database:
    attempts, away = 0, True
    def connect(self):
        self.attempts += 1
        if self.attempts < 4:
            raise ConnectionRefusedError("postgresql://app:hunter2@db refused")
    def ask(self, _):
        if self.attempts == 5:
            raise ConnectionResetError("gone")

database = Database()

@resource(retry=Retry(wait=wait_fixed(0.05)), check=Check(database.ask, every=0.05))
async def db():
    database.connect()
    yield database

@resource(retry=Retry(wait=wait_fixed(60)), required=False)
async def mail():
    yield os.environ["MAIL_URL"]

async def app(scope, receive, send):
    assert scope["type"] == "http"
    database.attempts += 1
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})

guard = LifespanGuard(app, [db, mail], gate=Gate(needs={"/": ()}))
"""

KINDS = ["uvicorn", "gunicorn-uvicorn", "hypercorn"]
LINES = (
    r"db: attempt 1 failed in guarded\.py:\d+, next in 0\.05 s: ConnectionRefusedError",
    r"db: attempt 2 failed, next in 0\.05 s: ConnectionRefusedError",
    r"mail: attempt 1 failed in guarded\.py:\d+, next in 60\.00 s: KeyError: 'MAIL_URL'"
    r"\nTraceback",
    r"db: up after 4 attempts, \d+\.\d s",
)
AFTERWARDS = (
    r"db: check failed \(1\) in guarded\.py:\d+: ConnectionResetError: gone",
    r"db: down: ConnectionResetError: gone",
    r"db: recovered after \d+\.\d s",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a directory with a guarded app in it, and know how gunicorn is called."""
    (tmp_path / "guarded.py").write_text(AWAY)
    command = "gunicorn {app} --bind 127.0.0.1:{port} -k uvicorn.workers.UvicornWorker"
    monkeypatch.setitem(COMMANDS, "gunicorn-uvicorn", command)
    return tmp_path


def hello(server: ServerProcess) -> None:
    """Make one request."""
    answer = httpx.get(server.url(), trust_env=False, timeout=30)
    assert answer.status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_an_outage_and_its_end_are_printed(kind: str, folder: Path) -> None:
    """With the server's default logging, whatever loggers it sets up."""
    with ServerProcess(kind, "guarded:guard", cwd=folder) as server:
        server.wait_bound()
        for line in LINES:
            server.wait_output(line)
        hello(server)  # The database goes away,
        for line in AFTERWARDS[:2]:
            server.wait_output(line)
        hello(server)  # and is back.
        server.wait_output(AFTERWARDS[2])
        server.terminate()
        server.wait()
    assert "hunter2" not in server.output
    assert "attempt 3 failed" not in server.output
