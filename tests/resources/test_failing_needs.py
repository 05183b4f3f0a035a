"""Needs that fail their checks, crash or give up while others wait for them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import Check, NeedGaveUpError, ResourcePhase, Retry, resource
from asgi_lifespan_guard.events import (
    AttemptFailed,
    ResourceClosed,
    ResourceCrashed,
    ResourceGaveUp,
    ResourceOpened,
)
from tests.resources.stage import Stage


pytestmark = pytest.mark.anyio
AT_ONCE = Retry(wait=lambda _: 0)
LATER = Retry(wait=lambda _: 100)
REFUSED = OSError("refused")


class Need:
    """A resource whose checks fail, and which crashes, when the test says so."""

    def __init__(self, stage: Stage, **options: Any) -> None:
        self.failing = False
        self.crash = anyio.Event()
        check = Check(self._check, every=0.001, failures=1)
        self.recipe = resource(self._open, name="db", check=check, **options)
        self._stage = stage

    def _check(self, _: object) -> None:
        if self.failing:
            raise REFUSED

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[str, None]:
        self._stage.mark("open db")
        async with anyio.create_task_group() as group:
            group.start_soon(self._fail)
            yield "db"
            group.cancel_scope.cancel()

    async def _fail(self) -> None:
        await self.crash.wait()
        self.crash = anyio.Event()
        raise RuntimeError("crash")


async def _wait_while_it_fails(stage: Stage, need: Need) -> None:
    """Have the dependent wait for its next attempt while its need is failing."""
    await stage.until_phase("api", ResourcePhase.WAITING)
    need.failing = True
    await stage.until_phase("db", ResourcePhase.FAILING)
    await stage.until_phase("api", ResourcePhase.PENDING)


async def test_who_waits_for_an_attempt_waits_for_its_need_then(stage: Stage) -> None:
    """And is opened as soon as that has recovered."""
    need = Need(stage)
    errors = [OSError()]

    def fail() -> None:
        if errors:
            raise errors.pop()

    api = stage.make("api", needs=[need.recipe], on_open=fail, retry=LATER)
    async with stage.running(need.recipe, api):
        await _wait_while_it_fails(stage, need)
        need.failing = False
        await stage.until_up("api")
    assert [e.attempt for e in stage.recorder.of(ResourceOpened)] == [1, 1]


async def test_a_failing_need_that_gives_up_takes_down_only_what_needs_it(
    stage: Stage,
) -> None:
    """What waited for it is given up, and everything else stays as it is."""
    need = Need(stage, retry=None, required=False)

    def fail() -> None:
        raise REFUSED

    api = stage.make(
        "api", needs=[need.recipe], on_open=fail, retry=LATER, required=False
    )
    other = stage.make("other")
    async with stage.running(need.recipe, api, other):
        await stage.until_up("other")
        await _wait_while_it_fails(stage, need)
        need.crash.set()
        await stage.until_phase("api", ResourcePhase.FAILED)
        assert stage.phase("db") is ResourcePhase.FAILED
        assert stage.values == {"other": "other"}
    lost = [event.error for event in stage.recorder.of(ResourceGaveUp)]
    assert isinstance(lost[1], NeedGaveUpError)


class Fragile:
    """Fails twice, and crashes when the test says so."""

    def __init__(self) -> None:
        self.errors = [OSError("first"), OSError("second")]
        self.crash = anyio.Event()

    @asynccontextmanager
    async def open(self, _need: str) -> AsyncGenerator[str, None]:
        """Hold a task group in which a task fails."""
        if self.errors:
            raise self.errors.pop(0)
        async with anyio.create_task_group() as group:
            group.start_soon(self._end)
            yield "api"
            group.cancel_scope.cancel()

    async def _end(self) -> None:
        await self.crash.wait()
        raise RuntimeError("api crashed")


async def test_a_failing_need_that_comes_back_leaves_nothing_behind(
    stage: Stage,
) -> None:
    """The next crash of what needs it is a crash, and its failures are told."""
    need = Need(stage, retry=AT_ONCE)
    fragile = Fragile()
    policy = Retry(wait=lambda state: 100 if len(fragile.errors) == 1 else 0)
    api = resource(fragile.open, name="api", needs=[need.recipe], retry=policy)
    async with stage.running(need.recipe, api):
        await _wait_while_it_fails(stage, need)
        need.failing = False
        need.crash.set()
        await stage.until_up("api")
        assert len(stage.recorder.of(AttemptFailed)) == 2
        fragile.crash.set()
        await stage.recorder.wait_for(ResourceCrashed, 2)
        fragile.crash = anyio.Event()
        await stage.until_up("api")
    assert [e.resource for e in stage.recorder.of(ResourceCrashed)] == ["db", "api"]
    assert len(stage.recorder.of(ResourceClosed)) == 2


@pytest.mark.parametrize("required", [True, False])
async def test_a_startup_is_decided_though_a_check_fails(
    stage: Stage, required: bool
) -> None:
    """What has been up and is open does not hold up a blocking startup."""
    need = Need(stage, startup="blocking", required=required)

    async def open_late() -> None:
        await stage.until_up("db")
        need.failing = True
        await stage.until_phase("db", ResourcePhase.FAILING)

    slow = stage.make("slow", startup="blocking", on_open=open_late)
    with anyio.fail_after(10):
        async with stage.running(need.recipe, slow):
            assert stage.phase("db") is ResourcePhase.FAILING
            assert stage.phase("slow") is ResourcePhase.UP
