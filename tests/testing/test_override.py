"""What is opened instead of a resource in a test, and when."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from fastapi.testclient import TestClient
from quart import Quart, request

from asgi_lifespan_guard import (
    ConfigurationError,
    Gate,
    LifespanGuard,
    Resource,
    lifespan_of,
    resource,
)
from asgi_lifespan_guard.events import RequestRefused, ResourceGaveUp
from asgi_lifespan_guard.testing import (
    Flaky,
    LifespanError,
    MemoryServer,
    Override,
    override,
)
from tests.recorder import PATIENCE, Recorder
from tests.support.resources import LivedIn, Watcher, hello


pytestmark = pytest.mark.anyio

REFUSED = OSError("refused")
OPEN = Gate(needs={"/about": ()})


@resource
async def db() -> AsyncIterator[str]:
    """Be the real thing, which no test here may open."""
    refuse()
    yield ""


def refuse() -> None:
    """Fail whatever opens the real thing."""
    raise AssertionError("the real one was opened")


@resource(needs=[db])
async def cache(pool: str) -> AsyncIterator[str]:
    """Need the real thing."""
    yield f"cache on {pool}"


def seen_by(app: Watcher) -> dict[str, Any]:
    """Return what the last request saw, but for the guard's own key."""
    return app.state


async def opened(*recipes: Resource[Any]) -> dict[str, Any]:
    """Return what a guard that starts now opens."""
    guard = LifespanGuard(hello, recipes)
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
        return dict(guard.state)


async def fake() -> AsyncGenerator[str, None]:
    """Be a fake."""
    yield "fake"


@asynccontextmanager
async def as_context() -> AsyncIterator[str]:
    """Be a context manager."""
    yield "fake"


def as_thread() -> Iterator[str]:
    """Be opened in a thread."""
    yield "fake"


async def as_step() -> str:
    """Be a step."""
    return "fake"


@pytest.mark.parametrize(
    "factory", [fake, as_context, as_thread, as_step, lambda: as_context()]
)
async def test_opens_the_fake(factory: Any) -> None:
    """Any form of factory does; what needs the resource is given the fake."""
    with override(db, factory):
        assert await opened(db, cache) == {"db": "fake", "cache": "cache on fake"}


async def test_a_guard_that_was_built_before() -> None:
    """What counts is when it starts; and it can start again without."""
    flaky = Flaky("real")
    guard = LifespanGuard(hello, [flaky.recipe])
    for _ in range(2):
        with override(flaky.recipe, fake):
            async with MemoryServer(guard):
                await guard.wait_ready(PATIENCE)
                assert guard.state == {"flaky": "fake"}
        async with MemoryServer(guard):
            await guard.wait_ready(PATIENCE)
            assert guard.state == {"flaky": "real"}


async def test_nested() -> None:
    """The innermost counts, and the others come back in any order of leaving."""
    one, two = override(db, value="one"), override(db, value="two")
    with one:
        with two, one:
            assert await opened(db) == {"db": "one"}
        assert await opened(db) == {"db": "one"}
        two.__enter__()
        assert await opened(db) == {"db": "two"}
    assert await opened(db) == {"db": "two"}
    two.__exit__(None, None, None)


async def test_a_value() -> None:
    """It is shown as it is, given by ``with``, and closed by nobody."""
    client = httpx.AsyncClient()
    with override(db, value=client) as shown:
        assert await opened(db) == {"db": client}
    assert shown is client
    assert not client.is_closed
    await client.aclose()


async def test_many_at_once() -> None:
    """By a mapping; each is back when the block is left, and a decorator takes it."""
    both = override({db: "a fake pool", cache: None})
    with both as shown:
        assert shown == {db: "a fake pool", cache: None}
        assert await opened(db, cache) == {"db": "a fake pool", "cache": None}
    guard = LifespanGuard(app := Watcher(), [db, cache], app_lifespan="off")

    @both
    async def test() -> None:
        assert (await MemoryServer(guard).get("/")).status == 200

    await test()
    assert app.state == {"db": "a fake pool", "cache": None}
    assert (await MemoryServer(guard).get("/")).status == 503


async def test_a_flaky_recipe() -> None:
    """A recipe keeps its own retry and checks, under the resource's name."""
    flaky = Flaky(REFUSED, REFUSED, "pool")
    with override(db, flaky.recipe):
        assert await opened(db) == {"db": "pool"}
    assert (flaky.attempts, flaky.checks > 0, flaky.closed) == (3, True, 1)


async def test_needs_are_passed_to_who_takes_them() -> None:
    """A fake with parameters gets the values, in order; one without, none."""

    async def dependent(pool: str) -> str:
        return f"fake on {pool}"

    with override(db, fake), override(cache, dependent):
        assert (await opened(db, cache))["cache"] == "fake on fake"
    never = Flaky(anyio.Event(), name="never", required=False)
    needy = resource(cache.factory, name="needy", needs=[never.recipe], required=False)
    guard = LifespanGuard(hello, [never.recipe, needy])
    with override(needy, fake):
        async with MemoryServer(guard):
            await anyio.wait_all_tasks_blocked()
            assert guard.state == {"needy": "fake"}


async def test_keeps_what_others_count_on() -> None:
    """Name, startup and required stay; a fake fails fast, even where it may exit."""

    async def broken() -> None:
        raise REFUSED

    strict = resource(fake, name="strict", startup="blocking")
    with (
        override(strict, broken),
        pytest.raises(LifespanError, match="did not open after 1 attempt: OSError"),
    ):
        await opened(strict)


async def test_ends_no_process(recorder: Recorder) -> None:
    """A fake that gives up has a guard that is unready, and a test that goes on."""
    fatal = resource(fake, name="fatal", on_give_up="exit", enabled=False)
    guard = LifespanGuard(hello, [fatal], observers=[recorder])
    for stand_in in (fails, resource(fails, name="other", retry=None)):
        with override(fatal, stand_in):
            async with MemoryServer(guard):
                await recorder.wait_for(ResourceGaveUp)
                assert not guard.ready
        recorder.events.clear()


async def fails() -> None:
    """Be a fake that is broken."""
    raise REFUSED


async def test_checks_are_of_the_real_one() -> None:
    """A check of the resource's own is not put to the fake."""
    checked = resource(fake, name="checked", check=lambda pool: pool.fetchval())
    with override(checked, value="fake"):
        assert await opened(checked) == {"checked": "fake"}


async def test_a_sub_apps_lifespan(recorder: Recorder) -> None:
    """What is given instead is merged into the state, as what it yields would be."""
    sub_app = lifespan_of(LivedIn(recorder), name="mcp")
    app = Watcher()
    guard = LifespanGuard(app, [sub_app])
    with override(sub_app, value={"session": "fake"}):
        assert (await MemoryServer(guard).get("/")).status == 200
        assert seen_by(app) == {"session": "fake"}
        async with MemoryServer(guard) as server:
            await guard.wait_ready(PATIENCE)
            await server.get("/")
        assert seen_by(app) == {"session": "fake"}
    with override(sub_app, value={}):
        assert (await MemoryServer(guard).get("/")).status == 200
    assert recorder.marks == []


# Where no lifespan runs


async def test_values_do_without_a_lifespan(recorder: Recorder) -> None:
    """With values for all that it needs, a request passes a guard never started."""
    app = Watcher()
    guard = LifespanGuard(app, [db, cache], gate=OPEN, observers=[recorder])
    server = MemoryServer(guard)
    with override(db, value="fake"):
        assert (await server.get("/")).status == 503
        assert (await server.get("/about")).status == 200
        assert seen_by(app) == {"db": "fake"}
        with override(cache, value="empty"):
            request = await server.get("/")
            assert request.status == 200
            assert seen_by(app) == {"db": "fake", "cache": "empty"}
            assert LifespanGuard.of(app.scopes[-1]) is guard
            assert (await server.websocket("/").run()).phase == "closed"
        with override(cache, fake):
            assert (await server.get("/")).status == 503
    assert {e.reason for e in recorder.of(RequestRefused)} == {"never started"}
    assert (await server.get("/about")).status == 200
    assert app.scopes[-1]["state"] == {}


async def test_after_a_stop_it_is_as_before_the_start() -> None:
    """In which order tests run, with a lifespan or without, does not matter."""
    app = Watcher()
    flaky = Flaky("real", name="db")
    guard = LifespanGuard(app, [flaky.recipe], gate=OPEN)
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
    server = MemoryServer(guard)
    with override(flaky.recipe, value="fake"):
        assert (await server.get("/")).status == 200
        assert seen_by(app) == {"db": "fake"}
    assert (await server.get("/")).status == 503
    assert (await server.get("/about")).status == 200
    assert seen_by(app) == {}


async def test_while_it_starts_nothing_passes() -> None:
    """Values for a guard that never started are no pass for one that starts."""
    go = anyio.Event()
    slow = Flaky(go, name="slow", startup="blocking")
    guard = LifespanGuard(hello, [slow.recipe], gate=Gate(wait=0))
    async with anyio.create_task_group() as group:

        async def live() -> None:
            async with MemoryServer(guard):
                pass

        group.start_soon(live)
        await slow.wait_until(lambda: slow.attempts)
        with override(slow.recipe, value="fake"):
            assert (await MemoryServer(guard).get("/")).status == 503
        go.set()


async def test_with_httpx() -> None:
    """``httpx.ASGITransport`` sends no lifespan."""
    app = Watcher()
    transport = httpx.ASGITransport(app=LifespanGuard(app, [db]))
    with override(db, value="fake"):
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test"
        ) as client:
            assert (await client.get("/")).status_code == 200
    assert seen_by(app) == {"db": "fake"}


def test_with_a_bare_test_client() -> None:
    """``TestClient(app)`` outside ``with`` sends none, either."""
    app = Watcher()
    client = TestClient(LifespanGuard(app, [db]))
    with override(db, value="fake"):
        assert client.get("/").status_code == 200
    assert seen_by(app) == {"db": "fake"}
    assert "testing.override" in client.get("/").json()["detail"]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_with_quarts_bare_test_client() -> None:
    """Nor does Quart's ``test_client()``."""
    app = Quart(__name__)
    app.asgi_app = LifespanGuard(app.asgi_app, [db])  # type: ignore[method-assign]

    @app.get("/")
    async def home() -> str:
        return str(db.get(request))

    with override(db, value="fake"):
        response = await app.test_client().get("/")
        assert await response.get_data(as_text=True) == "fake"


# As a decorator


class Decorated:
    """Functions of each kind, which tell what is opened while they run."""

    @override(db, value="fake")
    def test(self, *, more: str = "") -> str:
        """Be a test."""
        return str(anyio.run(opened, db)["db"]) + more

    @override(db, value="fake")
    async def async_test(self) -> str:
        """Be an async one."""
        return str((await opened(db))["db"])

    @override(db, value="fake")
    def fixture(self) -> Iterator[Callable[[], str]]:
        """Be a fixture."""
        yield lambda: anyio.run(opened, db)["db"]

    @override(db, value="fake")
    async def async_fixture(self) -> AsyncIterator[str]:
        """Be an async one."""
        yield (await opened(db))["db"]


def test_as_a_decorator() -> None:
    """It covers every call, and keeps what pytest wants to know of the function."""
    assert Decorated().test(more="!") == "fake!"
    assert Decorated.test.__name__ == "test"
    for read in Decorated().fixture():
        assert read() == "fake"
    assert not anyio.run(opened_names)


async def opened_names() -> frozenset[str]:
    """Return what is overridden now."""
    from asgi_lifespan_guard._resources.overrides import to_show

    return to_show([db])[0]


async def test_as_a_decorator_of_coroutines() -> None:
    """It covers them to their ends."""
    assert await Decorated().async_test() == "fake"
    async for value in Decorated().async_fixture():
        assert value == "fake"
        assert await opened_names() == {"db"}
    assert await opened_names() == frozenset()


# What cannot be


def wrong(match: str) -> Any:
    """Expect a mistake to be told."""
    return pytest.raises(ConfigurationError, match=match)


async def test_mistakes() -> None:
    """Each is told where it is made, with its remedy."""
    loose: Any = override
    with wrong("either a factory or value="):
        loose(db)
    with wrong("either a factory or value="):
        loose(db, fake, value="fake")
    with wrong("takes no more than that"):
        loose({db: "fake"}, value="fake")
    with wrong(r"is no resource; give what @resource made"):
        loose({"db": "fake"})
    with wrong(r"is no resource; give what @resource made"):
        loose(fake, fake)
    with wrong(r"is not callable; to show it as it is, say override\(db, value="):
        loose(db, "fake")
    with wrong("cannot be called with 1 positional"):
        loose(cache, lambda one, two: fake())
    with wrong("app_lifespan='off'"):
        loose(lifespan_of(), value={})
    with wrong("app_lifespan='off'"):
        loose(db, lifespan_of())
    with wrong("yields a mapping"):
        loose(lifespan_of(hello, name="sub"), value="fake")


def test_says_what_it_returns() -> None:
    """For type checkers, and for those who look."""
    assert isinstance(override(db, value=1), Override)
