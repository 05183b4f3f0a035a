"""The app that a drain is tested with: one path for each way to be in flight.

What it does it prints, one mark in each line, so that a test outside sees the order.
`bare` is the same without a guard.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from tenacity import wait_fixed

from asgi_lifespan_guard import Drain, LifespanGuard, Retry, resource
from asgi_lifespan_guard.events import (
    DrainBegun,
    DrainEnded,
    Event,
    RequestCut,
    RequestStuck,
)


CHUNK = b"data: tick\n\n"
EVENT_STREAM = b"text/event-stream"
ENDED = {"type": "http.response.body", "body": b"end\n", "more_body": False}


def mark(*words: object) -> None:
    """Write one line at once; a test reads it on the other side of a pipe."""
    os.write(1, (" ".join(map(str, ("MARK", *words))) + "\n").encode())


def seconds(name: str, default: float) -> float:
    """Return a number of seconds from the environment."""
    return float(os.environ.get(name, default))


class Pool:
    """Something that must be open as long as anybody uses it."""

    is_open = True


@resource
async def db() -> AsyncGenerator[Pool, None]:
    """Be needed by everything."""
    mark("open db")
    pool = Pool()
    try:
        yield pool
    finally:
        await anyio.sleep(seconds("CLOSING", 0.0))
        pool.is_open = False
        mark("close db")


@resource(needs=[db])
async def cache(db: Pool) -> AsyncGenerator[Pool, None]:
    """Need the database until the end."""
    mark("open cache")
    try:
        yield db
    finally:
        mark("close cache", db.is_open)


@asynccontextmanager
async def in_flight(scope: Any) -> AsyncIterator[None]:
    """Mark begin and end of a handler whose clean-up awaits and uses the database."""
    mark("begin", scope["path"])
    try:
        yield
    finally:
        # A second cancellation is a level on trio, as everywhere there.
        with anyio.CancelScope(shield=scope["path"] == "/stubborn"):
            await anyio.sleep(seconds("CLEANUP", 0.02))
        mark("over", scope["path"], scope["state"]["db"].is_open)


async def start(send: Any, *headers: tuple[bytes, bytes]) -> None:
    """Begin a 200."""
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def say(send: Any, body: bytes) -> None:
    """Send a piece of a body that goes on."""
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def drain_begins(scope: Any) -> None:
    """Wait for the drain, and as much longer as LINGER says."""
    await LifespanGuard.of(scope).draining.wait()
    await anyio.sleep(seconds("LINGER", 0.3))


# Ways to be in flight.


async def stream(scope: Any, receive: Any, send: Any) -> None:
    """Send for ever, and never receive."""
    await start(send, (b"content-type", EVENT_STREAM))
    while True:
        await say(send, CHUNK)
        await anyio.sleep(0.25)


async def grouped_stream(scope: Any, receive: Any, send: Any) -> None:
    """Send for ever in a task group beside one that waits for the client to leave."""

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await stream(scope, receive, send)


async def late_stream(scope: Any, receive: Any, send: Any) -> None:
    """Be a stream that has not begun to answer."""
    await anyio.sleep(3600)


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answer in full, but only after the drain has begun."""
    await drain_begins(scope)
    assert scope["state"]["db"].is_open
    await start(send, (b"content-length", b"100000"))
    await send({"type": "http.response.body", "body": b"x" * 100_000})


async def finite(scope: Any, receive: Any, send: Any) -> None:
    """Send lines, the last of them long after the drain has begun."""
    await start(send, (b"content-type", b"application/x-ndjson"))
    await say(send, b"{}\n")
    await drain_begins(scope)
    for _ in range(3):
        await say(send, b"{}\n")
    await send(ENDED)


async def hour(scope: Any, receive: Any, send: Any) -> None:
    """Begin a download and take an hour."""
    await start(send)
    await say(send, b"begin\n")
    await anyio.sleep(3600)


async def length(scope: Any, receive: Any, send: Any) -> None:
    """Promise more bytes than ever come."""
    await start(send, (b"content-length", b"10"))
    await say(send, b"begin")
    await anyio.sleep(3600)


async def stubborn(scope: Any, receive: Any, send: Any) -> None:
    """Ignore the first cancellation."""
    await start(send)
    await say(send, b"begin\n")
    try:
        await anyio.sleep(3600)
    except anyio.get_cancelled_exc_class():
        mark("ignored", scope["path"])
    await anyio.sleep(3600)


immortals: list[anyio.Event] = []


async def immortal(scope: Any, receive: Any, send: Any) -> None:
    """Ignore every cancellation until the drain has ended without it."""
    immortals.append(over := anyio.Event())
    await start(send)
    await say(send, b"begin\n")
    while not over.is_set():
        with suppress(anyio.get_cancelled_exc_class()), anyio.CancelScope(shield=True):
            await over.wait()


async def quick(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once."""
    await start(send, (b"content-length", b"2"))
    await send({"type": "http.response.body", "body": b"ok"})


async def background(scope: Any, receive: Any, send: Any) -> None:
    """Answer in full, and do something afterwards that takes longer than the drain."""
    await quick(scope, receive, send)
    mark("answered", scope["path"])
    await drain_begins(scope)
    mark("done in the background")


async def pre_stop(scope: Any, receive: Any, send: Any) -> None:
    """Be a preStop hook: begin the drain, and answer when it is over."""
    guard = LifespanGuard.of(scope)
    guard.begin_drain("preStop")
    await guard.wait_drain()
    await quick(scope, receive, send)


async def calls_itself(scope: Any, receive: Any, send: Any) -> None:
    """Call the guard again in the same task, as a test client in a handler does."""
    answers: list[Any] = []

    async def keep(message: Any) -> None:
        answers.append(message)

    inner = {**scope, "path": "/hour", "raw_path": b"/hour"}
    await app(inner, receive, keep)
    mark("the inner call returned")
    await anyio.sleep(3600)


Handler = Callable[[Any, Any, Any], Awaitable[None]]

PATHS: dict[str, Handler] = {
    "/sse": stream,
    "/grouped": grouped_stream,
    "/late": late_stream,
    "/endless": stream,
    "/endless/late": late_stream,
    "/slow": slow,
    "/ndjson": finite,
    "/post-stream": finite,
    "/hour": hour,
    "/hour/silent": late_stream,
    "/length": length,
    "/stubborn": stubborn,
    "/immortal": immortal,
    "/drain": pre_stop,
    "/nested": calls_itself,
    "/quick": quick,
    "/background": background,
}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back what comes, until the peer is gone."""
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
    mark("disconnected", message["code"])


async def push(scope: Any, receive: Any, send: Any) -> None:
    """Send for ever, and never receive."""
    while True:
        await send({"type": "websocket.send", "text": "tick"})
        await anyio.sleep(0.25)


async def websocket(scope: Any, receive: Any, send: Any) -> None:
    """Accept, and do what the path says."""
    await receive()
    await send({"type": "websocket.accept"})
    await (push if scope["path"] == "/ws/push" else echo)(scope, receive, send)


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Be the app, without a guard."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    handler = PATHS.get(scope["path"], websocket)
    if handler is quick:
        await quick(scope, receive, send)
    else:
        async with in_flight(scope):
            await handler(scope, receive, send)


def observe(event: Event) -> None:
    """Mark what the drain does."""
    match event:
        case DrainBegun(reason, in_flight):
            mark("draining", reason, in_flight)
        case DrainEnded(_, left, _):
            mark("drained", left)
            for over in immortals:
                over.set()
        case RequestCut(path):
            mark("cut", path)
        case RequestStuck(path):
            mark("stuck", path)


app = LifespanGuard(
    bare,
    [db, cache],
    drain=Drain(
        delay=seconds("DELAY", 0), grace=seconds("GRACE", 20), endless=["/endless"]
    ),
    observers=[observe],
)
nested = LifespanGuard(app, probes=None)


# A resource that is in trouble when the signal comes.


def let_go() -> None:
    """Wait until the test writes into the pipe that GO names."""
    with Path(os.environ["GO"]).open("rb") as pipe:
        pipe.read(1)


async def troubled(pool: Pool) -> AsyncGenerator[None, None]:
    """Be at some point of a life where a stop is inconvenient, as TROUBLE says."""
    trouble = os.environ.get("TROUBLE")
    if trouble == "waits for its next attempt":
        mark("trouble")
        raise OSError("not yet")
    try:
        if trouble != "closes":
            mark("trouble")
            await anyio.sleep(3600)
        mark("open troubled")
        yield
        mark("trouble")
        await anyio.to_thread.run_sync(let_go)
    finally:
        mark("close troubled", pool.is_open)


STARTUP: Any = "blocking" if os.environ.get("TROUBLE") == "blocks" else "background"
early_db = resource(db.factory, name="early_db", startup=STARTUP)
trouble = resource(
    troubled, needs=[early_db], startup=STARTUP, retry=Retry(wait=wait_fixed(3600))
)
in_trouble = LifespanGuard(bare, [early_db, trouble])
