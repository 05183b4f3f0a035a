"""Every server that tests run apps on serves, stops and leaves nothing behind."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from examples.demo import wait_until
from examples.demo.servers import COMMANDS, ServerProcess


pytestmark = pytest.mark.slow

HELLO = """
import os, sys
print("imported with", os.environ.get("GREETING"), flush=True)

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only HTTP here")
    body = os.environ.get("GREETING", "hello").encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

ROOT = Path(__file__).parents[2]
START_AND_STAY = """
import sys
from examples.demo.servers import ServerProcess

server = ServerProcess("hypercorn", "hello:app", cwd=sys.argv[1])
server.start()
server.wait_bound()
print(*(process.pid for process in server.processes()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """Make a directory with an app in it, ``hello:app``."""
    (tmp_path / "hello.py").write_text(HELLO)
    return tmp_path


@pytest.mark.parametrize("kind", COMMANDS)
def test_serves_and_exits_on_sigterm(kind: str, hello: Path) -> None:
    """Every server serves a plain app, and SIGTERM ends it."""
    with ServerProcess(kind, "hello:app", cwd=hello) as server:
        assert 0 < server.wait_bound() == server.bound_at
        assert httpx.get(server.url("/any"), trust_env=False).text == "hello"
        server.terminate()
        assert server.wait() in (0, -signal.SIGTERM)
        # Hypercorn's multiprocessing has a helper that notices a moment later.
        assert wait_until(lambda: not server.processes(), timeout=30)


def test_passes_environment_and_arguments_on(hello: Path) -> None:
    """The app sees ``env``, and the server its further arguments."""
    with ServerProcess(
        "uvicorn",
        "hello:app",
        cwd=hello,
        env={"GREETING": "good day"},
        args=("--header", "x-extra:yes"),
    ) as server:
        server.wait_bound()
        answer = httpx.get(server.url(), trust_env=False)
    assert (answer.text, answer.headers["x-extra"]) == ("good day", "yes")


def test_waits_for_output(hello: Path) -> None:
    """Waiting for output finds what has been and what will be written."""
    with ServerProcess(
        "uvicorn", "hello:app", cwd=hello, env={"GREETING": "you"}
    ) as server:
        assert server.wait_output(r"^imported with (\w+)$")[1] == "you"
        server.wait_output("Uvicorn running")
        assert server.wait_output(r"^imported with (\w+)$")[1] == "you"
        with pytest.raises(TimeoutError, match="Uvicorn running"):
            server.wait_output("never said", timeout=0.05)


def test_does_not_wait_for_a_dead_server(tmp_path: Path) -> None:
    """Where the server ends instead, waiting ends too, and says what it wrote."""
    with ServerProcess("uvicorn", "missing:app", cwd=tmp_path) as server:
        with pytest.raises(TimeoutError, match=r"it ended(.|\n)*Could not import"):
            server.wait_bound(timeout=30)
        assert server.wait() > 0
        assert server.bound_at is None


def test_wait_is_bounded(hello: Path) -> None:
    """Waiting for the end of a server that goes on serving ends in an error."""
    with (
        ServerProcess("uvicorn", "hello:app", cwd=hello) as server,
        pytest.raises(TimeoutError, match="its end"),
    ):
        server.wait(timeout=0.05)


@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn", "granian"])
def test_leaves_no_process_behind(kind: str, hello: Path) -> None:
    """Leaving the block ends the server and all of its workers."""
    with ServerProcess(kind, "hello:app", cwd=hello) as server:
        server.wait_bound()
        assert server.processes()
    assert server.processes() == []
    assert server.wait() == -signal.SIGKILL


def test_ends_with_the_process_that_started_it(hello: Path) -> None:
    """If whoever started it is killed, the server ends, and all of its workers."""
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_STAY, str(hello)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as owner:
        assert owner.stdout is not None
        orphans = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
        assert len(orphans) > 1
        owner.kill()
    assert psutil.wait_procs(orphans, timeout=30)[1] == []
