"""Views that frameworks or servers have in tasks, and views that say goodbye."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import Drain, LifespanGuard, _drain
from asgi_lifespan_guard._asgi import exchange
from asgi_lifespan_guard.testing import MemoryServer
from tests.recorder import Recorder


pytestmark = pytest.mark.anyio

on_asyncio = pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(("asyncio", {}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    ],
)
EVENTS = Drain(endless=["/events"])


async def start(send: Any) -> None:
    """Begin an answer that has no end."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"1", "more_body": True})


async def drained(
    server: MemoryServer, guard: LifespanGuard, recorder: Recorder
) -> Any:
    """Drain while one request is in flight; return the request."""
    request = server.http("/events")
    async with anyio.create_task_group() as group:
        group.start_soon(request.run)
        await recorder.wait_for_mark("in")
        guard.begin_drain()
        await guard.wait_drain()
    return request


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this module for a framework's."""
    monkeypatch.setattr(exchange, "FRAMEWORKS", {__name__.partition(".")[0]})


@on_asyncio
async def test_a_view_in_a_task_of_its_own_is_cancelled(recorder: Recorder) -> None:
    """Quart and Django wait for it in `asyncio.wait`, which would orphan it."""

    async def view(send: Any) -> None:
        try:
            await start(send)
            recorder.mark("in")
            await anyio.sleep_forever()
        finally:
            await asyncio.sleep(0)
            recorder.mark("cleaned up")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.wait([asyncio.ensure_future(view(send))])
        recorder.mark("out")

    guard = LifespanGuard(app, app_lifespan="off", drain=EVENTS)
    async with MemoryServer(guard) as server:
        request = await drained(server, guard, recorder)
    assert recorder.marks == ["in", "cleaned up", "out"]
    assert (request.status, request.body) == (200, b"1")


@on_asyncio
async def test_who_waits_again_is_cancelled_itself(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop around `asyncio.wait` does not end with what it waits for."""
    monkeypatch.setattr(_drain, "GOODBYE", 0.01)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        while True:
            recorder.mark("in")
            task = asyncio.ensure_future(anyio.sleep_forever())
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                recorder.mark("cancelled")
                task.cancel()
                raise

    guard = LifespanGuard(app, app_lifespan="off", drain=EVENTS)
    async with MemoryServer(guard) as server:
        request = await drained(server, guard, recorder)
    assert recorder.marks == ["in", "in", "cancelled"]
    assert request.body == b"1"


@on_asyncio
async def test_a_cancellation_that_is_not_ours_goes_on(recorder: Recorder) -> None:
    """A server that cancels a request while it cleans up sees it cancelled."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        recorder.mark("in")
        try:
            await anyio.sleep_forever()
        finally:
            recorder.mark("cleaning up")
            await anyio.sleep_forever()

    guard = LifespanGuard(app, app_lifespan="off", drain=EVENTS)
    async with MemoryServer(guard) as server:
        task = asyncio.ensure_future(server.get("/events"))
        await recorder.wait_for_mark("in")
        guard.begin_drain()
        await recorder.wait_for_mark("cleaning up")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_who_watches_the_drain_may_say_goodbye(recorder: Recorder) -> None:
    """A handler that waits for `draining` is given time to end by itself."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        recorder.mark("in")
        await guard.draining.wait()
        await anyio.wait_all_tasks_blocked()
        last = {"type": "http.response.body", "body": b"goodbye", "more_body": False}
        await send(last)

    guard = LifespanGuard(app, app_lifespan="off", drain=EVENTS)
    async with MemoryServer(guard) as server:
        request = await drained(server, guard, recorder)
    assert request.body == b"1goodbye"
