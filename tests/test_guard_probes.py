"""Probes of a whole guard: what the orchestrator is told, and what nobody is."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from asgi_lifespan_guard import Gate, LifespanGuard, Probes
from asgi_lifespan_guard.events import (
    AttemptFailed,
    ResourceGaveUp,
    ResourceOpened,
    ResourceReopening,
)
from tests.recorder import Recorder
from tests.support.memory_server import MemoryServer
from tests.support.resources import LATER, Tap, Watcher, hello


pytestmark = pytest.mark.anyio

LEAKY = OSError("cannot connect to postgresql://app:hunter2@db:5432/app")


async def statuses(server: MemoryServer) -> tuple[Any, Any, Any]:
    """Ask for liveness, readiness and startup."""
    paths = ("/livez", "/readyz", "/startupz")
    live, ready, started = [(await server.get(path)).status for path in paths]
    return live, ready, started


async def test_the_whole_way(recorder: Recorder) -> None:
    """From away to up to crashed: liveness stays, startup is latched, readiness not."""
    db = Tap(recorder, shut=True, retry=LATER)
    guard = LifespanGuard(hello, [db.recipe], observers=[recorder])
    server = MemoryServer(guard)
    assert await statuses(server) == (200, 503, 503)
    async with server:
        assert await statuses(server) == (200, 503, 503)
        db.let()
        await recorder.wait_for(ResourceOpened, 2)
        assert await statuses(server) == (200, 200, 200)
        db.crash()
        await recorder.wait_for(ResourceReopening)
        assert await statuses(server) == (200, 503, 200)
    assert await statuses(server) == (200, 503, 200)


async def test_liveness_outlives_a_resource_that_gave_up(recorder: Recorder) -> None:
    """Liveness does not depend on a resource, given up or not."""
    db = Tap(recorder, errors=[LEAKY], retry=None)
    guard = LifespanGuard(hello, [db.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceGaveUp)
        assert await statuses(server) == (200, 503, 503)


@pytest.mark.parametrize(
    "path", ["/readyz?verbose", "/readyz/db", "/readyz/db?verbose", "/livez?verbose"]
)
@pytest.mark.parametrize("details", [False, True])
async def test_no_password_and_without_details_no_name(
    recorder: Recorder, path: str, details: bool
) -> None:
    """Error texts are shown where details may be, and never with a password."""
    db = Tap(recorder, errors=[LEAKY], retry=LATER)
    guard = LifespanGuard(
        hello, [db.recipe], probes=Probes(details=details), observers=[recorder]
    )
    async with MemoryServer(guard) as server:
        await recorder.wait_for(AttemptFailed)
        answer = await server.get(path)
    assert b"hunter2" not in answer.body
    assert (b"app:***@db:5432" in answer.body) is details
    assert details or answer.json().keys() == {"status"}


async def test_excluded_and_single(recorder: Recorder) -> None:
    """One resource can be left out, and asked for alone."""
    db, cache = Tap(recorder), Tap(recorder, "cache", shut=True)
    recipes = [db.recipe, cache.recipe]
    guard = LifespanGuard(hello, recipes, gate=Gate(wait=0), observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 2)
        for path, status in {
            "/readyz": 503,
            "/readyz?exclude=cache": 200,
            "/readyz/db": 200,
            "/readyz/cache": 503,
            "/readyz/app": 200,
            "/readyz/typo": 503,  # the app's, like every other path
        }.items():
            assert (await server.get(path)).status == status, path


@pytest.mark.parametrize("root_path", ["/api", "/api/"])
@pytest.mark.parametrize("in_path", [True, False])
async def test_below_a_root_path(
    recorder: Recorder, root_path: str, in_path: bool
) -> None:
    """Probes are found under uvicorn's `/api/livez` and hypercorn's `/livez`."""
    app = Watcher()
    prefix = "/api" if in_path else ""
    async with MemoryServer(LifespanGuard(app), root_path=root_path) as server:
        for path in ("/livez", "/readyz", "/startupz", "/readyz/app"):
            assert (await server.get(prefix + path)).status == 200
    assert [scope["type"] for scope in app.scopes] == ["lifespan"]


async def test_head_and_post(recorder: Recorder) -> None:
    """HEAD is answered without a body, POST is refused, neither reaches the app."""
    app = Watcher()
    server = MemoryServer(LifespanGuard(app))
    head = await server.http("/livez", method="HEAD").run()
    post = await server.http("/readyz", method="POST").run()
    assert (head.status, head.body, post.status) == (200, b"", 405)
    assert app.scopes == []


async def test_websockets_are_not_probes() -> None:
    """A WebSocket at a probe's path is the app's."""
    app = Watcher()
    await MemoryServer(LifespanGuard(app)).websocket("/livez").run()
    assert app.scopes[-1]["path"] == "/livez"


@pytest.mark.parametrize(
    ("probes", "taken"),
    [
        (None, set()),
        (Probes(live=None, ready=None, startup=None), set()),
        (Probes(live="/alive", ready=None, startup=None), {"/alive"}),
        (Probes(live=None, ready="/readyz", startup=None), {"/readyz"}),
    ],
    ids=["none", "no-paths", "live-only", "ready-only"],
)
async def test_only_chosen_paths_are_taken(
    probes: Probes | None, taken: set[str]
) -> None:
    """Whatever path is not a probe's reaches the app."""
    app = Watcher()
    paths = {"/livez", "/alive", "/readyz", "/readyz/db", "/startupz", "/"}
    async with MemoryServer(LifespanGuard(app, probes=probes)) as server:
        for path in sorted(paths):
            await server.get(path)
    seen = {scope["path"] for scope in app.scopes if scope["type"] == "http"}
    assert seen == paths - taken


@pytest.mark.parametrize("probes", [None, Probes()])
async def test_probes_app(recorder: Recorder, probes: Probes | None) -> None:
    """The probes can be had as an app of their own, whether or not they take paths."""
    db = Tap(recorder, shut=True)
    guard = LifespanGuard(hello, [db.recipe], probes=probes, observers=[recorder])
    async with MemoryServer(guard), MemoryServer(guard.probes_app) as private:
        assert await statuses(private) == (200, 503, 503)
        db.let()
        await recorder.wait_for(ResourceOpened, 2)
        assert await statuses(private) == (200, 200, 200)
        assert (await private.get("/")).status == 404


async def test_probe_hits_stay_out_of_the_access_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While the guard is up, servers do not log what it answered as a probe."""
    caplog.set_level(logging.INFO)
    logger = logging.getLogger("uvicorn.access")

    def hit(path: str) -> None:
        logger.info('%s - "%s %s HTTP/%s" %d', "1.2.3.4", "GET", path, "1.1", 200)

    async with MemoryServer(LifespanGuard(hello), root_path="/api") as server:
        await server.get("/api/livez")
        hit("/api/livez")
        hit("/api/other")
    hit("/api/livez")
    messages = [r.getMessage() for r in caplog.records if r.name == "uvicorn.access"]
    assert [message.split()[3] for message in messages] == ["/api/other", "/api/livez"]
