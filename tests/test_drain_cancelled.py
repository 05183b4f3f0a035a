"""A lifespan that the server cancels while the guard lets requests out."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import LifespanGuard, Phase
from asgi_lifespan_guard.events import DrainBegun
from asgi_lifespan_guard.testing import Flaky, MemoryServer
from tests.recorder import PATIENCE, Recorder


pytestmark = pytest.mark.anyio


class Slow:
    """An app that answers when it is told to, if what it uses is still open."""

    def __init__(self, uses: Flaky) -> None:
        self.go = anyio.Event()
        self._uses = uses

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await self.go.wait()
        assert self._uses.is_open
        await send({"type": "http.response.body"})


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_a_lifespan_cancelled_in_its_drain(
    recorder: Recorder, anyio_backend: Any
) -> None:
    """``task.cancel()`` goes through shields, but not through the drain.

    The request in flight ends before what it uses is closed, and the guard can start
    once more.
    """
    flaky = Flaky("pool", name="db")
    app = Slow(flaky)
    guard = LifespanGuard(app, [flaky.recipe], app_lifespan="off", observers=[recorder])
    server = MemoryServer(guard)
    server.lifespan.feed({"type": "lifespan.startup"})
    lifespan = asyncio.ensure_future(server.lifespan.run())
    await flaky.wait_until(lambda: flaky.is_open)
    await guard.wait_ready(PATIENCE)
    request = server.http("/")
    answer = asyncio.ensure_future(request.run())
    await request.wait_until(lambda: request.phase == "started")
    server.lifespan.feed({"type": "lifespan.shutdown"})
    await recorder.wait_for(DrainBegun)
    lifespan.cancel()
    await anyio.wait_all_tasks_blocked()
    assert flaky.is_open
    app.go.set()
    await answer
    with pytest.raises(asyncio.CancelledError):
        await lifespan
    assert guard.phase is Phase.STOPPED
    assert (flaky.opened, flaky.closed) == (1, 1)
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
