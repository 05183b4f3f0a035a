"""Real servers, each a process of its own, with every resource out of reach."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets.sync.client as websockets
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

from examples.demo import BlackHole, free_port, wait_until
from examples.demo.servers import COMMANDS, ServerProcess


pytestmark = pytest.mark.slow

GUARDED = """
import json, os, anyio
from tenacity import wait_fixed
from asgi_lifespan_guard import Gate, LifespanGuard, Retry, resource

DSN = "postgresql://app:hunter2@db/shop"

def out_of_reach(name):
    @resource(name=name, retry=Retry(wait=wait_fixed(0.5)))  # so come again in 1 s
    async def connect():
        port = int(os.environ["PORT_" + name.upper()])
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.receive(1)
            yield stream
    return connect

@resource(startup="blocking")
async def model():
    if "BROKEN" in os.environ:
        raise OSError("the model is broken") from OSError(DSN)
    yield "model"
    if "UNCLEAN" in os.environ:
        raise OSError("cannot leave " + DSN)

class Permit:
    def __init__(self):
        self.event = None
    async def wait(self):
        self.event = anyio.Event()
        await self.event.wait()

permit, heard = Permit(), []

@resource
async def slow():
    await permit.wait()
    yield "slow"

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        text = (await receive())["text"] + " from " + slow.get(scope)
        await send({"type": "websocket.send", "text": text})
        await send({"type": "websocket.close"})
        return
    assert scope["type"] == "http"
    if scope["path"].endswith("/permit"):
        permit.event.set()
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    text = json.dumps([body.decode(), list(map(str, heard))]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-length", str(len(text)).encode())]})
    await send({"type": "http.response.body", "body": text})

def hear(event):
    if type(event).__name__.startswith("Request"):
        heard.append(type(event).__name__)

unreachable = [out_of_reach(name) for name in ("refusing", "silent", "dropping")]
away = LifespanGuard(app, [model, *unreachable], gate=Gate(wait=0.05))
open_paths = {"/permit": (), "/heard": ()}
waiting = LifespanGuard(
    app, [slow], gate=Gate(wait=60, needs=open_paths), observers=[hear]
)
"""

ALL = [
    "uvicorn-asyncio",
    "uvicorn-uvloop",
    "hypercorn",
    "hypercorn-w0",
    "hypercorn-trio",
    "granian",
]
QUICK = ["uvicorn-uvloop", "hypercorn-w0", "hypercorn-trio-w0", "granian"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a directory with guarded apps in it."""
    (tmp_path / "guarded.py").write_text(GUARDED)
    return tmp_path


@pytest.fixture
def nowhere() -> Iterator[dict[str, str]]:
    """Name ports that refuse, accept and say nothing, and drop what comes."""
    with BlackHole() as silent, BlackHole(accepts=False) as dropping:
        yield {
            "PORT_REFUSING": str(free_port()),
            "PORT_SILENT": str(silent.port),
            "PORT_DROPPING": str(dropping.port),
        }


def get(server: ServerProcess, path: str, **options: Any) -> httpx.Response:
    """Make one GET request."""
    return httpx.get(server.url(path), trust_env=False, timeout=30, **options)


def connect(server: ServerProcess, path: str) -> Any:
    """Open a WebSocket."""
    url = server.url(path).replace("http", "ws", 1)
    return websockets.connect(url, proxy=None, open_timeout=30)


def assert_serves_while_all_is_away(server: ServerProcess) -> None:
    """Ask probes, an app's path and a WebSocket."""
    server.wait_bound()
    assert get(server, "/livez").status_code == 200
    for path in ("/readyz", "/startupz"):
        assert get(server, path).status_code == 503
    refused = get(server, "/")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    with pytest.raises(InvalidStatus) as denied, connect(server, "/ws"):
        pytest.fail("it was accepted")
    assert denied.value.response.status_code == 503
    assert denied.value.response.headers["retry-after"] == "1"
    assert b"Service Unavailable" in (denied.value.response.body or b"")


@pytest.mark.parametrize("kind", ALL)
def test_the_port_opens_while_everything_is_away(
    kind: str, folder: Path, nowhere: dict[str, str]
) -> None:
    """With every resource out of reach: port, liveness, 503, and a clean end."""
    with ServerProcess(kind, "guarded:away", cwd=folder, env=nowhere) as server:
        assert_serves_while_all_is_away(server)
        server.terminate()
        server.wait()
    # uvicorn has an ERROR line for every handshake that is answered with a response.
    assert "Traceback" not in server.output
    assert "startup failed" not in server.output


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
def test_uvicorns_protocols(
    http: str, ws: str, folder: Path, nowhere: dict[str, str]
) -> None:
    """Every implementation of uvicorn's protocols says the same."""
    args = ("--http", http, "--ws", ws)
    with ServerProcess(
        "uvicorn", "guarded:away", cwd=folder, env=nowhere, args=args
    ) as server:
        assert_serves_while_all_is_away(server)


@pytest.mark.parametrize("kind", QUICK)
def test_held_until_it_is_up(kind: str, folder: Path) -> None:
    """A held POST keeps its body, and a held WebSocket is accepted and served."""
    with ServerProcess(kind, "guarded:waiting", cwd=folder) as server:
        server.wait_bound()
        with ThreadPoolExecutor() as clients:
            posted = clients.submit(post_in_pieces, server)
            talked = clients.submit(talk, server)
            wait_heard(server, "RequestHeld", 2)
            assert get(server, "/permit").status_code == 200
            assert posted.result(30)[0] == "in three pieces"
            assert talked.result(30) == "hello from slow"
        server.terminate()
        server.wait()
    assert_went_well(server)


@pytest.mark.parametrize("kind", QUICK)
def test_a_held_body_in_a_thousand_pieces(kind: str, folder: Path) -> None:
    """Each of one byte, and each sent for itself: they arrive, all and in order."""
    body = b"0123456789" * 100
    with ServerProcess(kind, "guarded:waiting", cwd=folder) as server:
        server.wait_bound()
        with socket.create_connection(("127.0.0.1", server.port), 30) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(_CHUNKED)
            for number in range(len(body)):
                client.sendall(b"1\r\n%b\r\n" % body[number : number + 1])
            wait_heard(server, "RequestHeld", 1)
            client.sendall(b"0\r\n\r\n")
            assert get(server, "/permit").status_code == 200
            answer = HTTPResponse(client)
            answer.begin()
            assert json.load(answer)[0] == body.decode()
        server.terminate()
        server.wait()
    assert_went_well(server)


LEAVING = [
    *(pytest.param(kind, (), id=kind) for kind in QUICK),
    *(
        pytest.param("uvicorn-asyncio", ("--ws", ws), id=f"uvicorn-{ws}")
        for ws in ("wsproto", "websockets", "websockets-sansio")
    ),
]


@pytest.mark.parametrize(("kind", "args"), LEAVING)
def test_clients_that_leave_while_they_are_held(
    kind: str, args: tuple[str, ...], folder: Path
) -> None:
    """Who leaves is not held any more; granian does not tell that of a WebSocket."""
    requests = [b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"]
    if kind != "granian":
        requests.append(_HANDSHAKE)
    with ServerProcess(kind, "guarded:waiting", cwd=folder, args=args) as server:
        server.wait_bound()
        for count, request in enumerate(requests, 1):
            with socket.create_connection(("127.0.0.1", server.port), 5) as client:
                client.sendall(request)
                wait_heard(server, "RequestHeld", count)
            wait_heard(server, "RequestAbandoned", count)
        server.terminate()
        server.wait()
    assert_went_well(server)


def post_in_pieces(server: ServerProcess) -> Any:
    """Post a body in several chunks."""
    pieces = iter([b"in ", b"three ", b"pieces"])
    url = server.url("/")
    return httpx.post(url, content=pieces, trust_env=False, timeout=30).json()


def talk(server: ServerProcess) -> Any:
    """Say hello on a WebSocket, and return the answer."""
    with connect(server, "/ws") as websocket:
        websocket.send("hello")
        answer = websocket.recv()
        # Where both close at once, hypercorn on trio sends two things at a time.
        with pytest.raises(ConnectionClosedOK):
            websocket.recv()
        return answer


def assert_went_well(server: ServerProcess) -> None:
    """Look for signs of trouble in the server's output."""
    for sign in ("Traceback", "ERROR", "without"):
        assert sign not in server.output


_CHUNKED = b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def wait_heard(server: ServerProcess, event: str, count: int) -> None:
    """Ask the app until it has heard of *count* events of a kind."""

    def is_heard() -> bool:
        heard: list[str] = get(server, "/heard").json()[1]
        return heard.count(event) >= count

    assert wait_until(is_heard, timeout=30), f"never heard of {event}"


@pytest.mark.parametrize(
    ("kind", "args", "logged"),
    [
        pytest.param("uvicorn", ("--root-path", "/api"), "/api/heard", id="uvicorn"),
        pytest.param(
            "hypercorn-w0",
            ("--root-path", "/api", "--access-logfile", "-"),
            "/heard",
            id="hypercorn",
        ),
        pytest.param(
            "granian",
            ("--url-path-prefix", "/api", "--access-log"),
            "/heard",
            id="granian",
        ),
    ],
)
def test_root_path_and_access_log(
    kind: str, args: tuple[str, ...], logged: str, folder: Path
) -> None:
    """Behind a root path probes are found; no access log shows them, but others."""
    with ServerProcess(kind, "guarded:waiting", cwd=folder, args=args) as server:
        server.wait_bound()
        assert get(server, "/livez").status_code == 200
        assert get(server, "/readyz?verbose").status_code == 503
        assert get(server, "/heard").status_code == 200
        server.wait_output(f"GET {logged}")
    assert "livez" not in server.output
    assert "readyz" not in server.output


@pytest.mark.parametrize(
    ("kind", "status"),
    [("uvicorn", 3), ("hypercorn", 0), ("hypercorn-w0", 1), ("granian", 1)],
)
def test_startup_failed(
    kind: str, status: int, folder: Path, nowhere: dict[str, str]
) -> None:
    """A blocking resource that fails ends the server in its own way, and says why."""
    env = {"BROKEN": "1", **nowhere}
    with ServerProcess(kind, "guarded:away", cwd=folder, env=env) as server:
        assert server.wait() == status
        assert server.bound_at is None
    assert "'model' did not open after 1 attempt" in server.output
    assert "the model is broken" in server.output
    # No server prints the causes, although granian prints what is raised, whole.
    assert "hunter2" not in server.output
    assert "postgresql://app:***@db/shop" in server.output


@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn", "hypercorn-w0", "granian"])
def test_shutdown_failed(kind: str, folder: Path, nowhere: dict[str, str]) -> None:
    """A resource that cannot be closed is told of, without the password it names."""
    env = {"UNCLEAN": "1", **nowhere}
    with ServerProcess(kind, "guarded:away", cwd=folder, env=env) as server:
        server.wait_bound()
        server.terminate()
        server.wait()
    assert "cannot leave postgresql://app:***@db/shop" in server.output
    assert "hunter2" not in server.output


def test_daphne(
    folder: Path, nowhere: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never sends a lifespan: requests hear so, probes answer."""
    monkeypatch.setitem(COMMANDS, "daphne", "daphne {app} -b 127.0.0.1 -p {port}")
    with ServerProcess("daphne", "guarded:away", cwd=folder, env=nowhere) as server:
        server.wait_bound()
        answer = get(server, "/")
        assert answer.status_code == 503
        assert "has not run this app's lifespan" in answer.json()["detail"]
        assert get(server, "/livez").status_code == 200
        assert get(server, "/readyz").status_code == 503
        with pytest.raises(InvalidStatus) as denied, connect(server, "/ws"):
            pytest.fail("it was accepted")
        assert denied.value.response.status_code == 403
