"""`pause`, `resume` and `retry_now`, from wherever they are called."""

from __future__ import annotations

from collections.abc import Generator
from threading import get_ident

import pytest
from anyio.to_thread import run_sync

from asgi_lifespan_guard import LifespanGuard, resource
from asgi_lifespan_guard.events import AttemptFailed, Paused, Resumed
from tests.recorder import PATIENCE, Recorder
from tests.support.memory_server import MemoryServer
from tests.support.resources import LATER, Tap, hello


pytestmark = pytest.mark.anyio


async def test_controls_work_from_any_thread(recorder: Recorder) -> None:
    """A sync handler has them done on the event loop, which they wake."""
    threads: list[int] = []
    db = Tap(recorder, errors=[OSError("refused")], retry=LATER)
    guard = LifespanGuard(
        hello,
        [db.recipe],
        observers=[recorder, lambda _event: threads.append(get_ident())],
    )
    async with MemoryServer(guard) as server:
        await recorder.wait_for(AttemptFailed)
        await run_sync(guard.retry_now)
        await guard.wait_ready(PATIENCE)
        await run_sync(guard.pause, "maintenance")
        assert guard.report().paused == "maintenance"
        await recorder.wait_for(Paused)
        assert (await server.get("/readyz")).status == 503
        await run_sync(guard.resume)
        await guard.wait_ready(PATIENCE)
        await recorder.wait_for(Resumed)
        assert (await server.get("/readyz")).status == 200
    assert set(threads) == {get_ident()}


async def test_a_sync_resource_may_pause(recorder: Recorder) -> None:
    """It is opened in a thread of its own, and closed there when all is over."""

    @resource
    def model() -> Generator[str, None, None]:
        guard.pause("warming up")
        yield "a model"
        guard.resume()

    guard = LifespanGuard(hello, [model], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_until(lambda: "model" in guard.state)
        await recorder.wait_for(Paused)
        assert (await server.get("/readyz")).status == 503
    assert guard.report().paused is None
    await recorder.wait_for(Resumed)
