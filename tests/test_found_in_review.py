"""Faults that a reading of the whole package found, each as it would be met."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import signal
import threading
from collections.abc import AsyncGenerator, Generator
from signal import SIGURG
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import (
    ConfigurationError,
    Drain,
    LifespanGuard,
    Probes,
    Resource,
    Retry,
    resource,
)
from asgi_lifespan_guard.events import ResourceCrashed, ResourceOpened
from asgi_lifespan_guard.testing import MemoryServer
from tests.recorder import Recorder


pytestmark = pytest.mark.anyio

SECRET = "postgresql://app:hunter2@db"


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer everything."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def now(_state: object) -> float:
    """Wait no time at all."""
    return 0.0


async def test_a_thread_that_cannot_start_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that is out of threads for a moment does not lose its resource."""
    start, refused = threading.Thread.start, [RuntimeError("can't start new thread")]

    def start_or_refuse(thread: threading.Thread) -> None:
        if thread.name == "model" and refused:
            raise refused.pop()
        start(thread)

    @resource(retry=Retry(wait=now))
    def model() -> Generator[str, None, None]:
        yield "model"

    monkeypatch.setattr(threading.Thread, "start", start_or_refuse)
    guard = LifespanGuard(hello, [model], app_lifespan="off")
    async with MemoryServer(guard):
        await guard.wait_ready(5)
    assert not refused


async def test_an_observer_that_raises_gives_no_password_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is logged of it is redacted like everything else."""

    def broken(event: object) -> None:
        raise ValueError(f"cannot send to {SECRET}")

    @resource(retry=None)
    async def db() -> AsyncGenerator[None, None]:
        if SECRET:
            raise ConnectionError(SECRET)
        yield

    guard = LifespanGuard(hello, [db], app_lifespan="off", observers=[broken])
    async with MemoryServer(guard):
        await anyio.wait_all_tasks_blocked()
    assert "failed on ResourceGaveUp" in caplog.text
    assert "hunter2" not in caplog.text
    assert "hunter2" not in str([record.__dict__ for record in caplog.records])


async def test_a_reason_to_pause_gives_no_password_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither in the log's fields nor in what a probe shows."""
    caplog.set_level(logging.DEBUG)
    guard = LifespanGuard(hello, probes=Probes(details=True))
    async with MemoryServer(guard) as server:
        guard.pause(f"moving {SECRET}")
        shown = await server.get("/readyz?verbose")
    assert json.loads(shown.body)["paused"] == "moving postgresql://app:***@db"
    assert "hunter2" not in str([record.__dict__ for record in caplog.records])


async def fail_at(crash: anyio.Event) -> None:
    """Fail once *crash* is set."""
    await crash.wait()
    raise ConnectionError("gone")


async def test_an_old_state_does_not_outlive_an_optional_resource(
    recorder: Recorder,
) -> None:
    """While it closes, a request with a copy from before does not see it any more."""
    crash, leave = anyio.Event(), anyio.Event()

    @resource(required=False)
    async def cache() -> AsyncGenerator[str, None]:
        async with anyio.create_task_group() as group:
            group.start_soon(fail_at, crash)
            try:
                yield "cache"
            finally:
                recorder.mark("closing")
                with anyio.CancelScope(shield=True):
                    await leave.wait()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        recorder.mark(str(cache.get(scope, "away")))
        await hello(scope, receive, send)

    guard = LifespanGuard(app, [cache], app_lifespan="off", observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened)
        early = server.http("/")
        crash.set()
        await recorder.wait_for_mark("closing")
        await early.run()
        leave.set()
        await recorder.wait_for(ResourceCrashed)
    assert recorder.marks[:2] == ["closing", "away"]


@pytest.mark.parametrize("anyio_backend", [pytest.param(("asyncio", {}), id="asyncio")])
async def test_a_cancellation_that_is_not_ours_goes_on(recorder: Recorder) -> None:
    """A server that cancels a request during the drain sees it cancelled."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        recorder.mark("in")
        try:
            await anyio.sleep_forever()
        finally:
            recorder.mark("cleaning")
            await asyncio.sleep(3600)

    guard = LifespanGuard(app, app_lifespan="off", drain=Drain(endless=["/events"]))
    async with MemoryServer(guard) as server:
        task = asyncio.ensure_future(server.get("/events"))
        await recorder.wait_for_mark("in")
        guard.begin_drain()
        await recorder.wait_for_mark("cleaning")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_graph_of_many_ways_is_walked_once() -> None:
    """Refusing a request is no more work for three to the twentieth ways."""
    asked: list[str] = []

    def away(state: object) -> float:
        return 600.0

    async def opened(*values: object) -> AsyncGenerator[None, None]:
        asked.append("open")
        if asked:
            raise ConnectionError("away")
        yield

    layer: list[Resource[None]] = []
    resources: list[Resource[None]] = []
    for depth in range(20):
        layer = [
            resource(opened, name=f"r{depth}_{i}", needs=layer, retry=Retry(wait=away))
            for i in range(3)
        ]
        resources += layer
    guard = LifespanGuard(hello, resources, app_lifespan="off")
    async with MemoryServer(guard) as server:
        await anyio.wait_all_tasks_blocked()
        refused = await server.get("/")
    assert (refused.status, len(asked)) == (503, 3)
    assert refused.headers["retry-after"] == "600"


def test_enabled_cannot_be_asked_with_await() -> None:
    """A coroutine is always true; the mistake is told at construction."""

    async def enabled() -> bool:
        return False

    with pytest.raises(ConfigurationError, match="not a coroutine function"):
        resource(hello, name="db", enabled=enabled)  # type: ignore[arg-type]


async def test_a_second_lifespan_does_not_disturb_the_first(recorder: Recorder) -> None:
    """It is refused, and the guard can still leave the first by itself."""
    guard = LifespanGuard(
        hello,
        app_lifespan="off",
        drain=Drain(signals=[SIGURG]),
        observers=[recorder],
    )
    left = anyio.Event()

    async def first() -> None:
        messages = [{"type": "lifespan.startup"}]

        async def receive() -> dict[str, str]:
            if not messages:
                await anyio.sleep_forever()
            return messages.pop()

        async def send(message: Any) -> None:
            recorder.mark(message["type"])

        await guard({"type": "lifespan"}, receive, send)
        left.set()

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await guard.wait_ready(5)
        with pytest.raises(Exception, match="cannot happen in phase"):
            async with MemoryServer(guard):
                pytest.fail("a second lifespan began")
        signal.raise_signal(SIGURG)
        with anyio.fail_after(5):
            await left.wait()
    assert guard.report().phase.value == "stopped"


async def test_a_lazy_start_is_not_the_first_visitors() -> None:
    """What is bound in the context of a request is not bound in the resources."""
    visitor = contextvars.ContextVar("visitor", default="nobody")
    seen: list[str] = []

    @resource
    async def db() -> AsyncGenerator[str, None]:
        seen.append(visitor.get())
        yield "db"

    guard = LifespanGuard(hello, [db], lazy_start=True, app_lifespan="off")
    visitor.set("request-1")
    assert (await MemoryServer(guard).get("/")).status == 200
    assert seen == ["nobody"]
