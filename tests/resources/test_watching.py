"""Checks of a resource that is up: what they take down, and how it comes back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard import (
    Check,
    CheckFailedError,
    CheckTimeoutError,
    OpenTimeoutError,
    ResourcePhase,
    Retry,
    resource,
)
from asgi_lifespan_guard._resources import retry
from asgi_lifespan_guard.events import (
    AttemptFailed,
    CheckFailed,
    CloseFailed,
    Event,
    ResourceClosed,
    ResourceCrashed,
    ResourceDown,
    ResourceGaveUp,
    ResourceOpened,
    ResourcePhaseChanged,
    ResourceRecovered,
    ResourceReopening,
)
from tests.recorder import PATIENCE
from tests.resources.stage import Stage, failing
from tests.support.virtual_time import VIRTUAL_ASYNCIO, VIRTUAL_TIME, VIRTUAL_TRIO


pytestmark = pytest.mark.anyio
AT_ONCE = Retry(wait=lambda _: 0)
LATER = Retry(wait=lambda _: 100)
REFUSED = OSError("refused")


@pytest.fixture(params=VIRTUAL_TIME)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run each test on virtual time: what is put from time to time is its subject."""
    return request.param


class Health:
    """A check that passes, until the test says otherwise.

    Attributes:
        error: Raised, if there is one.
        asked: How often it was asked, and of what.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[Any] = []

    def __call__(self, value: Any) -> None:
        self.asked.append(value)
        if self.error is not None:
            raise self.error

    def heal(self, event: Event) -> None:
        """Pass again from the reopening on, for observers."""
        if isinstance(event, ResourceReopening):
            self.error = None


def often(call: Callable[[Any], Any], **options: Any) -> Check:
    """Return a check that is put every second."""
    return Check(call, **{"every": 1, "failures": 1, **options})


class HangsAtTheSecond:
    """A check that passes, does not answer at all, and passes again."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.asked = 0

    async def __call__(self, _: object) -> None:
        self.asked += 1
        if self.asked == 2:
            self.stage.mark("hangs")
            await anyio.sleep_forever()
        await checkpoint()


def told(stage: Stage, name: str) -> list[str]:
    """Return what happened to a resource, in order: its phases, and other facts."""
    transcript = []
    for event in stage.recorder.events:
        if isinstance(event, ResourcePhaseChanged) and event.resource == name:
            transcript.append(event.new.value)
        elif getattr(event, "resource", None) == name:
            transcript.append(type(event).__name__)
    return transcript


# Report


async def test_a_failing_check_is_reported(stage: Stage) -> None:
    """It is unready and stays open; when the check passes again it is ready."""
    health = Health()
    db = stage.make("db", check=often(health, then="report"))
    async with stage.running(db) as supervisor:
        await stage.until_up("db")
        health.error = REFUSED
        await stage.until_phase("db", ResourcePhase.FAILING)
        report = supervisor.report()[0]
        assert (report.satisfied, report.last_error) == (False, "OSError: refused")
        assert supervisor.are_open({"db"})
        assert stage.values == {"db": "db"}
        health.error = None
        await stage.recorder.wait_for(ResourceRecovered)
        report = supervisor.report()[0]
        assert (report.satisfied, report.last_error) == (True, None)
    assert stage.marks == ["open db", "closing db", "close db"]
    assert set(health.asked) == {"db"}
    walked = [fact for fact in told(stage, "db") if fact != "CheckFailed"]
    assert walked == [
        *("opening", "up", "ResourceOpened"),
        *("failing", "ResourceDown", "up", "ResourceRecovered"),
        *("closing", "ResourceClosed", "closed"),
    ]


async def test_a_failing_check_holds_requests(stage: Stage) -> None:
    """From it and from what needs it, which stay open; nothing else is kept back."""
    health = Health()
    db = stage.make("db", check=often(health), retry=LATER)
    api = stage.make("api", needs=[db])
    web = stage.make("web", needs=[api])
    off = stage.make("off", needs=[db], enabled=False)
    other = stage.make("other")
    async with stage.running(db, api, web, off, other) as supervisor:
        await stage.until_up("web", "other")
        health.error = REFUSED
        await stage.until_phase("db", ResourcePhase.FAILING)
        for names in ({"db"}, {"web"}, {"api", "other"}):
            assert not supervisor.are_open(names)
            assert 0 < supervisor.due_in(names) <= 1
        assert supervisor.are_open({"other", "off"})
        assert supervisor.due_in(["other"]) == 0
        assert sorted(stage.values) == ["api", "db", "other", "web"]
        report = supervisor.report()[0]
        assert report.next_attempt_in is not None
        health.error = None
        await stage.recorder.wait_for(ResourceRecovered)
        assert supervisor.are_open({"db", "api", "web"})
        assert supervisor.report()[0].next_attempt_in is None
    opened = sorted(mark for mark in stage.marks if mark.startswith("open"))
    assert opened == ["open api", "open db", "open other", "open web"]


async def test_what_is_held_back_may_crash(stage: Stage) -> None:
    """It is away then like anything that crashed, and not held back twice."""
    health = Health()
    crash = anyio.Event()

    @asynccontextmanager
    async def consume() -> AsyncGenerator[str, None]:
        async with anyio.create_task_group() as group:
            group.start_soon(_crash_on, crash)
            yield "db"
            group.cancel_scope.cancel()

    db = resource(consume, name="db", check=often(health), retry=AT_ONCE)
    async with stage.running(db) as supervisor:
        await stage.until_up("db")
        health.error = REFUSED
        await stage.until_phase("db", ResourcePhase.FAILING)
        health.error = None
        due: list[float | None] = []
        stage.recorder.also = lambda event: due.extend(
            r.next_attempt_in
            for r in supervisor.report()
            if isinstance(event, ResourceDown)
        )
        crash.set()
        await stage.recorder.wait_for(ResourceCrashed)
        assert due == [None]
        crash = anyio.Event()
        await stage.recorder.wait_for(ResourceOpened, 2)
        assert supervisor.are_open({"db"})


async def _crash_on(event: anyio.Event) -> None:
    await event.wait()
    raise RuntimeError("crash")


# Suspicion


async def test_a_suspicion_brings_the_check_forward(stage: Stage) -> None:
    """One bad answer confirms it; what it needs is asked, too."""
    health, other = Health(), Health()
    db = stage.make("db", check=Check(health, every=3600))
    api = stage.make("api", needs=[db])
    cache = stage.make("cache", check=Check(other, every=3600))
    async with stage.running(db, api, cache) as supervisor:
        await stage.until_up("api", "cache")
        await anyio.sleep(10)
        health.error = other.error = REFUSED
        supervisor.suspect(["api"], None)
        down = await stage.recorder.wait_for(ResourceDown)
        assert (down.resource, down.error) == ("db", REFUSED)
        assert len(health.asked) == 2
        assert len(other.asked) == 1


async def test_a_suspicion_is_about_some_exceptions_only(stage: Stage) -> None:
    """What `on` does not name asks nothing; what is not up, or unchecked, neither."""
    health = Health()
    db = stage.make("db", check=Check(health, every=3600, on=OSError))
    plain = stage.make("plain")
    hangs = stage.make("hangs", on_open=anyio.sleep_forever, check=Check(health))
    idle = stage.make("idle", needs=[hangs], check=Check(health))
    async with stage.running(db, plain, hangs, idle) as supervisor:
        await stage.until_up("db", "plain")
        await anyio.sleep(10)
        supervisor.suspect(["db", "plain", "hangs", "idle"], ValueError())
        await anyio.sleep(10)
        assert len(health.asked) == 1
        supervisor.suspect(["db", "plain", "hangs", "idle"], ConnectionError())
        await anyio.sleep(10)
        assert len(health.asked) == 2


async def test_suspicions_are_put_together(stage: Stage) -> None:
    """Ten checks a second, however many there are."""
    health = Health()
    db = stage.make("db", check=Check(health, every=3600))
    async with stage.running(db) as supervisor:
        await stage.until_up("db")
        await anyio.sleep(10)
        for _ in range(200):
            supervisor.suspect(["db"], None)
            await anyio.sleep(0.005)
        assert 8 <= len(health.asked) - 1 <= 12


async def test_thresholds(stage: Stage) -> None:
    """Only so many failures in a row take it down, and so many successes back."""
    pattern = "pass fail pass fail fail fail pass fail pass pass fail"
    answers: Iterator[str] = iter(["pass", *pattern.split()])

    def answer(_: object) -> bool:
        said = next(answers, "pass")
        stage.mark(said)
        return said == "pass"

    check = often(answer, failures=3, successes=2)
    async with stage.running(stage.make("db", check=check)):
        await stage.recorder.wait_for(ResourceRecovered)
        await stage.recorder.wait_for_mark("fail", 6)
    facts = [fact for fact in told(stage, "db") if "Check" in fact or "Res" in fact]
    assert facts == [
        "ResourceOpened",
        *["CheckFailed"] * 4,
        "ResourceDown",
        "CheckFailed",
        "ResourceRecovered",
        "CheckFailed",
        "ResourceClosed",
    ]
    rows = [event.in_a_row for event in stage.recorder.of(CheckFailed)]
    assert rows == [1, 1, 2, 3, 1, 1]
    (down,) = stage.recorder.of(ResourceDown)
    assert isinstance(down.error, CheckFailedError)


async def test_what_waits_for_a_failing_need_hears_of_its_recovery(
    stage: Stage,
) -> None:
    """Nothing opens on a need that fails its check; it does as soon as it passes."""
    health = Health()
    gate = anyio.Event()
    db = stage.make("db", check=often(health))
    slow = stage.make("slow", on_open=gate.wait)
    api = stage.make("api", needs=[db, slow])
    async with stage.running(db, slow, api):
        await stage.until_up("db")
        health.error = REFUSED
        await stage.until_phase("db", ResourcePhase.FAILING)
        gate.set()
        await stage.until_up("slow")
        assert stage.phase("api") is ResourcePhase.PENDING
        health.error = None
        await stage.until_up("api")


async def test_what_is_open_stays_so_while_its_need_fails(stage: Stage) -> None:
    """A need that only reports takes nobody down with it."""
    health = Health()
    db = stage.make("db", check=often(health))
    api = stage.make("api", needs=[db])
    async with stage.running(db, api):
        await stage.until_up("api")
        health.error = REFUSED
        await stage.until_phase("db", ResourcePhase.FAILING)
        assert stage.phase("api") is ResourcePhase.UP


# Reopen


async def test_a_failing_check_reopens(stage: Stage) -> None:
    """Dependents close before it and open after it; all others stay up."""
    health = Health()
    stage.recorder.also = health.heal
    db = stage.make("db", check=often(health, then="reopen"), retry=AT_ONCE)
    api = stage.make("api", needs=[db])
    web = stage.make("web", needs=[api])
    other = stage.make("other")
    async with stage.running(db, api, web, other):
        await stage.until_up("web", "other")
        stage.marks.clear()
        stage.recorder.events.clear()
        health.error = REFUSED
        await stage.recorder.wait_for(ResourceReopening)
        await stage.until_up("web")
        assert stage.phase("other") is ResourcePhase.UP
        assert sorted(stage.values) == ["api", "db", "other", "web"]
        marks = [mark for mark in stage.marks if "closing" not in mark]
        facts = told(stage, "db")
    assert marks[:3] == ["close web", "close api", "close db"]
    assert marks[3:] == ["open db", "open api", "open web"]
    assert facts[:8] == [
        *("CheckFailed", "failing", "ResourceDown"),
        *("closing", "ResourceClosed", "waiting", "ResourceReopening"),
        "opening",
    ]
    assert stage.recorder.of(ResourceReopening) == [ResourceReopening("db", 0.0)]
    assert stage.recorder.of(ResourceCrashed) == []


async def test_it_is_reopened_under_its_retry_policy(stage: Stage) -> None:
    """That it came down counts as no attempt; those that follow do."""
    health = Health()
    numbers: list[int] = []

    def wait(state: Any) -> float:
        numbers.append(state.attempt_number)
        health.error = None if state.attempt_number == 3 else REFUSED
        return 0

    check = often(health, then="reopen")
    db = stage.make("db", check=check, retry=Retry(wait=wait))
    async with stage.running(db):
        await stage.until_up("db")
        health.error = REFUSED
        await stage.recorder.wait_for(ResourceOpened, 2)
    assert numbers == [1, 1, 2, 3]
    failed = stage.recorder.of(AttemptFailed)
    assert [(event.attempt, event.error) for event in failed] == [
        (1, REFUSED),
        (2, REFUSED),
        (3, REFUSED),
    ]
    assert [event.attempt for event in stage.recorder.of(ResourceOpened)] == [1, 4]


@pytest.mark.parametrize(("long_enough", "opened"), [(60, 1), (0, 2)])
async def test_after_long_even_a_single_attempt_is_another_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, long_enough: float, opened: int
) -> None:
    """`retry=None`: soon after its opening it gives up; later it may try once."""
    monkeypatch.setattr(retry, "LONG_ENOUGH", long_enough)
    health = Health()

    def come_down(value: object) -> None:
        health(value)
        if len(health.asked) == 2:
            raise REFUSED

    check = often(come_down, then="reopen")
    async with stage.running(stage.make("db", check=check, retry=None)):
        if opened == 1:
            await stage.until_phase("db", ResourcePhase.FAILED)
        else:
            await stage.recorder.wait_for(ResourceOpened, 2)
    gave_up = [event.error for event in stage.recorder.of(ResourceGaveUp)]
    assert gave_up == [REFUSED] * (opened == 1)


async def test_a_permanent_verdict_is_given_up(stage: Stage) -> None:
    """A check that is a mistake of the program is not put again."""
    health = Health()
    db = stage.make("db", check=often(health, then="reopen"), retry=AT_ONCE)
    async with stage.running(db):
        await stage.until_up("db")
        health.error = NameError("pol")
        await stage.until_phase("db", ResourcePhase.FAILED)
    (gave_up,) = stage.recorder.of(ResourceGaveUp)
    assert gave_up.permanent
    assert stage.marks == ["open db", "closing db", "close db"]


async def test_a_close_that_fails_is_told_and_does_not_hinder(stage: Stage) -> None:
    """A broken connection may well break its close; the verdict is what counts."""
    health = Health()
    broken = RuntimeError("cannot close")
    db = stage.make(
        "db",
        check=often(health, then="reopen"),
        retry=AT_ONCE,
        on_close=failing(broken),
    )
    async with stage.running(db):
        await stage.until_up("db")
        health.error = REFUSED
        await stage.recorder.wait_for(CloseFailed)
        health.error = None
        await stage.recorder.wait_for(ResourceOpened, 2)
    assert stage.recorder.of(CloseFailed) == [CloseFailed("db", broken)]
    assert stage.recorder.of(ResourceDown) == [ResourceDown("db", REFUSED)]


async def test_a_step_is_not_run_again(stage: Stage) -> None:
    """What needs it is reopened with what it needs; the step stays as it is."""
    health = Health()

    async def migrate(db: str) -> None:
        stage.mark("migrate")

    db = stage.make("db", check=often(health, then="reopen"), retry=LATER)
    step = resource(migrate, needs=[db])
    api = stage.make("api", needs=[step])
    async with stage.running(db, step, api) as supervisor:
        await stage.until_up("api")
        health.error = REFUSED
        await stage.recorder.wait_for(ResourceReopening)
        assert stage.phase("api") is ResourcePhase.PENDING
        health.error = None
        supervisor.retry_now()
        await stage.until_up("api")
    assert stage.marks.count("migrate") == 1


async def test_an_optional_resource_is_absent_while_it_is_away(stage: Stage) -> None:
    """Its value leaves the state when it closes, and is back when it is."""
    health = Health()
    check = often(health, then="reopen")
    cache = stage.make("cache", required=False, check=check, retry=LATER)
    async with stage.running(cache) as supervisor:
        await stage.until_up("cache")
        health.error = REFUSED
        await stage.recorder.wait_for(ResourceReopening)
        assert stage.values == {}
        health.error = None
        supervisor.retry_now()
        await stage.until_up("cache")
        assert stage.values == {"cache": "cache"}


# The first check


async def test_the_first_check_belongs_to_the_attempt(stage: Stage) -> None:
    """A lazy client is not up before it answers; it is left again if it does not."""
    health = Health(REFUSED)
    db = stage.make("db", check=Check(health), retry=LATER)
    async with stage.running(db) as supervisor:
        await stage.recorder.wait_for(AttemptFailed)
        assert stage.marks == ["open db", "closing db", "close db"]
        assert stage.values == {}
        health.error = None
        supervisor.retry_now()
        await stage.until_up("db")
    assert told(stage, "db")[:3] == ["opening", "waiting", "AttemptFailed"]
    assert stage.recorder.of(AttemptFailed)[0].error is REFUSED
    assert stage.recorder.of(ResourcePhaseChanged)[0].new is ResourcePhase.OPENING
    assert "ResourceDown" not in told(stage, "db")


async def test_one_failure_is_enough_at_first(stage: Stage) -> None:
    """Thresholds are for what was up; `False` and a late answer fail an attempt."""
    answers: list[Callable[[], Any]] = [lambda: False, anyio.sleep_forever, checkpoint]
    check = Check(lambda _: answers.pop(0)(), timeout=5, failures=9, successes=9)
    async with stage.running(stage.make("db", check=check, retry=AT_ONCE)):
        await stage.until_up("db")
    errors = [type(event.error) for event in stage.recorder.of(AttemptFailed)]
    assert errors == [CheckFailedError, CheckTimeoutError]


async def test_a_step_may_be_checked(stage: Stage) -> None:
    """What a step returned is asked of, too."""
    health = Health()

    async def find() -> str:
        return "found"

    async with stage.running(resource(find, check=Check(health))):
        await stage.until_up("find")
    assert health.asked == ["found"]


@pytest.mark.parametrize(
    "anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True}), "trio"], ids=str
)
async def test_a_threaded_resource_is_checked_in_a_thread(stage: Stage) -> None:
    """A sync check of a sync resource may block as that does."""
    threads: list[str] = []

    def model() -> Iterator[str]:
        yield "model"

    def check(value: str) -> None:
        threads.append(threading.current_thread().name)
        if len(threads) == 3:
            raise REFUSED

    threaded = often(check, every=0.001, timeout=PATIENCE)
    async with stage.running(resource(model, check=threaded)):
        await stage.recorder.wait_for(ResourceRecovered)
    assert len(threads) > 3
    assert set(threads) == {"check model"}


# Interrupted


@pytest.mark.parametrize("first", [True, False])
async def test_a_stop_interrupts_a_check(stage: Stage, first: bool) -> None:
    """Nobody waits for the answer of what is closed anyway."""
    asked = anyio.Event()
    passed: list[bool] = []

    async def hang(_: object) -> None:
        if not first and not passed:
            passed.append(True)
            return
        asked.set()
        await anyio.sleep_forever()

    with anyio.fail_after(PATIENCE):
        db = stage.make("db", check=often(hang, timeout=3600))
        async with stage.running(db):
            await asked.wait()
    assert stage.marks == ["open db", "closing db", "close db"]
    assert stage.recorder.of(CheckFailed) == []
    assert stage.recorder.of(AttemptFailed) == []
    assert len(stage.recorder.of(ResourceClosed)) == (not first)


async def test_what_opens_in_spite_of_a_stop_is_not_asked(stage: Stage) -> None:
    """An attempt that swallowed its cancellation is closed without another word."""
    health = Health()

    @resource(check=Check(health))
    async def stubborn() -> AsyncGenerator[None, None]:
        try:
            stage.mark("opening")
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            stage.mark("swallowed")
        yield
        stage.mark("closed")

    async with stage.running(stubborn):
        await stage.recorder.wait_for_mark("opening")
    assert stage.marks == ["opening", "swallowed", "closed"]
    assert health.asked == []


async def test_a_need_that_goes_down_interrupts_a_check(stage: Stage) -> None:
    """A dependent is closed at once, also while it is asked."""
    health = Health()
    hang = HangsAtTheSecond(stage)
    db = stage.make("db", check=often(health, then="reopen"), retry=AT_ONCE)
    api = stage.make("api", needs=[db], check=often(hang, timeout=3600))
    async with stage.running(db, api):
        await stage.recorder.wait_for_mark("hangs")
        health.error = REFUSED
        await stage.recorder.wait_for(ResourceDown)
        health.error = None
        await stage.recorder.wait_for_mark("open api", 2)
        await stage.until_up("api")
    assert stage.recorder.of(CheckFailed) == [CheckFailed("db", REFUSED, 1)]


class Consumer:
    """A resource with a task of its own that fails when it is told to."""

    def __init__(self) -> None:
        self.fail = anyio.Event()

    async def consume(self) -> None:
        await self.fail.wait()
        self.fail = anyio.Event()
        raise RuntimeError("crash")

    @asynccontextmanager
    async def of_anyio(self) -> AsyncGenerator[None, None]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.consume)
            yield
            group.cancel_scope.cancel()

    @asynccontextmanager
    async def of_asyncio(self) -> AsyncGenerator[None, None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.consume())
            yield
            task.cancel()


@pytest.mark.parametrize(
    ("anyio_backend", "kind"),
    [
        pytest.param(VIRTUAL_ASYNCIO, "of_anyio", id="asyncio"),
        pytest.param(VIRTUAL_ASYNCIO, "of_asyncio", id="asyncio-own"),
        pytest.param(VIRTUAL_TRIO, "of_anyio", id="trio"),
    ],
)
async def test_a_crash_during_a_check_is_a_crash(stage: Stage, kind: str) -> None:
    """The check is interrupted; the group is left by the task that made it."""
    consumer = Consumer()
    recipe = resource(
        getattr(consumer, kind),
        name="consumer",
        retry=AT_ONCE,
        check=often(HangsAtTheSecond(stage), timeout=5, failures=9),
    )
    async with stage.running(recipe):
        await stage.recorder.wait_for_mark("hangs")
        consumer.fail.set()
        await stage.recorder.wait_for(ResourceOpened, 2)
    (crashed,) = stage.recorder.of(ResourceCrashed)
    assert isinstance(crashed.error, ExceptionGroup)
    assert str(crashed.error.exceptions) == "(RuntimeError('crash'),)"
    assert stage.recorder.of(ResourceReopening) == [ResourceReopening("consumer", 0.0)]


async def test_a_check_that_is_on_at_the_stop_has_the_time_to_close(
    stage: Stage,
) -> None:
    """Its own `timeout` is for answers; to clean up it has no more than all others."""

    async def hang(_: str) -> None:
        if len(stage.recorder.of(ResourceOpened)) == 1:
            try:
                stage.mark("asked")
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await checkpoint()
                await anyio.sleep_forever()

    check = Check(hang, every=1, timeout=3600)
    with anyio.fail_after(PATIENCE):
        async with stage.running(stage.make("db", check=check), timeout=5):
            await stage.recorder.wait_for_mark("asked")
    assert stage.marks[-1] == "close db"


async def test_the_timeout_of_an_attempt_reaches_its_first_check(stage: Stage) -> None:
    """The check's own may be longer."""
    check = Check(lambda _: anyio.sleep_forever(), timeout=3600)
    db = stage.make("db", check=check, timeout=5, retry=LATER)
    with anyio.fail_after(PATIENCE):
        async with stage.running(db):
            failed = await stage.recorder.wait_for(AttemptFailed)
    assert isinstance(failed.error, OpenTimeoutError)
    assert stage.marks == ["open db", "closing db", "close db"]
