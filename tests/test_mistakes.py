"""What is easily done wrong with a guard: the error names the remedy."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette

from asgi_lifespan_guard import (
    ConfigurationError,
    LifespanGuard,
    OpenedTwiceError,
    Phase,
    lifespan_of,
    resource,
)
from asgi_lifespan_guard.events import ResourceGaveUp
from tests.recorder import Recorder
from tests.support.memory_server import LifespanError, MemoryServer
from tests.support.resources import Tap, hello


# One app, wrapped twice.


def test_wrapping_a_guard_with_the_same_resources(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """It is an error at once, in the log, too; with other resources it is none."""
    db, cache = Tap(recorder).recipe, Tap(recorder, "cache").recipe
    guard = LifespanGuard(hello, [db, cache])
    with pytest.raises(OpenedTwiceError, match="'db' would be opened twice") as caught:
        LifespanGuard(guard, [db])
    assert caught.value.resources == ("db",)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    LifespanGuard(guard, [Tap(recorder).recipe])


@pytest.mark.anyio
async def test_a_guard_around_a_guarded_app(recorder: Recorder) -> None:
    """With `add_middleware` it shows at the start, which fails; nothing stays open."""
    db = Tap(recorder, startup="blocking").recipe
    app = Starlette()
    app.add_middleware(LifespanGuard, resources=[db])
    outer = LifespanGuard(app, [db])
    with pytest.raises(LifespanError, match="Wrap an app once"):
        async with MemoryServer(outer):
            pytest.fail("it started")
    assert recorder.marks == ["open db", "close db"]
    assert outer.phase is Phase.FAILED


@pytest.mark.anyio
@pytest.mark.parametrize("needs", [False, True])
async def test_a_guard_around_an_app_in_the_background(
    recorder: Recorder, needs: bool
) -> None:
    """The app gives up at once, because no other attempt could help."""
    db = Tap(recorder).recipe
    app = Starlette()
    app.add_middleware(LifespanGuard, resources=[db])
    lifespan = lifespan_of(needs=[db] if needs else [])
    outer = LifespanGuard(app, [db], app_lifespan=lifespan, observers=[recorder])
    async with MemoryServer(outer):
        event = await recorder.wait_for(ResourceGaveUp)
    assert (event.resource, event.attempts) == ("app", 1)
    assert "'db' would be opened twice" in str(event.error)


@pytest.mark.anyio
async def test_guards_side_by_side(recorder: Recorder) -> None:
    """Two apps may each open the same recipe, at once or after one another."""
    db = Tap(recorder).recipe
    one, two = LifespanGuard(hello, [db]), LifespanGuard(hello, [db])
    scope: dict[str, Any] = {"type": "lifespan", "asgi": {}, "state": {}}
    for guard in (one, two, one):
        async with MemoryServer(guard, lifespan_scope=scope):
            await recorder.wait_for_mark("open db", recorder.marks.count("open db") + 1)
    async with MemoryServer(one), MemoryServer(two) as server:
        assert (await server.get("/")).status == 200


# FastAPI's Depends.


@pytest.mark.parametrize("method", [False, True])
def test_a_resource_is_no_dependency(recorder: Recorder, method: bool) -> None:
    """Where the route is declared it is said what to write instead."""
    db = Tap(recorder).recipe
    dependency: Any = db.get if method else db

    with pytest.raises(ConfigurationError, match=r"say Depends\(get_db\)"):
        FastAPI(dependencies=[Depends(dependency)]).get("/")(lambda: None)


def test_a_resource_is_not_called(recorder: Recorder) -> None:
    """It is a recipe, and no function any more."""
    db: Any = Tap(recorder).recipe
    with pytest.raises(TypeError, match=r"db\.get\(request\) returns its value"):
        db({"type": "http"})


def test_a_resource_is_not_made_of_a_resource(recorder: Recorder) -> None:
    """`resource(db)` is one `resource` too many."""
    db: Any = Tap(recorder).recipe
    with pytest.raises(ConfigurationError, match="is a resource already"):
        resource(db)
