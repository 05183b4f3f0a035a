"""Context managers that swallow what is raised into them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import CrashedError, ResourcePhase, Retry, resource
from asgi_lifespan_guard.events import (
    AttemptFailed,
    ResourceCrashed,
    ResourceDown,
    ResourceGaveUp,
    ResourceOpened,
    ResourceReopening,
)
from tests.resources.stage import Stage, failing


pytestmark = pytest.mark.anyio
AT_ONCE = Retry(wait=lambda _: 0)
LATER = Retry(wait=lambda _: 100)
REFUSED = OSError("refused")


@asynccontextmanager
async def forgiving(*_needs: Any) -> AsyncGenerator[str, None]:
    """Log what goes wrong, as users write it, and go on."""
    try:
        yield "db"
    except Exception:
        return


async def test_a_first_check_that_fails_is_told_and_waited_after(stage: Stage) -> None:
    """Its error is the attempt's, whatever the context manager does with it."""

    def refuse(_: str) -> None:
        raise REFUSED

    db = resource(forgiving, name="db", check=refuse, retry=LATER)
    async with stage.running(db):
        await stage.until_phase("db", ResourcePhase.WAITING)
        (report,) = stage.supervisor.report()
        assert report.last_error == "OSError: refused"
        assert report.attempts == 1
    (failed,) = stage.recorder.of(AttemptFailed)
    assert failed.error is REFUSED


async def test_it_is_up_when_its_check_passes(stage: Stage) -> None:
    """Then there is nothing to swallow."""
    errors = failing(REFUSED, REFUSED)
    db = resource(forgiving, name="db", check=lambda _: errors(), retry=AT_ONCE)
    async with stage.running(db):
        await stage.until_up("db")
    assert [event.attempt for event in stage.recorder.of(AttemptFailed)] == [1, 2]
    assert len(stage.recorder.of(ResourceOpened)) == 1


async def test_attempts_that_never_wait_leave_the_event_loop_alone(
    stage: Stage,
) -> None:
    """Even a policy without waits and an opening without awaits let others run."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while len(stage.recorder.of(AttemptFailed)) < 5:
            turns += 1
            await anyio.lowlevel.checkpoint()

    def refuse(_: str) -> None:
        if len(stage.recorder.of(AttemptFailed)) < 5:
            raise REFUSED

    db = resource(forgiving, name="db", check=refuse, retry=AT_ONCE)
    async with anyio.create_task_group() as group, stage.running(db):
        group.start_soon(turn)
        await stage.until_up("db")
    assert turns > 4


async def test_a_crash_that_is_swallowed_is_a_crash(stage: Stage) -> None:
    """It is told with what is known: that the context manager ended by itself."""
    crash = anyio.Event()

    @asynccontextmanager
    async def consumer() -> AsyncGenerator[None, None]:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(fail)
                yield
                group.cancel_scope.cancel()
        except* RuntimeError:
            stage.mark("swallowed")

    async def fail() -> None:
        await crash.wait()
        raise RuntimeError("crash")

    async with stage.running(resource(consumer, name="db", retry=LATER)):
        await stage.until_up("db")
        crash.set()
        await stage.recorder.wait_for(ResourceReopening)
    (down,), (crashed,) = (
        stage.recorder.of(ResourceDown),
        stage.recorder.of(ResourceCrashed),
    )
    assert isinstance(down.error, CrashedError)
    assert isinstance(crashed.error, CrashedError)
    assert stage.recorder.of(ResourceGaveUp) == []
