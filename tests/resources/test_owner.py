"""The owner: retry, crash, reopening, steps, and what is lost for good."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
import tenacity
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard import (
    Check,
    CrashedError,
    FactoryError,
    NeedGaveUpError,
    Resource,
    ResourcePhase,
    Retry,
    lifespan_of,
    resource,
)
from asgi_lifespan_guard._resources import retry
from asgi_lifespan_guard.events import (
    AttemptFailed,
    CloseFailed,
    Event,
    ResourceCrashed,
    ResourceGaveUp,
    ResourceOpened,
    ResourcePhaseChanged,
    ResourceReopening,
    ResourceSkipped,
)
from tests.recorder import PATIENCE
from tests.resources.stage import Stage, failing
from tests.support.virtual_time import on_virtual_time


pytestmark = pytest.mark.anyio
AT_ONCE = Retry(wait=lambda _: 0)
LATER = Retry(wait=lambda _: 100)


# Retry


async def test_a_failed_attempt_is_followed_by_another(stage: Stage) -> None:
    """Until one succeeds; each failure is told with its number and the wait."""
    errors = [OSError("one"), OSError("two")]
    db = stage.make("db", on_open=failing(*errors), retry=AT_ONCE)
    async with stage.running(db) as supervisor:
        await stage.until_up("db")
        assert supervisor.report()[0].attempts == 3
        assert supervisor.report()[0].last_error is None
    failed = stage.recorder.of(AttemptFailed)
    assert failed == [
        AttemptFailed("db", 1, errors[0], 0.0, False),
        AttemptFailed("db", 2, errors[1], 0.0, False),
    ]
    (opened,) = stage.recorder.of(ResourceOpened)
    assert opened.attempt == 3


async def test_a_stop_ends_a_wait_at_once(stage: Stage) -> None:
    """A stop does not wait for the next attempt to be due."""
    db = stage.make("db", on_open=failing(OSError()), retry=LATER)
    async with stage.running(db):
        await stage.until_phase("db", ResourcePhase.WAITING)
    assert stage.phase("db") is ResourcePhase.CLOSED
    assert stage.marks == []


async def test_retry_now_cuts_a_wait_short(stage: Stage) -> None:
    """The next attempt is made at once; who does not wait is left alone."""
    db = stage.make("db", on_open=failing(OSError(), OSError()), retry=LATER)
    async with stage.running(stage.make("other"), db) as supervisor:
        for attempt in (1, 2):
            await stage.recorder.wait_for(AttemptFailed, attempt)
            supervisor.retry_now()
        await stage.until_up("db")
        supervisor.retry_now()
    assert stage.marks.count("open other") == 1


async def test_a_hurry_before_the_attempt_fails_cuts_no_later_wait(
    stage: Stage,
) -> None:
    """`retry_now` is about the wait of now: a later one is waited out."""
    gate = anyio.Event()

    async def fail_late() -> None:
        await gate.wait()
        raise OSError

    db = stage.make("db", on_open=fail_late, retry=LATER)
    async with stage.running(db) as supervisor:
        await stage.until_phase("db", ResourcePhase.OPENING)
        supervisor.retry_now()
        gate.set()
        await stage.until_phase("db", ResourcePhase.WAITING)
        await anyio.wait_all_tasks_blocked()
        assert stage.phase("db") is ResourcePhase.WAITING


async def test_a_spent_budget_is_given_up(stage: Stage) -> None:
    """Tenacity's stop says when; the last error is told, and it is not permanent."""
    errors = [OSError("one"), OSError("two")]
    retry = Retry(wait=lambda _: 0, stop=tenacity.stop_after_attempt(2))
    db = stage.make("db", on_open=failing(*errors), retry=retry)
    async with stage.running(db):
        await stage.until_phase("db", ResourcePhase.FAILED)
    assert stage.recorder.of(ResourceGaveUp) == [
        ResourceGaveUp("db", 2, errors[1], permanent=False, required=True)
    ]
    assert stage.phase("db") is ResourcePhase.FAILED


@pytest.mark.parametrize(
    "error",
    [
        NameError("x"),
        ImportError("x"),
        NotImplementedError(),
        ExceptionGroup("", [OSError(), ExceptionGroup("", [SyntaxError()])]),
    ],
)
async def test_a_permanent_error_is_given_up_at_once(
    stage: Stage, error: Exception
) -> None:
    """A mistake of the program is not retried, also where a group holds it."""
    db = stage.make("db", on_open=failing(error), retry=AT_ONCE)
    async with stage.running(db):
        await stage.until_phase("db", ResourcePhase.FAILED)
    assert stage.recorder.of(ResourceGaveUp) == [
        ResourceGaveUp("db", 1, error, permanent=True, required=True)
    ]


@pytest.mark.parametrize("error", [TypeError(), AttributeError(), AssertionError()])
async def test_a_suspicious_error_is_retried_and_shown_once(
    stage: Stage, error: Exception
) -> None:
    """Drivers raise such on malformed answers; the first comes with its traceback."""
    db = stage.make("db", on_open=failing(error, error), retry=AT_ONCE)
    async with stage.running(db):
        await stage.until_up("db")
    failed = stage.recorder.of(AttemptFailed)
    assert [event.unexpected for event in failed] == [True, False]


async def test_a_factory_that_cannot_be_called_is_given_up(stage: Stage) -> None:
    """A TypeError from the call itself is permanent, whatever the policy says."""

    def broken() -> Any:
        raise TypeError("odd arguments")

    retry = Retry(wait=lambda _: 0, when=lambda _: True)
    async with stage.running(resource(broken, name="db", retry=retry)):
        await stage.until_phase("db", ResourcePhase.FAILED)
    (gave_up,) = stage.recorder.of(ResourceGaveUp)
    assert gave_up.permanent
    assert isinstance(gave_up.error, FactoryError)
    assert "odd arguments" in str(gave_up.error)


async def test_a_strategy_that_raises_is_told_and_given_up(stage: Stage) -> None:
    """The mistake is the error, the failure its context; nothing else is disturbed."""
    failure = OSError("refused")

    def wait(_: object) -> float:
        raise ZeroDivisionError("mistake")

    db = stage.make("db", on_open=failing(failure), retry=Retry(wait=wait))
    async with stage.running(db, stage.make("other")):
        await stage.until_phase("db", ResourcePhase.FAILED)
        await stage.until_up("other")
    (gave_up,) = stage.recorder.of(ResourceGaveUp)
    assert isinstance(gave_up.error, ZeroDivisionError)
    assert gave_up.error.__context__ is failure


# Lost needs


async def test_what_needs_a_lost_resource_is_lost(stage: Stage) -> None:
    """It gives up, saying which need it was; so does what needs it in turn."""
    db = stage.make("db", on_open=failing(OSError()), retry=None)
    api = stage.make("api", needs=[db])
    web = stage.make("web", needs=[api])
    async with stage.running(db, api, web):
        await stage.until_phase("web", ResourcePhase.FAILED)
    gave_up = stage.recorder.of(ResourceGaveUp)
    assert [event.resource for event in gave_up] == ["db", "api", "web"]
    assert isinstance(gave_up[1].error, NeedGaveUpError)
    assert (gave_up[1].attempts, gave_up[2].permanent) == (0, True)
    assert stage.marks == []


@on_virtual_time
async def test_a_lost_resource_leaves_the_others_up(stage: Stage) -> None:
    """Giving up is no reason to close what does not need it."""
    gate = anyio.Event()
    db = stage.make("db", on_open=gate.wait, retry=None, timeout=5)
    async with stage.running(stage.make("other"), db):
        await stage.until_phase("db", ResourcePhase.FAILED)
        assert stage.values == {"other": "other"}


# Skipped


@pytest.mark.parametrize("enabled", [False, lambda: False])
async def test_what_is_off_is_skipped(stage: Stage, enabled: Any) -> None:
    """It is never opened, satisfies what needs it, and is told so."""
    off = stage.make("off", enabled=enabled)
    api = stage.make("api", needs=[off])
    async with stage.running(off, api) as supervisor:
        await stage.until_up("api")
        skipped = supervisor.report()[0]
        assert (skipped.phase, skipped.was_up) == (ResourcePhase.SKIPPED, True)
        assert supervisor.are_open({"off", "api"})
        assert supervisor.due_in(["off"]) == 0
    assert stage.recorder.of(ResourceSkipped) == [ResourceSkipped("off")]
    assert "open off" not in stage.marks
    assert stage.phase("off") is ResourcePhase.SKIPPED


async def test_enabled_is_asked_at_each_startup(stage: Stage) -> None:
    """The same recipe may be off in one run, and on in the next."""
    answers = [False, True]
    db = stage.make("db", enabled=lambda: answers.pop(0))
    async with stage.running(db):
        await stage.until_phase("db", ResourcePhase.SKIPPED)
    async with stage.running(db):
        await stage.until_up("db")


async def test_enabled_that_raises_is_given_up(stage: Stage) -> None:
    """Whether to open it cannot be said, so it is not opened, and that is told."""
    error = KeyError("TRACING")
    db = stage.make("db", enabled=failing(error))
    api = stage.make("api", needs=[db])
    async with stage.running(db, api):
        await stage.until_phase("api", ResourcePhase.FAILED)
    gave_up = stage.recorder.of(ResourceGaveUp)
    assert gave_up[0] == ResourceGaveUp("db", 0, error, permanent=True, required=True)
    assert stage.marks == []


# Crash


class Crashing:
    """Resources that crash when they are told to, each in a way of its own."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.error = RuntimeError("crash")
        self.crash = anyio.Event()

    @asynccontextmanager
    async def by_its_child(self) -> AsyncGenerator[str, None]:
        """Hold a task group in which a task fails."""

        async def fail() -> None:
            await self.crash.wait()
            self.crash = anyio.Event()
            raise self.error

        self.stage.mark("open db")
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(fail)
                yield "db"
                group.cancel_scope.cancel()
        finally:
            self.stage.mark("close db")

    @asynccontextmanager
    async def by_its_scope(self) -> AsyncGenerator[str, None]:
        """Hold a cancel scope that is cancelled, and swallow the cancellation."""

        async def end() -> None:
            await self.crash.wait()
            self.crash = anyio.Event()
            group.cancel_scope.cancel()

        self.stage.mark("open db")
        async with anyio.create_task_group() as group:
            group.start_soon(end)
            yield "db"
            group.cancel_scope.cancel()
        self.stage.mark("close db")


async def test_a_crash_is_told_and_the_resource_reopened(stage: Stage) -> None:
    """A task group's child fails: its dependents close first, and all come back."""
    made = Crashing(stage)
    db = resource(made.by_its_child, name="db", retry=AT_ONCE)
    api = stage.make("api", needs=[db])
    async with stage.running(db, api):
        await stage.until_up("api")
        made.crash.set()
        await stage.recorder.wait_for_mark("open api", 2)
        await stage.until_up("api")
        assert stage.values == {"db": "db", "api": "api"}
    one_life = ["open db", "open api", "closing api", "close api", "close db"]
    assert stage.marks == one_life * 2
    (crashed,) = stage.recorder.of(ResourceCrashed)
    assert isinstance(crashed.error, ExceptionGroup)
    assert crashed.error.exceptions == (made.error,)
    assert stage.recorder.of(AttemptFailed) == []
    assert stage.recorder.of(ResourceReopening) == [ResourceReopening("db", 0.0)]


async def test_a_resource_that_ends_by_itself_has_crashed(stage: Stage) -> None:
    """Without any error of its own: the one told says that it ended while up."""
    made = Crashing(stage)
    db = resource(made.by_its_scope, name="db", retry=AT_ONCE)
    async with stage.running(db):
        await stage.until_up("db")
        made.crash.set()
        await stage.recorder.wait_for(ResourceOpened, 2)
    (crashed,) = stage.recorder.of(ResourceCrashed)
    assert isinstance(crashed.error, CrashedError)
    assert stage.marks == ["open db", "close db"] * 2


async def test_a_crash_without_a_policy_is_given_up(stage: Stage) -> None:
    """What may be tried once only is not reopened; what needs it is lost."""
    made = Crashing(stage)
    db = resource(made.by_its_child, name="db", retry=None)
    api = stage.make("api", needs=[db])
    async with stage.running(db, api):
        await stage.until_up("api")
        made.crash.set()
        await stage.until_phase("api", ResourcePhase.FAILED)
        assert stage.phase("db") is ResourcePhase.FAILED
        assert stage.values == {}
    assert stage.marks[-3:] == ["closing api", "close api", "close db"]


async def test_a_crash_during_the_stop_is_a_failed_close(stage: Stage) -> None:
    """It is not reopened, and its error is not lost."""
    made = Crashing(stage)
    gate = anyio.Event()
    db = resource(made.by_its_child, name="db", retry=AT_ONCE)

    async def crash() -> None:
        made.crash.set()
        await gate.wait()

    api = stage.make("api", needs=[db], on_close=crash)
    async with anyio.create_task_group() as group, stage.running(db, api):
        await stage.until_up("api")

        async def let_go() -> None:
            await anyio.wait_all_tasks_blocked()
            gate.set()

        group.start_soon(let_go)
    (failed,) = stage.recorder.of(CloseFailed)
    assert failed.resource == "db"
    assert stage.recorder.of(ResourceCrashed) == []


@pytest.mark.parametrize(("long_enough", "attempts"), [(0, [1, 1, 1]), (60, [1, 1, 3])])
async def test_a_crash_after_long_finds_a_fresh_budget(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, long_enough: float, attempts: Any
) -> None:
    """A crash loop counts its attempts; one crash a day does not."""
    monkeypatch.setattr(retry, "LONG_ENOUGH", long_enough)
    made = Crashing(stage)
    async with stage.running(resource(made.by_its_child, name="db", retry=AT_ONCE)):
        for time in (1, 2):
            await stage.recorder.wait_for(ResourceOpened, time)
            made.crash.set()
        await stage.recorder.wait_for(ResourceOpened, 3)
    opened = stage.recorder.of(ResourceOpened)
    assert [event.attempt for event in opened] == attempts


# What is not run again


async def test_a_step_that_ran_is_not_run_again(stage: Stage) -> None:
    """Its need is reopened under it; what comes after the step is, too."""
    made = Crashing(stage)

    async def migrate(db: str) -> str:
        stage.mark("migrate")
        return db.upper()

    db = resource(made.by_its_child, name="db", retry=AT_ONCE)
    step = resource(migrate, needs=[db])
    api = stage.make("api", needs=[step])
    async with stage.running(db, step, api):
        await stage.until_up("api")
        made.crash.set()
        await stage.recorder.wait_for_mark("open api", 2)
        assert stage.values["migrate"] == "DB"
    assert stage.marks.count("migrate") == 1
    closing = stage.marks[3:6]
    assert closing == ["closing api", "close api", "close db"]
    assert stage.marks[6:8] == ["open db", "open api"]


async def test_a_callable_step_cannot_be_reopened(stage: Stage) -> None:
    """It is refused before it has run, as a coroutine function is when it is made."""
    runs: list[int] = []

    async def migrate() -> None:
        runs.append(1)

    check = Check(lambda _: True, then="reopen")
    step = resource(lambda: migrate(), name="step", check=check, retry=AT_ONCE)
    async with stage.running(step):
        gave_up = await stage.recorder.wait_for(ResourceGaveUp)
    assert isinstance(gave_up.error, FactoryError)
    assert "step is not run again" in str(gave_up.error)
    assert runs == []


async def test_a_callable_awaitable_cannot_be_reopened_either(stage: Stage) -> None:
    """An awaitable that is no coroutine is left alone."""

    class Migration:
        def __await__(self) -> Any:
            raise AssertionError("it was run")

    check = Check(lambda _: True, then="reopen")
    step = resource(Migration, name="step", check=check, retry=AT_ONCE)
    async with stage.running(step):
        gave_up = await stage.recorder.wait_for(ResourceGaveUp)
    assert isinstance(gave_up.error, FactoryError)


async def test_a_skipped_step_connects_nothing(stage: Stage) -> None:
    """What comes after it is no concern of what it would have needed."""
    made = Crashing(stage)

    async def migrate(db: str) -> None: ...

    db = resource(made.by_its_child, name="db", retry=None)
    step = resource(migrate, needs=[db], enabled=False)
    api = stage.make("api", needs=[step])
    async with stage.running(db, step, api):
        await stage.until_up("db", "api")
        made.crash.set()
        await stage.until_phase("db", ResourcePhase.FAILED)
        await anyio.wait_all_tasks_blocked()
        assert stage.phase("api") is ResourcePhase.UP
    assert stage.phase("migrate") is ResourcePhase.SKIPPED


async def test_what_needs_a_step_is_lost_with_what_the_step_needs(
    stage: Stage,
) -> None:
    """The step stays up, and yet what comes after it cannot be opened again."""
    made = Crashing(stage)

    async def migrate(db: str) -> None:
        stage.mark("migrate")

    db = resource(made.by_its_child, name="db", retry=None)
    step = resource(migrate, needs=[db])
    api = stage.make("api", needs=[step])
    async with stage.running(db, step, api):
        await stage.until_up("api")
        made.crash.set()
        await stage.until_phase("api", ResourcePhase.FAILED)
        assert stage.phase("migrate") is ResourcePhase.UP
    lost = stage.recorder.of(ResourceGaveUp)[-1]
    assert isinstance(lost.error, NeedGaveUpError)
    assert lost.error.need == "db"


async def test_a_callable_step_is_known_as_one_after_it_ran(stage: Stage) -> None:
    """A callable that returns a coroutine is a step, which only calling it shows."""
    made = Crashing(stage)

    async def migrate() -> None:
        stage.mark("migrate")

    db = resource(made.by_its_child, name="db", retry=AT_ONCE)
    step = resource(lambda _: migrate(), name="step", needs=[db])
    async with stage.running(db, step):
        await stage.until_up("step")
        made.crash.set()
        await stage.recorder.wait_for_mark("open db", 2)
        await stage.until_up("db")
    assert stage.marks.count("migrate") == 1


async def test_the_apps_own_lifespan_is_not_restarted(stage: Stage) -> None:
    """It waits for its needs before its first start, and outlasts them then."""
    made = Crashing(stage)
    db = resource(made.by_its_child, name="db", retry=AT_ONCE)
    app = _hosted(stage, needs=[db])
    async with stage.running(db, app, first_to_close="app"):
        await stage.until_up("app")
        made.crash.set()
        await stage.recorder.wait_for_mark("open db", 2)
        await stage.until_up("db")
    assert stage.marks == [
        *("open db", "open app"),
        *("close db", "open db"),
        *("close app", "close db"),
    ]


# Reopening at every moment


async def test_a_dependent_that_is_opening_is_requeued(stage: Stage) -> None:
    """Its attempt is cancelled, it closes first, and waits for its need again."""
    made = Crashing(stage)
    never: list[Callable[[], Any]] = [anyio.Event().wait, checkpoint]
    db = resource(made.by_its_child, name="db", retry=AT_ONCE)
    api = stage.make("api", needs=[db], on_open=lambda: never.pop(0)())
    async with stage.running(db, api) as supervisor:
        await stage.until_phase("api", ResourcePhase.OPENING)
        made.crash.set()
        await stage.until_up("api")
        assert supervisor.report()[1].attempts == 2
    assert stage.marks[:4] == ["open db", "close db", "open db", "open api"]
    walked = [
        event.new
        for event in stage.recorder.of(ResourcePhaseChanged)
        if event.resource == "api"
    ]
    assert walked[:3] == [
        ResourcePhase.OPENING,
        ResourcePhase.PENDING,
        ResourcePhase.OPENING,
    ]


@on_virtual_time
async def test_a_dependent_that_is_timing_out_is_requeued(stage: Stage) -> None:
    """Its failure does not count: its need was going down at the time."""
    made = Crashing(stage)
    gate = anyio.Event()

    async def clean_up_slowly() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stage.mark("cleaning")
            await gate.wait()

    opens: list[Callable[[], Any]] = [clean_up_slowly, checkpoint]
    db = resource(made.by_its_child, name="db", retry=AT_ONCE)
    api = stage.make(
        "api", needs=[db], timeout=5, retry=None, on_open=lambda: opens.pop(0)()
    )
    async with stage.running(db, api):
        await stage.recorder.wait_for_mark("cleaning")
        made.crash.set()
        await stage.until_phase("db", ResourcePhase.CLOSING)
        gate.set()
        await stage.until_up("api")
    assert stage.recorder.of(ResourceGaveUp) == []


async def test_a_dependent_that_waits_is_requeued(stage: Stage) -> None:
    """Its wait ends: its next attempt is made as soon as its need is back."""
    made = Crashing(stage)
    db = resource(made.by_its_child, name="db", retry=AT_ONCE)
    api = stage.make("api", needs=[db], on_open=failing(OSError()), retry=LATER)
    async with stage.running(db, api):
        await stage.until_phase("api", ResourcePhase.WAITING)
        made.crash.set()
        await stage.until_up("api")
    assert stage.recorder.of(ResourceOpened)[-1].attempt == 1


async def test_a_dependent_that_is_pending_stays_so(stage: Stage) -> None:
    """It has nothing to close, and begins when all of its needs are back."""
    made = Crashing(stage)
    gate = anyio.Event()
    db = resource(made.by_its_child, name="db", retry=AT_ONCE)
    slow = stage.make("slow", on_open=gate.wait)
    api = stage.make("api", needs=[db, slow])
    async with stage.running(db, slow, api):
        await stage.until_up("db")
        made.crash.set()
        await stage.recorder.wait_for_mark("open db", 2)
        gate.set()
        await stage.until_up("api")
    assert stage.marks.count("open api") == 1


async def test_a_stop_during_a_reopening_closes_all(stage: Stage) -> None:
    """While a dependent closes for the sake of a reopening the stop comes."""
    made = Crashing(stage)
    gate = anyio.Event()
    db = resource(made.by_its_child, name="db", retry=AT_ONCE)
    api = stage.make("api", needs=[db], on_close=gate.wait)
    async with anyio.create_task_group() as group, stage.running(db, api):
        await stage.until_up("api")
        made.crash.set()
        await stage.recorder.wait_for_mark("closing api")

        async def let_go() -> None:
            await anyio.wait_all_tasks_blocked()
            gate.set()

        group.start_soon(let_go)
    assert stage.marks[2:] == ["closing api", "close api", "close db"]
    phases = [r.phase for r in stage.supervisor.report()]
    assert phases == [ResourcePhase.CLOSED, ResourcePhase.CLOSED]


async def test_a_value_is_withdrawn_before_its_resource_closes(stage: Stage) -> None:
    """Nobody finds in the state what is being closed."""
    seen: list[dict[str, Any]] = []
    db = stage.make("db")
    api = stage.make("api", needs=[db], on_close=lambda: seen.append(stage.values))
    async with stage.running(db, api):
        await stage.until_up("api")
    assert seen == [{}]


async def test_a_closed_resources_value_is_let_go(stage: Stage) -> None:
    """A model that was closed does not stay in memory while the next one loads."""
    made = Crashing(stage)
    seen: list[weakref.ref[Crashing]] = []
    db = resource(made.by_its_child, name="db", retry=LATER)

    @resource(needs=[db])
    async def model(_: str) -> AsyncGenerator[Crashing, None]:
        value = Crashing(stage)
        seen.append(weakref.ref(value))
        yield value

    async with stage.running(db, model):
        await stage.until_up("model")
        made.crash.set()
        await stage.until_phase("db", ResourcePhase.WAITING)
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        assert seen[0]() is None


def _hosted(stage: Stage, needs: Any) -> Resource[Any]:
    @asynccontextmanager
    async def host(*values: Any) -> AsyncGenerator[str, None]:
        stage.mark("open app")
        yield "app"
        stage.mark("close app")

    return replace(lifespan_of(needs=needs), factory=host)


# Being hurried


@on_virtual_time
async def test_a_hurry_while_it_is_up_is_forgotten(stage: Stage) -> None:
    """It does not cut short the wait after the next failure."""
    made = Crashing(stage)
    errors: list[Exception] = []

    @asynccontextmanager
    async def open_db() -> AsyncGenerator[str, None]:
        if errors:
            raise errors[0]
        async with made.by_its_child() as value:
            yield value

    async with stage.running(resource(open_db, name="db", retry=LATER)):
        await stage.until_up("db")
        stage.supervisor.retry_now()
        errors.append(OSError())
        made.crash.set()
        await stage.until_phase("db", ResourcePhase.WAITING)
        await stage.recorder.wait_for(AttemptFailed)
        await anyio.wait_all_tasks_blocked()
        assert stage.phase("db") is ResourcePhase.WAITING
        assert len(stage.recorder.of(AttemptFailed)) == 1


async def test_a_hurry_while_it_opens_leaves_out_the_next_wait(stage: Stage) -> None:
    """The one after that is waited for again."""
    hurried = anyio.Event()

    async def fail() -> None:
        await hurried.wait()
        raise OSError

    async with stage.running(stage.make("db", on_open=fail, retry=LATER)):
        await stage.until_phase("db", ResourcePhase.OPENING)
        stage.supervisor.retry_now()
        hurried.set()
        failed = await stage.recorder.wait_for(AttemptFailed, 2)
    assert [event.wait for event in stage.recorder.of(AttemptFailed)] == [0, 100]
    assert failed.attempt == 2


async def test_an_observer_that_hurries_does_not_hold_the_event_loop(
    stage: Stage,
) -> None:
    """Not even where opening awaits nothing: others go on between the attempts."""
    turns = 0

    def hurry(event: Event) -> None:
        if isinstance(event, AttemptFailed):
            stage.supervisor.retry_now()

    async def turn() -> None:
        nonlocal turns
        while turns < 10:
            turns += 1
            await checkpoint()

    def fail() -> None:
        if turns < 10:
            raise OSError

    stage.recorder.also = hurry
    db = stage.make("db", on_open=fail, retry=LATER)
    async with anyio.create_task_group() as group, stage.running(db):
        group.start_soon(turn)
        await stage.until_up("db")
    assert turns == 10


# Many of them


async def test_a_long_chain_needs_no_recursion(stage: Stage) -> None:
    """When its end may be up can be asked of a thousand of them."""
    shut = anyio.Event()
    chain = [stage.make("r0", on_open=shut.wait)]
    for number in range(1, 1000):
        chain.append(stage.make(f"r{number}", needs=[chain[-1]]))
    async with stage.running(*chain, first_to_close="r999"):
        assert stage.supervisor.due_in(["r999"]) == 0
        shut.set()
        await stage.recorder.wait_until(lambda: "r999" in stage.values)
    assert stage.marks[-1] == "close r0"


async def test_layers_of_steps_are_looked_through_once(stage: Stage) -> None:
    """There are 3^30 ways through them; each is one of a hundred steps."""

    async def step(*_: Any) -> None: ...

    layers: list[Any] = [[stage.make("db")]]
    for number in range(30):
        needs = layers[-1]
        layer = [resource(step, name=f"s{number}_{n}", needs=needs) for n in range(3)]
        layers.append(layer)
    last = stage.make("last", needs=layers[-1])
    with anyio.fail_after(PATIENCE):
        async with stage.running(*itertools.chain(*layers), last):
            await stage.until_up("last")


async def test_who_is_told_that_it_opens_and_objects_makes_the_attempt_fail(
    stage: Stage,
) -> None:
    """It uses its needs no longer then, which could not be closed otherwise."""

    def fail(event: Event) -> None:
        opens = ResourcePhaseChanged(
            "api", ResourcePhase.PENDING, ResourcePhase.OPENING
        )
        if event == opens:
            raise RuntimeError("of the one who is told")

    db = stage.make("db")
    api = stage.make("api", needs=[db], retry=None)
    stage.recorder.also = fail
    with anyio.fail_after(PATIENCE):
        async with stage.running(db, api):
            await stage.until_phase("api", ResourcePhase.FAILED)
    assert stage.marks == ["open db", "closing db", "close db"]


async def test_who_is_told_that_it_is_up_and_objects_finds_it_closed_in_order(
    stage: Stage,
) -> None:
    """What needs it is closed before, or not opened at all; then it is reopened."""
    mistake = RuntimeError("of the one who is told")

    def fail(event: Event) -> None:
        if isinstance(event, ResourceOpened) and event.resource == "db":
            stage.recorder.also = None
            raise mistake

    db = stage.make("db", on_close=checkpoint, retry=AT_ONCE)
    api = stage.make("api", needs=[db])
    stage.recorder.also = fail
    async with stage.running(db, api):
        await stage.until_up("api")
        assert stage.phase("db") is ResourcePhase.UP
    opened = ["open db", "open api"]
    closed = [
        f"{what} {name}" for name in ("api", "db") for what in ("closing", "close")
    ]
    assert stage.marks == ["open db", "closing db", "close db", *opened, *closed]
    assert [event.error for event in stage.recorder.of(ResourceCrashed)] == [mistake]


@pytest.mark.parametrize("phase", [ResourcePhase.WAITING, ResourcePhase.FAILED])
async def test_a_mistake_of_who_is_told_costs_one_resource(
    stage: Stage, phase: ResourcePhase
) -> None:
    """Not the run: it is given up, if it was not already, and all others live."""
    mistake = RuntimeError("of the one who is told")

    def fail(event: Event) -> None:
        if isinstance(event, ResourcePhaseChanged) and event.new is phase:
            stage.recorder.also = None
            raise mistake

    db = stage.make("db", on_open=failing(OSError()), retry=LATER)
    gone = stage.make("gone", on_open=failing(OSError()), retry=None)
    other = stage.make("other")
    stage.recorder.also = fail
    async with stage.running(db if phase is ResourcePhase.WAITING else gone, other):
        await stage.until_up("other")
        report = stage.supervisor.report()[0]
        await stage.until_phase(report.name, ResourcePhase.FAILED)
        assert stage.phase("other") is ResourcePhase.UP


async def test_what_cannot_be_shown_is_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that takes no value is a failed attempt; what was opened is closed."""
    errors, show = [TypeError("read-only")], stage.publish

    def publish(recipe: Resource[Any], value: Any, /) -> None:
        if errors:
            raise errors.pop()
        show(recipe, value)

    monkeypatch.setattr(stage, "publish", publish)
    async with stage.running(stage.make("db", retry=AT_ONCE)):
        await stage.until_up("db")
    (failed,) = stage.recorder.of(AttemptFailed)
    assert isinstance(failed.error, TypeError)
    assert stage.marks == ["open db", "closing db", "close db"] * 2
