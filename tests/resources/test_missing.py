"""Why a value is not to be had: of all causes the one that holds."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_lifespan_guard import (
    Gate,
    LifespanGuard,
    Resource,
    ResourceUnavailableError,
    lifespan_of,
    resource,
)
from asgi_lifespan_guard.events import AttemptFailed, ResourceGaveUp, ResourceOpened
from tests.recorder import Recorder
from tests.support.memory_server import MemoryServer
from tests.support.resources import LATER, Tap, Watcher, hello


pytestmark = pytest.mark.anyio

OPEN = Gate(wait=0, needs={"/": ()})
REFUSED = OSError("postgresql://app:hunter2@db refused")


def why(recipe: Resource[Any], source: Any) -> str:
    """Return what is said of a value that is not to be had."""
    with pytest.raises(ResourceUnavailableError) as raised:
        recipe.get(source)
    assert str(raised.value).endswith(raised.value.reason)
    assert "hunter2" not in raised.value.reason
    return raised.value.reason


async def test_no_guard(recorder: Recorder) -> None:
    """An app that is served past its guard is told so."""
    for source in ({"state": {}}, {"type": "http"}, object()):
        reason = why(Tap(recorder).recipe, source)
        assert reason.startswith("no guard that is started has let this request in")
        assert "LifespanGuard(app, resources=[db])" in reason


async def test_a_guard_that_does_not_serve(recorder: Recorder) -> None:
    """Not yet, not any more, or not at all."""
    db = Tap(recorder)
    guard = LifespanGuard(hello, [db.recipe])
    assert "has not been started" in why(db.recipe, guard)
    async with MemoryServer(guard):
        pass
    assert why(db.recipe, guard) == "the guard has stopped"
    model = Tap(recorder, "model", errors=[REFUSED], startup="blocking")
    broken = LifespanGuard(hello, [model.recipe])
    with pytest.raises(Exception, match="model"):
        async with MemoryServer(broken):
            pass
    assert why(model.recipe, broken).startswith("the guard's startup has failed: ")


async def test_a_resource_of_nobody(recorder: Recorder) -> None:
    """One that was forgotten in `resources=`."""
    app, forgotten = Watcher(), Tap(recorder, "forgotten")
    guard = LifespanGuard(app, [Tap(recorder).recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 2)
        await server.get("/")
        reason = why(forgotten.recipe, app.scopes[-1])
    assert "resources=[..., forgotten]" in reason


async def test_a_resource_that_is_not_enabled(recorder: Recorder) -> None:
    """It is off on purpose, and there is a default for that."""
    off = Tap(recorder, "off", enabled=False)
    guard = LifespanGuard(hello, [off.recipe])
    async with MemoryServer(guard):
        await guard.wait_ready(30)
        reason = why(off.recipe, guard)
    assert reason == "it is not enabled; off.get(source, default) returns a default"


async def test_a_resource_that_is_away(recorder: Recorder) -> None:
    """With its phase and its last error; and why the request came all the same."""
    app = Watcher()
    db = Tap(recorder, errors=[REFUSED], retry=LATER)
    docs = Tap(recorder, "docs", errors=[REFUSED], retry=LATER, required=False)
    guard = LifespanGuard(
        app, [db.recipe, docs.recipe], gate=OPEN, observers=[recorder]
    )
    away = "it is away (waiting): OSError: postgresql://app:***@db refused"
    async with MemoryServer(guard) as server:
        await recorder.wait_for(AttemptFailed, 2)
        await server.get("/")
        request = app.scopes[-1]
        assert why(db.recipe, request) == (
            f"{away}; this path does not wait for it (Gate(needs=...))"
        )
        assert why(docs.recipe, request) == (
            f"{away}; requests come without it, because it is optional"
        )
        assert why(db.recipe, guard) == away
        guard.retry_now()
        await guard.wait_ready(30)
        assert why(db.recipe, request).endswith("is up by now")
        assert db.recipe.get(guard) == "db 1"


async def test_a_resource_that_has_given_up(recorder: Recorder) -> None:
    """Nothing is to be waited for."""
    db = Tap(recorder, errors=[REFUSED], retry=None)
    guard = LifespanGuard(hello, [db.recipe], observers=[recorder])
    async with MemoryServer(guard):
        await recorder.wait_for(ResourceGaveUp)
        assert why(db.recipe, guard).startswith("it is away (failed): OSError: ")


async def test_a_resource_that_waits_for_what_it_needs(recorder: Recorder) -> None:
    """It has no error of its own."""
    db = Tap(recorder, shut=True)
    api = resource(hello_to, name="api", needs=[db.recipe])
    guard = LifespanGuard(hello, [db.recipe, api])
    async with MemoryServer(guard):
        assert why(api, guard) == "it is away (pending)"


async def test_what_a_lifespan_yields(recorder: Recorder) -> None:
    """It is in the state by its own keys, and has no value of its own."""
    sub = lifespan_of(Watcher(), name="sub")
    guard = LifespanGuard(hello, [sub])
    async with MemoryServer(guard):
        await guard.wait_ready(30)
        assert "each key by itself" in why(sub, guard)


async def hello_to(db: str) -> str:
    """Be a step that needs something."""
    return f"hello {db}"
