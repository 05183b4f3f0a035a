"""What a request sees of a resource, when its copy of the state is older than that."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import LifespanGuard, resource
from asgi_lifespan_guard.events import ResourceCrashed, ResourceOpened
from tests.recorder import Recorder
from tests.support.memory_server import MemoryServer
from tests.support.resources import hello


pytestmark = pytest.mark.anyio


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
