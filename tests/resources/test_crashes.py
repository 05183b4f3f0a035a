"""Crashes: told at once, in order, and with their cause as soon as it is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest

from asgi_lifespan_guard import CrashedError, ResourcePhase, Retry, resource
from asgi_lifespan_guard.events import (
    CloseFailed,
    ResourceClosed,
    ResourceCrashed,
    ResourceDown,
    ResourceReopening,
)
from tests.recorder import PATIENCE
from tests.resources.stage import Stage
from tests.support.virtual_time import on_virtual_asyncio


pytestmark = pytest.mark.anyio
LATER = Retry(wait=lambda _: 100)
IN_ASYNCIO = pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(("asyncio", {}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    ],
)


class Consumer:
    """A resource with a task that fails when the test says so."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.error = RuntimeError("poison")
        self.crash = anyio.Event()

    async def consume(self) -> None:
        await self.crash.wait()
        raise self.error

    @asynccontextmanager
    async def of_anyio(self) -> AsyncGenerator[str, None]:
        """Hold a task group of anyio's."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self.consume)
                yield "consumer"
                group.cancel_scope.cancel()
        finally:
            self.stage.mark("close consumer")

    @asynccontextmanager
    async def of_asyncio(self) -> AsyncGenerator[str, None]:
        """Hold a task group of asyncio's, which uses `task.cancel()`."""
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self.consume())
                yield "consumer"
                task.cancel()
        finally:
            self.stage.mark("close consumer")


async def test_a_crash_is_told_before_anything_is_closed(stage: Stage) -> None:
    """What it was is told once it has come out of the context manager."""
    consumer, may_close = Consumer(stage), anyio.Event()
    bus = resource(consumer.of_anyio, name="bus", retry=LATER)
    api = stage.make("api", needs=[bus], on_close=may_close.wait)
    async with stage.running(bus, api):
        await stage.until_up("api")
        consumer.crash.set()
        down = await stage.recorder.wait_for(ResourceDown)
        assert isinstance(down.error, CrashedError)
        await stage.recorder.wait_for_mark("closing api")
        report = stage.supervisor.report()[0]
        assert report.phase is ResourcePhase.CLOSING
        assert report.last_error is not None
        assert "ended by itself" in report.last_error
        assert stage.recorder.of(ResourceCrashed) == []
        may_close.set()
        crashed = await stage.recorder.wait_for(ResourceCrashed)
        await stage.recorder.wait_for(ResourceReopening)
    assert isinstance(crashed.error, ExceptionGroup)
    assert crashed.error.exceptions == (consumer.error,)


async def test_a_crash_just_before_the_stop_is_a_crash(stage: Stage) -> None:
    """Its error is not taken for one of the closing."""
    consumer, may_close = Consumer(stage), anyio.Event()
    bus = resource(consumer.of_anyio, name="bus", retry=LATER)
    api = stage.make("api", needs=[bus], on_close=may_close.wait)
    async with stage.running(bus, api):
        await stage.until_up("api")
        consumer.crash.set()
        await stage.recorder.wait_for_mark("closing api")
        may_close.set()
    assert [event.resource for event in stage.recorder.of(ResourceCrashed)] == ["bus"]
    assert [event.resource for event in stage.recorder.of(ResourceClosed)] == ["api"]
    assert stage.recorder.of(CloseFailed) == []


@IN_ASYNCIO
async def test_a_native_task_group_that_fails_while_dependents_close(
    stage: Stage,
) -> None:
    """Its `task.cancel()` neither changes the order nor takes the deadline away."""
    consumer, may_close = Consumer(stage), anyio.Event()
    bus = resource(consumer.of_asyncio, name="bus", retry=LATER)

    async def close_slowly() -> None:
        consumer.crash.set()
        await may_close.wait()

    api = stage.make("api", needs=[bus], on_close=close_slowly)

    async def let_close() -> None:
        await stage.recorder.wait_for_mark("closing api")
        await anyio.wait_all_tasks_blocked()
        assert "close consumer" not in stage.marks
        may_close.set()

    async with anyio.create_task_group() as group, stage.running(bus, api):
        await stage.until_up("api")
        group.start_soon(let_close)
    assert stage.marks[-2:] == ["close api", "close consumer"]
    (failed,) = stage.recorder.of(CloseFailed)
    assert isinstance(failed.error, ExceptionGroup)


@on_virtual_asyncio
async def test_a_close_that_hangs_after_a_native_cancellation_is_bounded(
    stage: Stage,
) -> None:
    """The deadline is set, whatever happened while what needs it was closed."""

    @asynccontextmanager
    async def hanging() -> AsyncGenerator[str, None]:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            yield "bus"
        finally:
            await anyio.sleep_forever()

    tasks: list[asyncio.Task[None]] = []
    bus = resource(hanging, name="bus", close_timeout=5)

    async def cancel_it() -> None:
        tasks[0].cancel()
        await anyio.wait_all_tasks_blocked()

    api = stage.make("api", needs=[bus], on_close=cancel_it)
    with anyio.fail_after(PATIENCE):
        async with stage.running(bus, api):
            await stage.until_up("api")
