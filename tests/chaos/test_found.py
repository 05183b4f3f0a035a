"""What chaos has found, told once more in so many words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import (
    Check,
    CloseTimeoutError,
    LifespanGuard,
    OpenTimeoutError,
    Phase,
    resource,
)
from asgi_lifespan_guard.events import (
    AttemptFailed,
    CloseFailed,
    DrainBegun,
    ResourceCrashed,
    ResourceOpened,
)
from asgi_lifespan_guard.testing import Flaky, LifespanError, MemoryServer
from tests.chaos.world import all_of
from tests.recorder import PATIENCE, Recorder
from tests.support.resources import LATER, hello


pytestmark = pytest.mark.anyio

GONE = ConnectionResetError("gone")
REFUSED = OSError("refused")


async def refuse() -> None:
    """Fail as a database does that is not there."""
    raise REFUSED


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


async def test_a_crash_behind_a_hanging_close_is_told(recorder: Recorder) -> None:
    """What is not closed in time does not hide why it was closed at all."""
    crash = anyio.Event()

    async def fail() -> None:
        await crash.wait()
        raise GONE

    @resource(close_timeout=0.05, retry=LATER)
    async def db() -> AsyncIterator[str]:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(fail)
                yield "pool"
        finally:
            await anyio.sleep_forever()

    guard = LifespanGuard(hello, [db], observers=[recorder])
    async with MemoryServer(guard):
        await recorder.wait_for(ResourceOpened)
        crash.set()
        crashed = await recorder.wait_for(ResourceCrashed)
        assert isinstance(crashed.error, CloseTimeoutError)
        assert GONE in all_of(crashed.error)


async def test_a_failure_behind_a_timeout_is_told(recorder: Recorder) -> None:
    """What hangs while it cleans up after a failed attempt does not hide the error."""

    @resource(timeout=0.05, retry=LATER)
    async def db() -> AsyncIterator[str]:
        try:
            await refuse()
            yield "pool"
        finally:
            await anyio.sleep_forever()

    guard = LifespanGuard(hello, [db], observers=[recorder])
    async with MemoryServer(guard):
        failed = await recorder.wait_for(AttemptFailed)
        assert isinstance(failed.error, OpenTimeoutError)
        assert failed.error.__cause__ is REFUSED


async def test_a_close_that_fails_before_the_first_answer(recorder: Recorder) -> None:
    """A stop during the first check closes what was entered, and tells if it cannot."""
    asked = anyio.Event()

    async def never(_value: str) -> None:
        asked.set()
        await anyio.sleep_forever()

    @resource(check=Check(never))
    async def db() -> AsyncIterator[str]:
        try:
            yield "pool"
        finally:
            raise REFUSED

    guard = LifespanGuard(hello, [db], observers=[recorder])
    with pytest.raises(LifespanError, match="not everything was closed cleanly: db"):
        async with MemoryServer(guard):
            await asked.wait()
    assert [event.error for event in recorder.of(CloseFailed)] == [REFUSED]


async def test_what_a_stop_makes_an_attempt_raise_means_nothing(
    recorder: Recorder,
) -> None:
    """A driver that turns a cancellation into an error of its own closes cleanly."""
    begun = anyio.Event()

    @resource
    async def db() -> AsyncIterator[str]:
        try:
            begun.set()
            await anyio.sleep_forever()
            yield "pool"
        finally:
            await refuse()

    guard = LifespanGuard(hello, [db], observers=[recorder])
    async with MemoryServer(guard):
        await begun.wait()
    assert recorder.of(CloseFailed) == []


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
