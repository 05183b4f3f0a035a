"""Opening in order, closing in reverse, and going on after errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import (
    CloseTimeoutError,
    Resource,
    ResourcePhase,
    Retry,
    StartupFailedError,
    StopRequestedError,
    resource,
)
from asgi_lifespan_guard._resources.factories import Form
from asgi_lifespan_guard.events import (
    CloseFailed,
    ResourceClosed,
    ResourceGaveUp,
    ResourceOpened,
)
from tests.recorder import PATIENCE
from tests.resources.stage import Stage, failing
from tests.support.virtual_time import on_virtual_time


pytestmark = pytest.mark.anyio


async def test_resources_open_in_order_and_close_in_reverse(stage: Stage) -> None:
    """A need is up before what needs it begins, and closes after it is closed."""
    db = stage.make("db")
    cache = stage.make("cache", needs=[db])
    api = stage.make("api", needs=[cache])
    async with stage.running(api, cache, db):
        await stage.until_up("api")
        stage.mark("serve")
    assert stage.marks == [
        *("open db", "open cache", "open api", "serve"),
        *("closing api", "close api"),
        *("closing cache", "close cache"),
        *("closing db", "close db"),
    ]


async def test_resources_without_a_path_between_them_open_together(
    stage: Stage,
) -> None:
    """Each waits for the other to have begun, so neither waits for it to be done."""
    begun = {"left": anyio.Event(), "right": anyio.Event()}

    async def meet(own: str, other: str) -> None:
        begun[own].set()
        await begun[other].wait()

    left = stage.make("left", on_open=lambda: meet("left", "right"))
    right = stage.make("right", on_open=lambda: meet("right", "left"))
    async with stage.running(left, right):
        await stage.until_up("left", "right")


async def test_a_resource_opens_as_soon_as_its_own_needs_are_up(stage: Stage) -> None:
    """Start-up time is the critical path: nobody waits for somebody else's need."""
    never = anyio.Event()
    slow = stage.make("slow", on_open=never.wait)
    db = stage.make("db")
    api = stage.make("api", needs=[db])
    async with stage.running(slow, db, api):
        await stage.until_up("api")
        assert stage.phase("slow") is ResourcePhase.OPENING


async def test_both_sides_of_a_diamond_are_closed_before_its_foot(
    stage: Stage,
) -> None:
    """They close at the same time, and the foot only after the slower of them."""
    gate = anyio.Event()
    foot = stage.make("foot")
    slow = stage.make("slow", needs=[foot], on_close=gate.wait)
    fast = stage.make("fast", needs=[foot], on_close=gate.set)
    top = stage.make("top", needs=[slow, fast])
    async with stage.running(foot, slow, fast, top):
        await stage.until_up("top")
    assert stage.marks[4:6] == ["closing top", "close top"]
    assert stage.marks[-2:] == ["closing foot", "close foot"]


async def test_needs_are_passed_in_their_order(stage: Stage) -> None:
    """The factory gets one value for each need, positionally; None for one off."""

    async def combine(*values: Any) -> tuple[Any, ...]:
        return values

    one, two = stage.make("one"), stage.make("two")
    off = stage.make("off", enabled=False)
    both = resource(combine, name="both", needs=[two, off, one])
    async with stage.running(one, two, off, both):
        await stage.until_up("both")
        assert stage.values["both"] == ("two", None, "one")


async def test_blocking_resources_are_open_before_the_body_begins(
    stage: Stage,
) -> None:
    """The background ones begin when the body lets them."""
    model = stage.make("model", startup="blocking")
    db = stage.make("db", needs=[model])
    async with stage.running(db, model):
        stage.mark("body")
        await stage.until_up("db")
    assert stage.marks[:3] == ["open model", "body", "open db"]


async def test_a_blocking_resource_fails_fast(stage: Stage) -> None:
    """One attempt; what was open is closed, and the error names the resource."""
    db = stage.make("db", startup="blocking")
    error = OSError("refused")
    api = stage.make("api", startup="blocking", needs=[db], on_open=failing(error))
    never = stage.make("never", needs=[api])
    with pytest.raises(StartupFailedError, match="'api' did not open after 1 at"):
        async with stage.running(db, api, never):
            pytest.fail("the body must not begin")
    assert stage.marks == ["open db", "closing db", "close db"]
    assert [e.error for e in stage.recorder.of(ResourceGaveUp)] == [error]


async def test_a_startup_failure_carries_its_cause(stage: Stage) -> None:
    """The error is what the resource raised at its last attempt."""
    error = OSError("refused")
    db = stage.make("db", startup="blocking", on_open=failing(error))
    with pytest.raises(StartupFailedError) as caught:
        async with stage.running(db):
            pytest.fail("the body must not begin")
    assert caught.value.__cause__ is caught.value.cause is error


async def test_a_failing_startup_cancels_what_is_opening(stage: Stage) -> None:
    """It does not wait for the others to come up first."""
    slow = stage.make("slow", startup="blocking", on_open=anyio.Event().wait)
    bad = stage.make("bad", startup="blocking", on_open=failing(OSError()))
    with pytest.raises(StartupFailedError):
        async with stage.running(slow, bad):
            pytest.fail("the body must not begin")
    assert stage.marks == []
    assert stage.phase("slow") is ResourcePhase.CLOSED


async def test_an_optional_blocking_resource_stops_nothing(stage: Stage) -> None:
    """It may give up, and the startup goes on without it."""
    extra = stage.make(
        "extra", startup="blocking", required=False, on_open=failing(OSError())
    )
    async with stage.running(extra):
        assert stage.phase("extra") is ResourcePhase.FAILED
        assert stage.values == {}


async def test_a_blocking_resource_may_be_retried(stage: Stage) -> None:
    """With a policy of its own it is tried again before the body begins."""
    db = stage.make(
        "db",
        startup="blocking",
        retry=Retry(wait=lambda _: 0),
        on_open=failing(OSError(), OSError()),
    )
    async with stage.running(db) as supervisor:
        assert supervisor.report()[0].attempts == 3


async def test_a_startup_can_be_ended(stage: Stage) -> None:
    """`abort` cancels what is opening and closes what is open, at once."""
    db = stage.make("db", startup="blocking")
    slow = stage.make("slow", startup="blocking", on_open=anyio.Event().wait)

    async def abort() -> None:
        await stage.until_up("db")
        stage.supervisor.abort("SIGTERM")

    async with anyio.create_task_group() as group:
        group.start_soon(abort)
        with pytest.raises(StopRequestedError, match="ended by SIGTERM"):
            async with stage.running(db, slow):
                pytest.fail("the body must not begin")
    assert stage.marks == ["open db", "closing db", "close db"]


async def test_a_failing_close_stops_no_other(stage: Stage) -> None:
    """Its error is told, and the rest is closed as if nothing had been."""
    error = RuntimeError("no")
    db = stage.make("db")
    api = stage.make("api", needs=[db], on_close=failing(error))
    async with stage.running(db, api):
        await stage.until_up("api")
    assert stage.marks == ["open db", "open api", "closing api", *_closed("db")]
    assert stage.recorder.of(CloseFailed) == [CloseFailed("api", error)]
    assert [event.resource for event in stage.recorder.of(ResourceClosed)] == ["db"]
    assert stage.phase("api") is ResourcePhase.CLOSED


@on_virtual_time
async def test_a_hanging_close_is_cut_off(stage: Stage) -> None:
    """After its close_timeout it is cancelled, told, and the others are closed."""
    db = stage.make("db")
    api = stage.make("api", needs=[db], close_timeout=5, on_close=anyio.Event().wait)
    async with stage.running(db, api):
        await stage.until_up("api")
    assert stage.marks == ["open db", "open api", "closing api", *_closed("db")]
    (failed,) = stage.recorder.of(CloseFailed)
    assert isinstance(failed.error, CloseTimeoutError)


@on_virtual_time
async def test_one_deadline_bounds_closing_everything(stage: Stage) -> None:
    """Each close gets what is left of it; at the end nothing, and is still entered."""
    db = stage.make("db", on_close=anyio.Event().wait)
    api = stage.make("api", needs=[db], on_close=anyio.Event().wait)
    async with stage.running(db, api, timeout=5):
        await stage.until_up("api")
    assert stage.marks == ["open db", "open api", "closing api", "closing db"]
    failed = [event.resource for event in stage.recorder.of(CloseFailed)]
    assert failed == ["api", "db"]


@on_virtual_time
async def test_the_deadline_bounds_a_cancelled_opening_too(stage: Stage) -> None:
    """Its clean-up has no more time than everything else has."""
    db = stage.make("db", on_open=lambda: _hang_on(anyio.sleep_forever))
    with anyio.fail_after(PATIENCE):
        async with stage.running(db, timeout=5):
            await stage.until_phase("db", ResourcePhase.OPENING)
    assert stage.phase("db") is ResourcePhase.CLOSED


@on_virtual_time
async def test_the_deadline_bounds_what_was_being_closed_already(stage: Stage) -> None:
    """A close that began for a reopening has to be done when the stop is."""
    crash = anyio.Event()

    @resource(retry=Retry(wait=lambda _: 0))
    async def db() -> AsyncGenerator[None, None]:
        async with anyio.create_task_group() as group:
            group.start_soon(_crash_on, crash)
            yield

    api = stage.make("api", needs=[db], on_close=anyio.sleep_forever)
    with anyio.fail_after(PATIENCE):
        async with stage.running(db, api, timeout=5):
            await stage.until_up("api")
            crash.set()
            await stage.recorder.wait_for_mark("closing api")
            await anyio.wait_all_tasks_blocked()
    failed = {event.resource: event.error for event in stage.recorder.of(CloseFailed)}
    assert isinstance(failed["api"], CloseTimeoutError)


async def _hang_on(wait: Callable[[], Awaitable[None]]) -> None:
    try:
        await wait()
    finally:
        await wait()


async def _crash_on(event: anyio.Event) -> None:
    await event.wait()
    raise RuntimeError("crash")


async def test_the_first_to_close_goes_before_all_it_does_not_need(
    stage: Stage,
) -> None:
    """The app's own lifespan ends first; what needs it is closed before it, though."""
    db, cache = stage.make("db"), stage.make("cache")
    app = stage.make("web", needs=[db])
    above = stage.make("above", needs=[app])
    async with stage.running(cache, db, app, above, first_to_close="web"):
        await stage.until_up("above", "cache")
    closes = [mark for mark in stage.marks if mark.startswith("clos")]
    assert closes[:4] == [*_closed("above"), *_closed("web")]
    assert sorted(closes[4:]) == sorted([*_closed("db"), *_closed("cache")])


async def test_a_stop_during_opening_opens_nothing_more(stage: Stage) -> None:
    """What is opening is cancelled, what waits for its needs never begins."""
    slow = stage.make("slow", on_open=anyio.Event().wait)
    api = stage.make("api", needs=[slow])
    async with stage.running(slow, api):
        await stage.until_phase("slow", ResourcePhase.OPENING)
    assert stage.marks == []
    assert [r.phase for r in stage.supervisor.report()] == [ResourcePhase.CLOSED] * 2
    assert stage.recorder.of(ResourceOpened) == []


async def test_an_error_of_the_body_passes_through(stage: Stage) -> None:
    """It is raised as it is, after everything was closed."""
    error = KeyError("own")

    async def raise_it() -> None:
        await stage.until_up("db")
        raise error

    with pytest.raises(KeyError) as caught:
        async with stage.running(stage.make("db")):
            await raise_it()
    assert caught.value is error
    assert error.__context__ is None
    assert stage.marks == ["open db", *_closed("db")]


async def test_due_times_tell_when_it_makes_sense_to_come_back(stage: Stage) -> None:
    """Nothing for what is up, the wait for what waits, infinity for what is lost."""
    db = stage.make("db")
    waiting = stage.make(
        "waiting", on_open=failing(OSError()), retry=Retry(wait=lambda _: 100)
    )
    above = stage.make("above", needs=[waiting])
    lost = stage.make("lost", on_open=failing(OSError()), retry=None)
    slow = stage.make("slow", on_open=anyio.Event().wait)
    async with stage.running(db, waiting, above, lost, slow) as supervisor:
        await stage.until_up("db")
        await stage.until_phase("waiting", ResourcePhase.WAITING)
        await stage.until_phase("lost", ResourcePhase.FAILED)
        assert supervisor.due_in([]) == supervisor.due_in(["db", "slow"]) == 0
        assert 0 < supervisor.due_in(["db", "waiting"]) <= 100
        assert 0 < supervisor.due_in(["above"]) <= 100
        assert supervisor.due_in(["lost", "waiting"]) == float("inf")
        assert supervisor.are_open({"db"})
        assert not supervisor.are_open({"db", "waiting"})


async def test_the_report_says_how_each_resource_fares(stage: Stage) -> None:
    """Phase, attempts, the last error redacted, the next attempt, the time to open."""
    error = OSError("redis://:hunter2@h")
    db = stage.make("db", startup="blocking")
    cache = stage.make(
        "cache",
        required=False,
        on_open=failing(error),
        retry=Retry(wait=lambda _: 100),
    )
    async with stage.running(db, cache) as supervisor:
        await stage.until_phase("cache", ResourcePhase.WAITING)
        up, waiting = supervisor.report()
        assert supervisor.names == {"db", "cache"}
    assert (up.name, up.startup, up.required) == ("db", "blocking", True)
    assert (up.was_up, up.attempts, up.last_error) == (True, 1, None)
    assert up.opened_in is not None
    assert up.next_attempt_in is None
    assert (waiting.phase, waiting.required) == (ResourcePhase.WAITING, False)
    assert waiting.last_error == "OSError: redis://:***@h"
    assert waiting.next_attempt_in is not None
    assert 0 < waiting.next_attempt_in <= 100
    assert supervisor.report()[1].next_attempt_in is None


def _closed(name: str) -> list[str]:
    return [f"closing {name}", f"close {name}"]


def test_nothing_of_a_recipe_runs_by_itself(stage: Stage) -> None:
    """A supervisor that is only built opens nothing, outside any event loop."""
    db: Resource[Any] = stage.make("db")
    assert db.form is Form.ASYNC_GENERATOR
    assert stage.marks == []


async def test_what_needs_the_first_to_close_is_closed_before_it(stage: Stage) -> None:
    """By however many ways it needs it; everything else is closed after it."""
    base = stage.make("base")
    left, right = stage.make("left", needs=[base]), stage.make("right", needs=[base])
    last = stage.make("last", needs=[left, right])
    other = stage.make("other")
    recipes = (base, left, right, last, other)
    async with stage.running(*recipes, first_to_close="base"):
        await stage.until_up("last", "other")
    closed = [mark for mark in stage.marks if mark.startswith("close ")]
    assert closed[0] == "close last"
    assert closed[-2:] == ["close base", "close other"]
