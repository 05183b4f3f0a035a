"""Measures what servers do on SIGTERM, and writes the table in `servers.md`.

`make servers` starts every kind of server, with and without the guard, with one client
on it that stays, sends one SIGTERM, and looks. A test says when a kind has no row.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from examples.demo.servers import COMMANDS, ServerProcess


PAGE = Path(__file__).with_name("servers.md")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

PATIENCE = 8.0
"""Seconds after which a server counts as still alive."""

LEFT_OUT = {"uvicorn"}  # the same as uvicorn-uvloop
TWO = ["--workers", "2"]
MORE = {
    "uvicorn-2": ("uvicorn", TWO),
    "uvicorn-2-reload": ("uvicorn", [*TWO, "--reload"]),
    "hypercorn-2": ("hypercorn", TWO),
    "hypercorn-trio-2": ("hypercorn-trio", TWO),
    "granian-2": ("granian", TWO),
    "gunicorn-uvicorn": ("gunicorn", ["-k", "uvicorn.workers.UvicornWorker"]),
    "gunicorn-uvicorn-2": ("gunicorn", ["-k", "uvicorn.workers.UvicornWorker", *TWO]),
    "gunicorn-asgi-2": ("gunicorn", ["-k", "asgi", *TWO]),
}
"""Commands with options: what they are called, the command, and the options."""

COMMANDS["gunicorn"] = "gunicorn {app} --bind 127.0.0.1:{port}"
KINDS = (*(k for k in COMMANDS if k not in {*LEFT_OUT, "gunicorn"}), *MORE)
CLIENTS = ("SSE stream", "WebSocket", "slow request")

APP = """
import os
from contextlib import asynccontextmanager
import anyio
from asgi_lifespan_guard import LifespanGuard, resource

def mark(text):
    os.write(1, f"MARK {text}\\n".encode())

async def db():
    mark("open")
    yield "db"
    await anyio.sleep(0.05)
    mark("closed")

async def answer(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        mark("begin")
        await receive()
        return
    stream = scope["path"] == "/stream"
    start = {"type": "http.response.start", "status": 200, "headers": []}
    mark("begin")
    if stream:
        await send(start)
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await anyio.sleep(0.2)
    await anyio.sleep(1.5)
    await send(start)
    await send({"type": "http.response.body", "body": b"whole"})

async def bare(scope, receive, send):
    if scope["type"] != "lifespan":
        return await answer(scope, receive, send)
    async with asynccontextmanager(db)():
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})

guarded = LifespanGuard(answer, [resource(db)])
"""


def stay_on_a_stream(server: ServerProcess) -> str:
    """Read a stream that has no end."""
    headers = {"accept": "text/event-stream"}
    try:
        with httpx.stream(
            "GET", server.url("/stream"), headers=headers, timeout=None, trust_env=False
        ) as response:
            for _ in response.iter_raw():
                pass
    except httpx.HTTPError:
        return "cut off"
    return "ended"


def stay_on_a_websocket(server: ServerProcess) -> str:
    """Listen for ever."""
    url = server.url("/ws").replace("http", "ws", 1)
    with suppress(OSError), connect(url, proxy=None, ping_interval=None) as peer:
        try:
            while True:
                peer.recv()
        except ConnectionClosed as closed:
            return "cut off" if closed.rcvd is None else f"closed {closed.rcvd.code}"
    return "cut off"


def wait_for_a_slow_answer(server: ServerProcess) -> str:
    """Make a request that takes its time."""
    try:
        response = httpx.get(server.url("/slow"), timeout=None, trust_env=False)
    except httpx.HTTPError:
        return "cut off"
    return f"{response.status_code}"


VISITS: dict[str, Callable[[ServerProcess], str]] = dict(
    zip(
        CLIENTS,
        (stay_on_a_stream, stay_on_a_websocket, wait_for_a_slow_answer),
        strict=True,
    )
)


def measured(kind: str, app: str, client: str, folder: Path) -> str:
    """Say what became of the server, of its client and of its resource."""
    root = str(PAGE.parents[1])
    command, options = MORE.get(kind, (kind, []))
    workers = 2 if "2" in options and "--reload" not in options else 1
    server = ServerProcess(
        command,
        f"measured:{app}",
        cwd=folder,
        env={"PYTHONPATH": root},
        args=options,
    )
    with ThreadPoolExecutor() as threads:
        with server:
            server.wait_bound()
            server.wait_output(f"(?s:(MARK open.*?){{{workers}}})")
            visit = threads.submit(VISITS[client], server)
            server.wait_output("MARK begin")
            began = time.monotonic()
            server.terminate()
            try:
                status = server.wait(PATIENCE)
            except TimeoutError:
                return "**still alive**"
            lasted = time.monotonic() - began
        seen = visit.result()
    seen_closed = server.output.count("MARK closed")
    closed = "closed" if seen_closed >= workers else "**not closed**"
    if 0 < seen_closed < workers:
        closed = f"**closed by {seen_closed} of {workers}**"
    return f"{seen}, {closed}; {status} after {lasted:.1f} s"


def rows() -> dict[str, list[str]]:
    """Measure everything: kind → its cells, without and with the guard."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "measured.py").write_text(APP)
        cells = {kind: [""] * 2 * len(CLIENTS) for kind in KINDS}
        columns = list(enumerate(product(CLIENTS, ("bare", "guarded"))))

        def measure(kind: str) -> None:
            for column, (client, app) in columns:
                cells[kind][column] = measured(kind, app, client, folder)

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(measure, KINDS))
    return cells


def table(cells: dict[str, list[str]]) -> str:
    """Draw the table."""
    heads = [f"{client}{who}" for client in CLIENTS for who in ("", ", guarded")]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    lines += [f"| {kind} | {' | '.join(row)} |" for kind, row in cells.items()]
    return "\n".join(lines)


def redrawn(page: str, drawing: str) -> str:
    """Return *page* with *drawing* between its markers.

    Raises:
        LookupError: When the page lacks the markers.
    """
    between = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)
    page, found = between.subn(f"{BEGIN}\n{drawing}\n{END}", page)
    if found != 1:
        raise LookupError(f"{BEGIN} ... {END} stands {found} times in the page")
    return page


def drawn(page: str) -> set[str]:
    """Return the kinds that have a row between the markers of *page*."""
    lines = page.partition(BEGIN)[2].partition(END)[0].splitlines()[3:]
    return {line.split("|")[1].strip() for line in lines if line.startswith("|")}


if __name__ == "__main__":
    drawing = table(rows())
    PAGE.write_text(redrawn(PAGE.read_text(), drawing))
