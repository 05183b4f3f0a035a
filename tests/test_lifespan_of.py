"""Recipes for the lifespan of another app, which nobody else would run."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_lifespan_guard import (
    ConfigurationError,
    LifespanGuard,
    ResourcePhase,
    Retry,
    StateKeyClashError,
    lifespan_of,
)
from asgi_lifespan_guard.events import (
    LifespanUnsupported,
    ResourceGaveUp,
    ResourceOpened,
    ResourceReopening,
)
from tests.recorder import Recorder
from tests.support.memory_server import LifespanError, MemoryServer
from tests.support.resources import LATER, SOON, LivedIn, Tap, Watcher, hello


def test_the_wrapped_app_has_a_name_of_its_own() -> None:
    """Without an app the wrapped one is meant, and is called so."""
    assert lifespan_of().name == "app"
    with pytest.raises(ConfigurationError, match=r"lifespan_of\(sub_app, name='mcp'\)"):
        lifespan_of(name="mcp")


def test_another_app_needs_another_name() -> None:
    """Its name is asked for."""
    assert lifespan_of(hello, name="mcp").name == "mcp"
    with pytest.raises(ConfigurationError, match="needs a name of its own"):
        lifespan_of(hello)


@pytest.mark.parametrize("app", ["main:app", 5, lambda: hello])
def test_another_app_is_given_as_it_is(app: Any) -> None:
    """What is no app is refused at construction, in the name of `lifespan_of`."""
    with pytest.raises(ConfigurationError, match=r"^lifespan_of\(.*the app object"):
        lifespan_of(app, name="sub")


def test_defaults() -> None:
    """A lifespan may take its time; one that blocks has one attempt."""
    recipe = lifespan_of(hello, name="sub")
    assert (recipe.startup, recipe.timeout, recipe.retry) == (
        "background",
        None,
        Retry(),
    )
    assert lifespan_of(hello, name="sub", startup="blocking").retry is None


def test_the_wrapped_apps_recipe_is_no_resource() -> None:
    """It belongs to `app_lifespan=`; and another app's does not."""
    with pytest.raises(ConfigurationError):
        LifespanGuard(hello, [lifespan_of()])
    with pytest.raises(ConfigurationError, match="must be 'blocking'"):
        LifespanGuard(hello, app_lifespan=lifespan_of(hello, name="sub"))


@pytest.mark.anyio
async def test_its_state_reaches_requests(recorder: Recorder) -> None:
    """What it yields is merged into the state; it sees its needs, and no `app`."""
    sub = LivedIn(recorder, index="an index")
    main = Watcher()
    db = Tap(recorder)
    guard = LifespanGuard(
        main, [db.recipe, lifespan_of(sub, name="sub", needs=[db.recipe])]
    )
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}, "app": main}
    async with MemoryServer(guard, lifespan_scope=scope) as server:
        await server.get("/")
        assert main.state == {"db": "db 1", "index": "an index"}
    assert sub.states == [{"db": "db 1"}]
    assert "app" not in sub.scopes[0]
    assert recorder.marks == ["open db", "app starts", "app shuts down", "close db"]


@pytest.mark.anyio
async def test_several_keep_their_states_apart(recorder: Recorder) -> None:
    """Each starts with a state of its own; requests see all of them."""
    first, second = LivedIn(recorder, one=1), LivedIn(recorder, two=2)
    main = LivedIn(recorder, own=0)
    subs = [lifespan_of(first, name="first"), lifespan_of(second, name="second")]
    async with MemoryServer(LifespanGuard(main, subs)) as server:
        await server.get("/")
        state = main.scopes[-1]["state"]
        assert {key: state.get(key) for key in ("own", "one", "two")} == {
            "own": 0,
            "one": 1,
            "two": 2,
        }
    assert first.states == second.states == [{}]


@pytest.mark.anyio
async def test_it_is_retried_and_run_again(recorder: Recorder) -> None:
    """Failures and crashes are those of any other resource."""
    sub = LivedIn(recorder, errors=[OSError("refused")], index="an index")
    recipe = lifespan_of(sub, name="sub", retry=SOON)
    guard = LifespanGuard(hello, [recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        assert (await server.get("/")).status == 200
        sub.crash.set()
        await recorder.wait_for(ResourceReopening)
        await recorder.wait_until(lambda: recorder.marks.count("app starts") == 3)
        assert (await server.get("/")).status == 200
    assert recorder.marks == [*["app starts"] * 3, "app shuts down"]


@pytest.mark.anyio
async def test_while_it_is_away(recorder: Recorder) -> None:
    """An optional one is missing in the state, and requests go on."""
    sub = LivedIn(recorder, index="an index")
    recipe = lifespan_of(sub, name="sub", retry=LATER, required=False)
    main = Watcher()
    guard = LifespanGuard(main, [recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_until(lambda: "index" in guard.state)
        await server.get("/")
        assert main.state == {"index": "an index"}
        sub.crash.set()
        await recorder.wait_for(ResourceReopening)
        await server.get("/")
        assert main.state == {}


@pytest.mark.anyio
async def test_a_blocking_one(recorder: Recorder) -> None:
    """It is up before the port; and where it fails, the startup does."""
    recipe = lifespan_of(LivedIn(recorder), name="sub", startup="blocking")
    async with MemoryServer(LifespanGuard(hello, [recipe])) as server:
        assert recorder.marks == ["app starts"]
        await server.get("/")
    failing = LivedIn(recorder, errors=[OSError("refused")])
    recipe = lifespan_of(failing, name="sub", startup="blocking")
    with pytest.raises(LifespanError, match="refused"):
        async with MemoryServer(LifespanGuard(hello, [recipe])):
            raise AssertionError


@pytest.mark.anyio
async def test_an_app_without_a_lifespan(recorder: Recorder) -> None:
    """It is up without one, and said to have none."""
    guard = LifespanGuard(hello, [lifespan_of(hello, name="sub")], observers=[recorder])
    async with MemoryServer(guard):
        await recorder.wait_for(ResourceOpened, 2)
    assert {event.resource for event in recorder.of(LifespanUnsupported)} == {
        "app",
        "sub",
    }


@pytest.mark.anyio
async def test_one_that_is_off(recorder: Recorder) -> None:
    """A lifespan that is not enabled is not run."""
    sub = LivedIn(recorder)
    recipe = lifespan_of(sub, name="sub", enabled=False)
    guard = LifespanGuard(hello, [recipe])
    async with MemoryServer(guard) as server:
        assert (await server.get("/")).status == 200
        report = guard.report().resource("sub")
        assert report is not None
        assert report.phase is ResourcePhase.SKIPPED
    assert sub.scopes == []


@pytest.mark.anyio
async def test_a_key_that_is_a_resources_name(recorder: Recorder) -> None:
    """It cannot yield what is also a resource."""
    sub = LivedIn(recorder, db="theirs")
    recipes = [Tap(recorder).recipe, lifespan_of(sub, name="sub")]
    guard = LifespanGuard(hello, recipes, observers=[recorder])
    async with MemoryServer(guard):
        gave_up = await recorder.wait_for(ResourceGaveUp)
    assert "'db'" in str(gave_up.error)


@pytest.mark.anyio
async def test_an_asgi_2_class(recorder: Recorder) -> None:
    """The lifespan of an ASGI 2 class is run as any other."""

    class Old:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            await LivedIn(recorder)(self.scope, receive, send)

    async with MemoryServer(LifespanGuard(hello, [lifespan_of(Old, name="old")])):
        await recorder.wait_for_mark("app starts")
    assert recorder.marks == ["app starts", "app shuts down"]


@pytest.mark.anyio
async def test_a_key_of_another_apps_lifespan(recorder: Recorder) -> None:
    """Two apps that yield one key would take each other's value away: one gives up."""
    apps = [LivedIn(recorder, pool=1), LivedIn(recorder, pool=2)]
    recipes = [
        lifespan_of(apps[0], name="first", startup="blocking"),
        lifespan_of(apps[1], name="second", required=False),
    ]
    guard = LifespanGuard(hello, recipes, observers=[recorder])
    async with MemoryServer(guard):
        gave_up = await recorder.wait_for(ResourceGaveUp)
        assert isinstance(gave_up.error, StateKeyClashError)
        assert gave_up.error.keys == ("pool",)
        assert guard.state["pool"] == 1
    assert recorder.marks.count("app shuts down") == 2
