"""Apps inside apps, whose lifespan nobody would run: `lifespan_of(sub_app)`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from asgi_lifespan_guard import LifespanGuard, lifespan_of, resource
from asgi_lifespan_guard.events import AttemptFailed, ResourceGaveUp
from tests.recorder import Recorder
from tests.support.frameworks import Story, starlette
from tests.support.memory_server import MemoryServer
from tests.support.resources import SOON, LivedIn


pytestmark = pytest.mark.anyio

INITIALIZE = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":'
    b'"2025-03-26","capabilities":{},"clientInfo":{"name":"tests","version":"1"}}}'
)
HEADERS = [
    (b"host", b"localhost"),
    (b"content-type", b"application/json"),
    (b"accept", b"application/json, text/event-stream"),
]


@resource
async def db() -> AsyncGenerator[str, None]:
    """Be a pool."""
    yield "a pool"


def mcp_app() -> Any:
    """Make FastMCP's app, with a lifespan of its own around its session manager."""
    from fastmcp import FastMCP

    return FastMCP("tests").http_app(path="/mcp", json_response=True)


def in_fastapi(sub: Any) -> Any:
    """Mount *sub* in FastAPI."""
    from fastapi import FastAPI

    app = FastAPI()
    app.mount("/tools", sub)
    return app


def in_starlette(sub: Any) -> Any:
    """Mount *sub* in Starlette."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return Starlette(routes=[Mount("/tools", sub)])


def in_hypercorns_dispatcher(sub: Any) -> Any:
    """Mount *sub* in Hypercorn's dispatcher."""
    from hypercorn.middleware import DispatcherMiddleware

    return DispatcherMiddleware({"/tools": sub})


async def initialize(server: MemoryServer) -> Any:
    """Make the first request of every MCP client."""
    request = server.http(
        "/tools/mcp", method="POST", headers=HEADERS, body=[INITIALIZE]
    )
    return await request.run()


@pytest.mark.parametrize("mount", [in_fastapi, in_starlette])
async def test_fastmcp_that_is_mounted(recorder: Recorder, mount: Any) -> None:
    """Its session manager runs, from start to start."""
    sub = mcp_app()
    guard = LifespanGuard(mount(sub), [lifespan_of(sub, name="mcp")])
    for _ in range(2):
        async with MemoryServer(guard) as server:
            answer = await initialize(server)
            assert answer.status == 200
            assert answer.json()["result"]["serverInfo"]["name"] == "tests"


@pytest.mark.parametrize("mount", [in_fastapi, in_starlette])
async def test_fastmcp_as_middleware(recorder: Recorder, mount: Any) -> None:
    """With `add_middleware` as well."""
    sub = mcp_app()
    app = mount(sub)
    app.add_middleware(LifespanGuard, resources=[db, lifespan_of(sub, name="mcp")])
    async with MemoryServer(app) as server:
        assert (await initialize(server)).status == 200


@pytest.mark.parametrize("mount", [in_fastapi, in_starlette])
async def test_fastmcp_without_its_lifespan(recorder: Recorder, mount: Any) -> None:
    """Nobody else runs it: every request of a client fails."""
    async with MemoryServer(LifespanGuard(mount(mcp_app()), [db])) as server:
        with pytest.raises(RuntimeError, match="ask group"):
            await initialize(server)


async def test_the_state_of_a_mounted_app(recorder: Recorder) -> None:
    """What a sub-app's lifespan yields reaches its requests, beside everything else."""
    story = Story()
    sub = starlette(story)
    guard = LifespanGuard(in_starlette(sub), [db, lifespan_of(sub, name="sub")])
    async with MemoryServer(guard) as server:
        told, state = (await server.get("/tools/")).json()
        assert told == ["starts"]
        assert state == {"own": "yielded", "db": "a pool"}
    assert story.told == ["starts", "stops"]


async def test_a_mounted_app_that_fails_for_a_while(recorder: Recorder) -> None:
    """Its startup is retried behind the port; requests wait for it."""
    sub = starlette(Story(OSError("1"), OSError("2")))
    recipe = lifespan_of(sub, name="sub", needs=[db], retry=SOON)
    guard = LifespanGuard(in_starlette(sub), [db, recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        assert (await server.get("/tools/")).json()[0] == ["starts"] * 3
    assert len(recorder.of(AttemptFailed)) == 2


async def test_a_guard_of_its_own_inside(recorder: Recorder) -> None:
    """A guarded app can be mounted in a guarded app."""

    @resource
    async def inner_db() -> AsyncGenerator[str, None]:
        yield "an inner pool"

    story = Story()
    sub = LifespanGuard(starlette(story), [inner_db], probes=None, drain=None)
    guard = LifespanGuard(in_starlette(sub), [db, lifespan_of(sub, name="sub")])
    async with MemoryServer(guard) as server:
        told, state = (await server.get("/tools/")).json()
        assert told == ["starts"]
        assert state["inner_db"] == "an inner pool"
        assert state["db"] == "a pool"
    assert story.told == ["starts", "stops"]


# Hypercorn's dispatcher runs the lifespans of its members, but one that has none (it
# raises, or returns) takes the others' with it.


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_fastmcp_in_hypercorns_dispatcher(recorder: Recorder) -> None:
    """With its own lifespan off, the dispatcher's members are resources."""
    sub = mcp_app()
    guard = LifespanGuard(
        in_hypercorns_dispatcher(sub),
        [lifespan_of(sub, name="mcp")],
        app_lifespan="off",
    )
    async with MemoryServer(guard) as server:
        assert (await initialize(server)).status == 200


async def test_members_of_hypercorns_dispatcher(recorder: Recorder) -> None:
    """One that has no lifespan, and one that fails for a while, do no harm."""
    from hypercorn.middleware import DispatcherMiddleware

    async def raises(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError(scope["type"])

    story = Story(OSError("refused"))
    lived = starlette(story)
    dispatcher = DispatcherMiddleware({"/lived": lived, "/raises": raises})
    members = [
        lifespan_of(lived, name="lived", retry=SOON),
        lifespan_of(raises, name="raises"),
        db,
    ]
    guard = LifespanGuard(dispatcher, members, app_lifespan="off", observers=[recorder])
    async with MemoryServer(guard) as server:
        told, state = (await server.get("/lived/")).json()
        assert told == ["starts", "starts"]
        assert state == {"own": "yielded", "db": "a pool"}
        assert (await server.get("/elsewhere")).status == 404
    assert recorder.of(ResourceGaveUp) == []
    assert story.told == ["starts", "starts", "stops"]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_hypercorns_dispatcher_as_it_is(recorder: Recorder) -> None:
    """Where every member has a lifespan, the dispatcher's own is run as any app's."""
    from hypercorn.middleware import DispatcherMiddleware

    apps: dict[str, Any] = {path: LivedIn(recorder) for path in ("/one", "/two")}
    guard = LifespanGuard(DispatcherMiddleware(apps), [db])
    async with MemoryServer(guard) as server:
        assert (await server.get("/two")).body == b"hello"
    assert recorder.marks == ["app starts"] * 2 + ["app shuts down"] * 2
