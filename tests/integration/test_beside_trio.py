"""A process that runs asyncio, and has imported trio for something else.

`make test-oldest` runs this beside an older trio than the guard can run on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import trio

from asgi_lifespan_guard import LifespanGuard, resource
from asgi_lifespan_guard.testing import MemoryServer


@resource
async def db() -> AsyncGenerator[str, None]:
    """Be a pool."""
    yield "a pool"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what was opened; there is no lifespan."""
    assert scope["type"] == "http"
    body = scope["state"]["db"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def test_serves_on_asyncio_beside_any_trio() -> None:
    """Whichever trio was imported, what runs on asyncio is served on asyncio."""

    async def main() -> bytes:
        guard = LifespanGuard(app, [db])
        async with MemoryServer(guard) as server:
            await guard.wait_ready(10)
            return (await server.get("/")).body

    assert trio.lowlevel is not None
    assert asyncio.run(main()) == b"a pool"
