"""How long it takes to let thousands of event streams out.

Each is a task that calls the guard, as in a server, has sent the first piece of its
answer, and waits for something to tell. What a server and its clients do to end a
connection comes on top of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from asgi_lifespan_guard import LifespanGuard

from .measure import Row, no_collection, serving


HEADERS = [(b"accept", b"text/event-stream")]


def run(quick: bool) -> list[Row]:
    """Measure two numbers of streams, to see whether the drain is linear."""
    rows: list[Row] = []
    sizes = ((50, 1.5), (200, 5.0)) if quick else ((5_000, 1.5), (20_000, 5.0))
    each: list[float] = []
    for number, bound in sizes:
        with no_collection():
            first, last = asyncio.run(_drain(number))
        each.append(last / number)
        note = f"{1e6 * last / number:.0f} µs each"
        rows += [
            Row(f"{number:,} streams: the first is ended", first, "s", 0.1),
            Row(f"{number:,} streams: the last is ended", last, "s", bound, note),
        ]
    few, many = each
    return [*rows, Row("each of the many / each of the few", many / few, "×", 2.0)]


class Streams:
    """Event streams that have begun, and when they were ended."""

    def __init__(self) -> None:
        self.begun = 0
        self.ends: list[float] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Begin a stream, and wait for ever."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        self.begun += 1
        await asyncio.get_running_loop().create_future()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Be the server's, and note the last piece of an answer."""
        if not message.get("more_body", True):
            self.ends.append(time.perf_counter())


async def _drain(number: int) -> tuple[float, float]:
    streams = Streams()
    guard = LifespanGuard(streams.app, app_lifespan="off")
    async with serving(guard) as state:
        tasks = [
            asyncio.create_task(guard(_scope(state), None, streams.send))
            for _ in range(number)
        ]
        await asyncio.sleep(0)
        assert streams.begun == number
        began = time.perf_counter()
        guard.begin_drain()
        await guard.wait_drain()
        await asyncio.gather(*tasks)
    assert len(streams.ends) == number
    return streams.ends[0] - began, streams.ends[-1] - began


def _scope(state: Mapping[str, Any]) -> dict[str, Any]:
    fixed = {"type": "http", "method": "GET", "path": "/", "root_path": ""}
    return {**fixed, "headers": HEADERS, "state": dict(state)}
