"""A flaky resource does what it is told, when it is told."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient

from asgi_lifespan_guard import LifespanGuard, Probes, ResourcePhase, StartupFailedError
from asgi_lifespan_guard.events import AttemptFailed, ResourceCrashed, ResourceDown
from asgi_lifespan_guard.testing import Flaky, LifespanError, MemoryServer
from tests.recorder import PATIENCE, Recorder
from tests.support.resources import hello


pytestmark = pytest.mark.anyio

REFUSED = OSError("refused")


async def test_follows_its_script(recorder: Recorder) -> None:
    """One outcome for each attempt, in order."""
    flaky = Flaky(REFUSED, KeyError("row"), "pool", name="db")
    guard = LifespanGuard(hello, [flaky.recipe], observers=[recorder])
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
        assert guard.state == {"db": "pool"}
        assert (flaky.attempts, flaky.opened, flaky.closed) == (3, 1, 0)
        assert flaky.is_open
    assert (flaky.opened, flaky.closed, flaky.is_open) == (1, 1, False)
    errors = [event.error for event in recorder.of(AttemptFailed)]
    assert [type(error) for error in errors] == [OSError, KeyError]


async def test_without_a_script() -> None:
    """It opens, and its value is ``None``."""
    flaky = Flaky()
    guard = LifespanGuard(hello, [flaky.recipe])
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
        assert guard.state == {"flaky": None}


async def test_waits_for_an_event(recorder: Recorder) -> None:
    """An attempt hangs for as long as the test wants it."""
    go = anyio.Event()
    flaky = Flaky(go, "pool")
    guard = LifespanGuard(hello, [flaky.recipe], observers=[recorder])
    async with MemoryServer(guard):
        await flaky.wait_until(lambda: flaky.attempts)
        await anyio.wait_all_tasks_blocked()
        assert not guard.ready
        go.set()
        await guard.wait_ready(PATIENCE)
        assert guard.state == {"flaky": "pool"}


async def test_crashes(recorder: Recorder) -> None:
    """What it is told to raise is what it crashes with; it is opened again."""
    flaky = Flaky("first", "second")
    guard = LifespanGuard(hello, [flaky.recipe], observers=[recorder])
    with pytest.raises(RuntimeError, match="not open"):
        flaky.crash()
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
        flaky.crash(REFUSED)
        crashed = await recorder.wait_for(ResourceCrashed)
        assert crashed.error is REFUSED
        await flaky.wait_until(lambda: flaky.opened == 2)
        await guard.wait_ready(PATIENCE)
        assert guard.state == {"flaky": "second"}
        flaky.crash()
        await flaky.wait_until(lambda: flaky.opened == 3)
    assert flaky.closed == 3


async def test_fails_checks(recorder: Recorder) -> None:
    """Checks fail from one moment on, until it recovers."""
    flaky = Flaky("pool", failures=2)
    guard = LifespanGuard(hello, [flaky.recipe], observers=[recorder])
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
        flaky.fail_checks(REFUSED)
        down = await recorder.wait_for(ResourceDown)
        assert down.error is REFUSED
        assert guard.report().resources[0].phase is ResourcePhase.FAILING
        before = flaky.checks
        flaky.recover()
        await guard.wait_ready(PATIENCE)
        assert flaky.checks > before
    assert flaky.attempts == 1


async def test_failing_checks_keep_it_from_opening() -> None:
    """The first check belongs to the attempt."""
    flaky = Flaky("pool")
    flaky.fail_checks()
    guard = LifespanGuard(hello, [flaky.recipe])
    async with MemoryServer(guard):
        await flaky.wait_until(lambda: flaky.attempts > 3)
        flaky.recover()
        await guard.wait_ready(PATIENCE)


async def test_recovery_ends_the_script() -> None:
    """The attempts to come give the script's last value."""
    flaky = Flaky(REFUSED, "one", "two", anyio.Event(), REFUSED)
    flaky.recover()
    guard = LifespanGuard(hello, [flaky.recipe])
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
        assert guard.state == {"flaky": "two"}
        assert flaky.attempts == 1


async def test_a_blocking_one_fails_the_startup() -> None:
    """As any blocking resource it has one attempt, unless it is told otherwise."""
    flaky = Flaky(REFUSED, startup="blocking")
    with pytest.raises(LifespanError) as caught:
        async with MemoryServer(LifespanGuard(hello, [flaky.recipe])):
            pytest.fail("it started")
    assert isinstance(caught.value.__cause__, StartupFailedError)
    assert (flaky.attempts, flaky.opened) == (1, 0)


async def test_takes_what_a_resource_takes(recorder: Recorder) -> None:
    """Its needs' values are passed to it, and its options are a resource's."""
    db = Flaky("pool", name="db")
    cache = Flaky(name="cache", needs=[db.recipe], required=False)
    guard = LifespanGuard(hello, [db.recipe, cache.recipe], observers=[recorder])
    async with MemoryServer(guard):
        await cache.wait_until(lambda: cache.is_open)
    assert not cache.recipe.required
    assert cache.recipe.needs == (db.recipe,)


def test_obeys_other_threads() -> None:
    """A sync test beside a test client may tell it to crash, and to recover."""
    flaky = Flaky("pool")
    guard = LifespanGuard(
        hello, [flaky.recipe], probes=Probes(details=True), drain=None
    )
    with TestClient(guard) as client:
        assert client.get("/").status_code == 200
        flaky.crash()
        while flaky.opened < 2:
            client.get("/readyz")
        assert client.get("/").status_code == 200
    assert flaky.closed == 2


@pytest.mark.parametrize(
    ("anyio_backend", "kind"),
    [
        pytest.param(("asyncio", {}), asyncio.Event, id="asyncio"),
        pytest.param(("trio", {}), None, id="trio"),
    ],
)
async def test_knows_the_event_loops_own_events(kind: Any) -> None:
    """An event need not be anyio's."""
    import trio

    go = (kind or trio.Event)()
    flaky = Flaky(go, "pool")
    guard = LifespanGuard(hello, [flaky.recipe])
    async with MemoryServer(guard):
        go.set()
        await guard.wait_ready(PATIENCE)
        assert guard.state == {"flaky": "pool"}
