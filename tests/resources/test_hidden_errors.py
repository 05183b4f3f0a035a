"""What went wrong first is told, though something else goes wrong on the way out."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from asgi_lifespan_guard import (
    Check,
    CloseTimeoutError,
    LifespanGuard,
    OpenTimeoutError,
    resource,
)
from asgi_lifespan_guard.events import (
    AttemptFailed,
    CloseFailed,
    ResourceCrashed,
    ResourceOpened,
)
from asgi_lifespan_guard.testing import LifespanError, MemoryServer
from tests.chaos.witness import all_of
from tests.recorder import Recorder
from tests.support.resources import LATER, hello


pytestmark = pytest.mark.anyio

GONE = ConnectionResetError("gone")
REFUSED = OSError("refused")


async def refuse() -> None:
    """Fail as a database does that is not there."""
    raise REFUSED


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
        assert GONE in all_of(crashed.error)
        (failed,) = recorder.of(CloseFailed)
        assert isinstance(failed.error, CloseTimeoutError)


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
