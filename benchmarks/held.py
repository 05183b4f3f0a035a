"""What 10,000 requests cost that wait at the gate for a resource.

Each is a task that calls the guard, as in a server; its ``receive`` gives an empty body
and then waits for ever, as a connected client does. What such a task costs without a
guard, waiting just the same, is measured too and taken off.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from statistics import median
from typing import Any, TypeAlias

from asgi_lifespan_guard import Gate, LifespanGuard, resource

from .measure import Row, serving, until


WORK = 25e-6
"""Seconds of work in the app, for each request that is released."""

PIECES = 1_000
"""Of nothing, in which a client may send a body."""

App: TypeAlias = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


def run(quick: bool) -> list[Row]:
    """Measure memory, idling and the release, each for itself."""
    number, idle = (200, 0.5) if quick else (10_000, 5.0)
    held = asyncio.run(_bytes_held(number))
    in_pieces = asyncio.run(_bytes_held(number, PIECES))
    waiting = asyncio.run(_bytes_waiting(number))
    cpu = asyncio.run(_idle_cpu(number, idle))
    stalls = [asyncio.run(_stall_on_release(number)) for _ in range(2 if quick else 9)]
    burst = asyncio.run(_stall_of_event(number))
    stall, took = median(stalls), f"{min(stalls):.0f} to {max(stalls):.0f}"
    each = f"a task that waits without a guard: {waiting / 1024:.2f} KB, taken off"
    return [
        Row("held: memory each", (held - waiting) / 1024, "KB", 4.0, each),
        Row(
            "held: memory each, a body in 1,000 pieces of nothing",
            (in_pieces - waiting) / 1024,
            "KB",
            4.0,
        ),
        Row("held: CPU while idle", cpu, "%", 0.1),
        Row("held: loop stalled on release", stall, "ms", 20.0, took),
        Row("one `Event.set()`: loop stalled", burst, "ms"),
    ]


class Crowd:
    """Many requests at once, and an app that works a little for each."""

    def __init__(self, number: int) -> None:
        self.served = 0
        self._number = number
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def all_served(self) -> bool:
        """Whether the app has answered everyone."""
        return self.served == self._number

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Work, and answer nothing."""
        until_when = time.perf_counter() + WORK
        while time.perf_counter() < until_when:
            pass
        self.served += 1

    async def come(self, app: App, pieces: int = 1) -> None:
        """Send all requests to *app*, and let them settle."""
        for number in range(self._number):
            self._tasks.append(asyncio.create_task(_request(app, pieces)))
            if number % 100 == 99:
                await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)

    async def go(self) -> None:
        """Have every client leave that is still there."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


async def _request(app: App, pieces: int) -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": {}}
    await app(scope, _client(pieces), _send)


def _client(pieces: int) -> Callable[[], Coroutine[Any, Any, Mapping[str, Any]]]:
    left = pieces

    async def receive() -> Mapping[str, Any]:
        nonlocal left
        if not left:
            await asyncio.get_running_loop().create_future()
        left -= 1
        return {"type": "http.request", "body": b"", "more_body": left > 0}

    return receive


async def _send(message: Mapping[str, Any]) -> None:
    pass


async def _wait_for_ever(scope: Any, receive: Any, send: Any) -> None:
    while True:
        await receive()


@asynccontextmanager
async def _holding(
    crowd: Crowd, number: int
) -> AsyncGenerator[tuple[LifespanGuard, asyncio.Event], None]:
    """Have a guard whose one resource opens when the event is set."""
    there = asyncio.Event()

    async def open_it() -> AsyncGenerator[None, None]:
        await there.wait()
        yield

    slow = resource(open_it, name="slow", timeout=None)
    gate = Gate(wait=600.0, max_waiting=number)
    guard = LifespanGuard(crowd.app, [slow], app_lifespan="off", gate=gate)
    async with serving(guard):
        try:
            yield guard, there
        finally:
            await crowd.go()


async def _bytes_held(number: int, pieces: int = 1) -> float:
    crowd = Crowd(number)
    async with _holding(crowd, number) as (guard, _):
        return await _bytes_each(crowd, guard, number, pieces)


async def _bytes_waiting(number: int) -> float:
    crowd = Crowd(number)
    try:
        return await _bytes_each(crowd, _wait_for_ever, number)
    finally:
        await crowd.go()


async def _bytes_each(crowd: Crowd, app: App, number: int, pieces: int = 1) -> float:
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await crowd.come(app, pieces)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not crowd.served
    return (after - before) / number


async def _idle_cpu(number: int, seconds: float) -> float:
    crowd = Crowd(number)
    async with _holding(crowd, number) as (guard, _):
        await crowd.come(guard)
        gc.collect()
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        used = time.process_time() - cpu
        return 100.0 * used / (time.perf_counter() - began)


async def _stall_on_release(number: int) -> float:
    crowd = Crowd(number)
    async with _holding(crowd, number) as (guard, there):
        await crowd.come(guard)
        return await _longest_stall(crowd, there)


async def _stall_of_event(number: int) -> float:
    """Measure what a gate would do that lets everybody in at once."""
    crowd, there = Crowd(number), asyncio.Event()

    async def gate(scope: Any, receive: Any, send: Any) -> None:
        await there.wait()
        await crowd.app(scope, receive, send)

    await crowd.come(gate)
    return await _longest_stall(crowd, there)


async def _longest_stall(crowd: Crowd, there: asyncio.Event) -> float:
    """Set the event; return the longest turn of the loop until all are served."""
    gc.collect()
    longest = 0.0
    ticking = True

    async def tick() -> None:
        nonlocal longest
        last = time.perf_counter()
        while ticking:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    there.set()
    await until(lambda: crowd.all_served)
    ticking = False
    await ticker
    return longest * 1000
