"""Servers that are started by a program: `python -m tests.integration.embedded`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator

import hypercorn.asyncio
import uvicorn
from hypercorn.config import Config

from asgi_lifespan_guard import LifespanGuard, resource
from examples.demo import free_port
from tests.integration.drain_app import app, bare, mark


def config(port: int) -> Config:
    """Return what hypercorn is told."""
    told = Config()
    told.bind = [f"127.0.0.1:{port}"]
    return told


async def trigger(port: int) -> None:
    """Serve until a drain is over; a signal that only the program handles begins it."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, app.begin_drain, "SIGTERM")
    await hypercorn.asyncio.serve(
        app,
        config(port),
        shutdown_trigger=app.wait_drain,
    )


async def default(port: int) -> None:
    """Serve where nobody handles the signal."""
    await hypercorn.asyncio.serve(
        app,
        config(port),
        shutdown_trigger=asyncio.Event().wait,
    )


async def beside(port: int) -> None:
    """Serve two apps where nobody handles the signal; the second one closes slowly."""

    async def slow() -> AsyncGenerator[None, None]:
        mark("open slow")
        yield
        await asyncio.sleep(1)
        mark("close slow")

    second = LifespanGuard(bare, [resource(slow)])
    never = asyncio.Event().wait
    async with asyncio.TaskGroup() as group:
        for each, own in ((second, free_port()), (app, port)):
            serve = hypercorn.asyncio.serve
            group.create_task(serve(each, config(own), shutdown_trigger=never))


def twice(port: int) -> None:
    """Serve, stop, and serve again in the same process."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(2):
        uvicorn.run(app, port=port)
        mark("as before", signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
    signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    what, port = sys.argv[1], int(sys.argv[2])
    if what == "twice":
        twice(port)
    else:
        programs = {"trigger": trigger, "default": default, "beside": beside}
        asyncio.run(programs[what](port))
    mark("the program ends")
    os._exit(7)
