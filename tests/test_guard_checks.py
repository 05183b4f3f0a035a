"""A whole guard while its resources come down, come back, and give up."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import (
    Check,
    Drain,
    Gate,
    LifespanGuard,
    NotReadyError,
    Phase,
    Probes,
    ResourcePhase,
    StartupFailedError,
    _run,
    resource,
)
from asgi_lifespan_guard.events import (
    AttemptFailed,
    CheckFailed,
    DrainBegun,
    DrainEnded,
    Event,
    Paused,
    PhaseChanged,
    RequestAdmitted,
    RequestHeld,
    RequestRefused,
    ResourceClosed,
    ResourceCrashed,
    ResourceDown,
    ResourceGaveUp,
    ResourceOpened,
    ResourceRecovered,
    ResourceReopening,
    Resumed,
)
from tests.recorder import PATIENCE, Recorder
from tests.support.memory_server import MemoryServer
from tests.support.resources import LATER, Tap, Watcher, hello
from tests.support.virtual_time import on_virtual_time


pytestmark = [pytest.mark.anyio, on_virtual_time]
REFUSED = OSError("cannot connect to postgresql://app:hunter2@db/app")


class Health:
    """A check that passes, until the test says otherwise."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __call__(self, value: object) -> None:
        if self.error is not None:
            raise self.error

    def often(self, **options: Any) -> Check:
        """Return a check that is put every second."""
        return Check(self, every=1, failures=1, **options)


async def statuses(server: MemoryServer, *paths: str) -> list[int | None]:
    """Ask for some paths."""
    return [(await server.get(path)).status for path in paths]


PROBES = ("/livez", "/readyz", "/startupz")


# Checks


async def test_a_failing_check_turns_readiness_only(recorder: Recorder) -> None:
    """The gate stays open, the value stays in the state; it comes back by itself."""
    health, app = Health(), Watcher()
    db = Tap(recorder, check=health.often(then="report"))
    guard = LifespanGuard(app, [db.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 2)
        assert await statuses(server, *PROBES, "/") == [200, 200, 200, 200]
        health.error = REFUSED
        await recorder.wait_for(ResourceDown)
        assert await statuses(server, *PROBES, "/") == [200, 503, 200, 200]
        assert app.state == {"db": "db 1"}
        assert not guard.ready
        health.error = None
        await recorder.wait_for(ResourceRecovered)
        assert await statuses(server, *PROBES, "/") == [200, 200, 200, 200]
        assert guard.ready


async def test_requests_are_held_while_a_check_fails(recorder: Recorder) -> None:
    """The value stays open; who waits is let in when the check passes again."""
    health, app = Health(), Watcher()
    db = Tap(recorder, check=health.often())
    gate = Gate(wait=3600, needs={"/docs": ()})
    guard = LifespanGuard(app, [db.recipe], gate=gate, observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 2)
        health.error = REFUSED
        await recorder.wait_for(ResourceDown)
        assert await statuses(server, *PROBES, "/docs") == [200, 503, 200, 200]
        async with anyio.create_task_group() as group:
            for path in ("/", "/search"):
                group.start_soon(server.get, path)
            await recorder.wait_for(RequestHeld, 2)
            assert [scope["path"] for scope in app.scopes[1:]] == ["/docs"]
            health.error = None
        assert await statuses(server, *PROBES, "/") == [200, 200, 200, 200]
        assert app.state == {"db": "db 1"}
    admitted = recorder.of(RequestAdmitted)
    assert sorted(event.path for event in admitted) == ["/", "/search"]
    assert recorder.of(RequestRefused) == []
    assert recorder.marks.count("open db") == 1


async def test_a_long_outage_is_told_with_a_time_to_come_back(
    recorder: Recorder,
) -> None:
    """When the next check comes too late for a request, it is refused at once."""
    health = Health()
    check = Check(health, every=20, failures=1)
    db = Tap(recorder, check=check, retry=LATER)
    guard = LifespanGuard(hello, [db.recipe], gate=Gate(wait=1), observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 2)
        health.error = REFUSED
        await anyio.sleep(120)
        await recorder.wait_for(CheckFailed, len(recorder.of(CheckFailed)) + 1)
        answer = await server.get("/")
        assert (answer.status, answer.headers["retry-after"]) == (503, "20")


# Suspicion


class Failing:
    """An app that raises, when the test says so."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and self.error is not None:
            raise self.error
        await hello(scope, receive, send)


@pytest.mark.parametrize("drain", [Drain(), None], ids=["drain", "no drain"])
@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_an_exception_that_leaves_the_app_has_its_needs_checked(
    recorder: Recorder, drain: Drain | None, root_path: str
) -> None:
    """Only what the request needs, and only what the exception is about."""
    health, index_health, app = Health(), Health(), Failing()
    db = Tap(recorder, check=Check(health, every=3600, on=OSError))
    index = Tap(recorder, "index", check=Check(index_health, every=3600))
    guard = LifespanGuard(
        app,
        [db.recipe, index.recipe],
        gate=Gate(wait=0, needs={"/search": [db.recipe]}),
        drain=drain,
        observers=[recorder],
    )
    async with MemoryServer(guard, root_path=root_path) as server:
        await recorder.wait_for(ResourceOpened, 3)
        health.error = index_health.error = REFUSED
        for error in (ValueError("a mistake"), ConnectionError("it is gone")):
            await anyio.sleep(10)
            assert recorder.of(CheckFailed) == []
            app.error = error
            with pytest.raises(type(error)):
                await server.get("/search")
        down = await recorder.wait_for(ResourceDown)
        assert down.resource == "db"
        assert await statuses(server, "/search") == [503]
        await anyio.sleep(10)
    assert {event.resource for event in recorder.of(CheckFailed)} == {"db"}


async def test_a_held_request_that_fails_has_its_needs_checked(
    recorder: Recorder,
) -> None:
    """It does not take the fast path."""
    health, app = Health(), Failing()
    db = Tap(recorder, shut=True, check=Check(health, every=3600))
    guard = LifespanGuard(app, [db.recipe], gate=Gate(wait=3600), observers=[recorder])
    app.error = OSError("it is gone")

    async def ask() -> None:
        with pytest.raises(OSError, match="it is gone"):
            await server.get("/")

    async with MemoryServer(guard) as server, anyio.create_task_group() as group:
        group.start_soon(ask)
        await recorder.wait_for(RequestHeld)
        recorder.also = lambda event: _fail_from_now_on(event, health)
        db.let()
        down = await recorder.wait_for(ResourceDown)
        assert down.error is REFUSED


def _fail_from_now_on(event: Event, health: Health) -> None:
    if isinstance(event, ResourceOpened) and event.resource == "db":
        health.error = REFUSED


class Mounted:
    """An app that changes the scope in place, as frameworks do, and then fails."""

    def __init__(self) -> None:
        self.guard: LifespanGuard
        self.answers = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["root_path"] += "/search"
            if not self.answers:
                raise REFUSED
            self.guard.suspect(request=scope, error=REFUSED)
        await hello(scope, receive, send)


@pytest.mark.parametrize(
    ("drain", "answers"),
    [(Drain(), False), (None, False), (Drain(), True)],
    ids=["leaves", "leaves without a drain", "is answered"],
)
async def test_a_mounted_app_that_fails_has_the_needs_of_the_whole_path_checked(
    recorder: Recorder, drain: Drain | None, answers: bool
) -> None:
    """On whichever path its request was let in, the first time and later."""
    health, app = Health(), Mounted()
    check = Check(health, every=3600)
    index = Tap(recorder, "index", check=check).recipe
    other = Tap(recorder, "other", check=check).recipe
    app.guard = guard = LifespanGuard(
        app,
        [index, other],
        gate=Gate(needs={"/search": [index], "/a": [other]}),
        drain=drain,
        observers=[recorder],
    )
    app.answers = answers
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 3)
        for count in (1, 2):
            await anyio.sleep(10)
            health.error = REFUSED
            with suppress(OSError):
                await server.get("/search/a")
            await recorder.wait_for(ResourceDown, count)
            await anyio.sleep(10)
            health.error = None
            await recorder.wait_for(ResourceRecovered, count)
    assert {event.resource for event in recorder.of(CheckFailed)} == {"index"}


async def test_a_request_that_is_over_can_be_told_of(recorder: Recorder) -> None:
    """What it needs is known from its scope then."""
    health, app = Health(), Watcher()
    db = Tap(recorder, check=Check(health, every=3600, failures=1))
    guard = LifespanGuard(app, [db.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 2)
        await server.get("/")
        await anyio.sleep(10)
        health.error = REFUSED
        guard.suspect(request=app.scopes[-1])
        assert (await recorder.wait_for(ResourceDown)).resource == "db"


async def test_a_resource_of_another_guard_is_suspected_in_vain(
    recorder: Recorder,
) -> None:
    """It is told of while an exception is handled, and must not be another one."""
    app = Watcher()
    db, other = Tap(recorder), Tap(recorder, "other")
    guard = LifespanGuard(app, [db.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 2)
        await server.get("/")
        other.recipe.suspect(app.scopes[-1])
        guard.suspect(other.recipe)
    assert recorder.of(CheckFailed) == []


async def test_whoever_answers_an_exception_can_tell_of_it(recorder: Recorder) -> None:
    """By the guard, or by the resource and a request; before a start it is nothing."""
    health, app = Health(), Watcher()
    db = Tap(recorder, check=Check(health, every=3600, failures=1))
    cache = Tap(recorder, "cache", required=False, check=Check(health, every=3600))
    guard = LifespanGuard(app, [db.recipe, cache.recipe], observers=[recorder])
    guard.suspect(db.recipe)
    db.recipe.suspect({"type": "http"})
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 3)
        await anyio.sleep(10)
        await server.get("/")
        health.error = REFUSED
        db.recipe.suspect(app.scopes[-1])
        assert (await recorder.wait_for(ResourceDown)).resource == "db"
        health.error = None
        await recorder.wait_for(ResourceRecovered)
        await anyio.sleep(10)
        health.error = REFUSED
        guard.suspect()
        await recorder.wait_for(ResourceDown, 3)
    downs = [event.resource for event in recorder.of(ResourceDown)]
    assert downs[0] == "db"
    assert sorted(downs[1:]) == ["cache", "db"]


async def test_reopening_closes_the_gate_for_paths_that_need_it(
    recorder: Recorder,
) -> None:
    """Paths that need something else, or nothing, lose no request."""
    health, app = Health(), Watcher()
    db = Tap(recorder, check=health.often(then="reopen"), retry=LATER)
    index = Tap(recorder, "index")
    gate = Gate(needs={"/search": [index.recipe], "/docs": ()})
    recipes = [db.recipe, index.recipe]
    guard = LifespanGuard(app, recipes, gate=gate, observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 3)
        assert await statuses(server, "/", "/search", "/docs") == [200, 200, 200]
        health.error = REFUSED
        await recorder.wait_for(AttemptFailed)
        assert await statuses(server, "/", "/search", "/docs") == [503, 200, 200]
        assert app.state == {"index": "index 1"}
        assert await statuses(server, *PROBES) == [200, 503, 200]
        health.error = None
        guard.retry_now()
        await guard.wait_ready(PATIENCE)
        assert await statuses(server, "/", "/readyz") == [200, 200]
        assert app.state == {"index": "index 1", "db": "db 3"}


async def test_an_optional_resource_may_come_and_go(recorder: Recorder) -> None:
    """It is absent while it is away, and no probe but its own shows it."""
    health, app = Health(), Watcher()
    check = health.often(then="reopen")
    cache = Tap(recorder, "cache", required=False, check=check, retry=LATER)
    guard = LifespanGuard(app, [cache.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 2)
        health.error = REFUSED
        await recorder.wait_for(ResourceReopening)
        asked = await statuses(server, "/", "/readyz", "/readyz/cache")
        assert asked == [200, 200, 503]
        assert cache.recipe.get(guard, None) is None
        assert "cache" not in app.state
        health.error = None
        guard.retry_now()
        await recorder.wait_for(ResourceOpened, 3)
        assert await statuses(server, "/", "/readyz/cache") == [200, 200]
        assert app.state == {"cache": "cache 2"}


async def test_the_report_is_shown_where_details_may_be(recorder: Recorder) -> None:
    """Phase and error of the resource whose check fails; no password."""
    health = Health()
    db = Tap(recorder, check=health.often())
    probes = Probes(details=True)
    guard = LifespanGuard(hello, [db.recipe], probes=probes, observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(ResourceOpened, 2)
        health.error = REFUSED
        await recorder.wait_for(ResourceDown)
        guard.pause("maintenance")
        shown = (await server.get("/readyz?verbose")).json()
        alone = (await server.get("/readyz/db")).json()
    assert 0 < alone.pop("nextAttemptIn") <= shown["resources"]["db"]["nextAttemptIn"]
    del shown["resources"]["db"]["nextAttemptIn"]
    assert (shown["status"], shown["paused"]) == ("fail", "maintenance")
    assert shown["resources"]["db"] == alone
    assert alone["phase"] == "failing"
    assert alone["lastError"].endswith("postgresql://app:***@db/app")


# Crashes


class Queue:
    """A queue, and a resource that consumes it in a task group."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.sending, self.receiving = anyio.create_memory_object_stream[str](9)
        self.recipe = resource(self._consumer, name="consumer", retry=LATER)

    async def _consume(self) -> None:
        async for message in self.receiving:
            if message == "poison":
                raise ValueError(f"cannot read {message}")
            self._recorder.mark(message)
        raise RuntimeError("it ended")

    async def _consumer(self) -> AsyncGenerator[None, None]:
        async with anyio.create_task_group() as group:
            group.start_soon(self._consume)
            yield
            group.cancel_scope.cancel()


async def test_a_consumer_that_fails_is_reopened(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """It is unready, logged once with its cause, and consumes again afterwards."""
    queue = Queue(recorder)
    guard = LifespanGuard(hello, [queue.recipe], observers=[recorder])
    async with queue.sending, queue.receiving, MemoryServer(guard) as server:
        await guard.wait_ready(PATIENCE)
        for message in ("one", "poison", "two"):
            queue.sending.send_nowait(message)
        await recorder.wait_for(ResourceReopening)
        assert recorder.marks == ["one"]
        assert await statuses(server, *PROBES) == [200, 503, 200]
        guard.retry_now()
        await recorder.wait_for_mark("two")
        await guard.wait_ready(PATIENCE)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    (crashed,) = errors
    assert crashed.getMessage().startswith("consumer: crashed in tests/")
    assert "cannot read poison" in crashed.getMessage()
    assert "in _consume" in str(crashed.exc_text)


async def test_a_consumer_that_just_returns_can_say_so(recorder: Recorder) -> None:
    """Nobody sees a task that ends; so the one that runs it raises then."""
    queue = Queue(recorder)
    guard = LifespanGuard(hello, [queue.recipe], observers=[recorder])
    async with queue.receiving, MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
        queue.sending.close()
        crashed = await recorder.wait_for(ResourceCrashed)
    assert isinstance(crashed.error, ExceptionGroup)
    assert str(crashed.error.exceptions) == "(RuntimeError('it ended'),)"


# Controls


async def test_pause_turns_readiness_only(recorder: Recorder) -> None:
    """Probes that were answered before are answered anew; requests pass."""
    db = Tap(recorder)
    guard = LifespanGuard(hello, [db.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await guard.wait_ready(PATIENCE)
        for _ in range(2):  # The second answers are remembered ones.
            assert await statuses(server, *PROBES, "/") == [200, 200, 200, 200]
        guard.pause("maintenance")
        for _ in range(2):
            assert await statuses(server, *PROBES, "/") == [200, 503, 200, 200]
        assert guard.report().paused == "maintenance"
        assert guard.phase is Phase.SERVING
        guard.resume()
        guard.resume()
        assert await statuses(server, *PROBES, "/") == [200, 200, 200, 200]
    facts = [e for e in recorder.events if isinstance(e, Paused | Resumed)]
    assert facts == [Paused("maintenance"), Resumed()]


async def test_a_pause_may_begin_before_the_start(recorder: Recorder) -> None:
    """It lasts until it is taken back, over as many lives as it takes."""
    guard = LifespanGuard(hello, [Tap(recorder).recipe], observers=[recorder])
    guard.pause("warming up")
    server = MemoryServer(guard)
    async with server:
        await recorder.wait_for(ResourceOpened, 2)
        assert await statuses(server, "/readyz", "/") == [503, 200]
        guard.resume()
        assert await statuses(server, "/readyz") == [200]


async def test_retry_now_is_for_those_who_wait(recorder: Recorder) -> None:
    """Before the start it does nothing; then every wait is cut short."""
    taps = [
        Tap(recorder, name, errors=[REFUSED], retry=LATER) for name in ("db", "cache")
    ]
    guard = LifespanGuard(hello, [tap.recipe for tap in taps], observers=[recorder])
    guard.retry_now()
    async with MemoryServer(guard):
        await recorder.wait_for(AttemptFailed, 2)
        guard.retry_now()
        await guard.wait_ready(PATIENCE)
    assert sorted(recorder.marks[:2]) == ["open cache", "open db"]


async def test_wait_ready_returns_as_soon_as_it_is(recorder: Recorder) -> None:
    """It may be called before the start; many may wait."""
    db = Tap(recorder, shut=True)
    guard = LifespanGuard(hello, [db.recipe], observers=[recorder])

    async def wait(name: str) -> None:
        await guard.wait_ready(PATIENCE)
        recorder.mark(name)

    async with anyio.create_task_group() as group:
        group.start_soon(wait, "one")
        await anyio.wait_all_tasks_blocked()
        async with MemoryServer(guard):
            group.start_soon(wait, "two")
            await anyio.wait_all_tasks_blocked()
            assert recorder.marks == []
            db.let()
            await recorder.wait_for_mark("one")
            await recorder.wait_for_mark("two")
            await wait("three")
            assert recorder.marks[0] == "open db"
            assert recorder.marks[3:] == ["three"]


async def test_wait_ready_names_what_is_missing(recorder: Recorder) -> None:
    """Only what readiness asks for, and the phase; or that it is paused."""
    taps = [
        Tap(recorder),
        Tap(recorder, "cache", shut=True, required=False),
        Tap(recorder, "index", shut=True),
    ]
    guard = LifespanGuard(hello, [tap.recipe for tap in taps], observers=[recorder])
    with pytest.raises(NotReadyError, match="the guard is idle, missing: db, index"):
        await guard.wait_ready(0)
    async with MemoryServer(guard):
        await recorder.wait_for_mark("open db")
        with pytest.raises(TimeoutError, match=r"5 s: .* serving, missing: index"):
            await guard.wait_ready(5)
        taps[2].let()
        await guard.wait_ready(PATIENCE)
        guard.pause("maintenance")
        with pytest.raises(NotReadyError, match="is paused, missing: nothing"):
            await guard.wait_ready(0)


# Giving up


class Alone:
    """A server that starts a guard, and never tells it to stop.

    Attributes:
        requests: For requests to the same guard.
    """

    def __init__(self, guard: LifespanGuard, recorder: Recorder) -> None:
        self._guard = guard
        self._recorder = recorder
        self._started = False
        asgi = {"version": "3.0", "spec_version": "2.0"}
        self._scope: dict[str, Any] = {"type": "lifespan", "asgi": asgi, "state": {}}
        self.requests = MemoryServer(guard, lifespan_scope=self._scope)

    async def run(self) -> None:
        """Hold the lifespan's conversation."""
        await self._guard(self._scope, self._receive, self._send)

    async def _receive(self) -> dict[str, str]:
        if self._started:
            await anyio.sleep_forever()
        self._started = True
        return {"type": "lifespan.startup"}

    async def _send(self, message: Any) -> None:
        self._recorder.mark(message["type"].removeprefix("lifespan."))


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    """Have the end of the process marked instead of met."""
    monkeypatch.setattr(
        _run, "end_process", lambda status: recorder.mark(f"exit {status}")
    )


class Busy:
    """An app whose requests last until the test lets them finish."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.finish = anyio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self._recorder.mark("request")
            await self.finish.wait()
            self._recorder.mark("finished")
        await hello(scope, receive, send)


def doomed_tap(recorder: Recorder, **options: Any) -> Tap:
    """Return a resource that gives up at once, and takes the process with it."""
    how = {"retry": None, "on_give_up": "exit", **options}
    return Tap(recorder, "doomed", errors=[REFUSED], **how)


@pytest.mark.usefixtures("ending")
@pytest.mark.parametrize("delay", [0.0, 5.0])
async def test_giving_up_may_end_the_process(
    recorder: Recorder, delay: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A CRITICAL line, liveness down, the drain, everything closed, status 1."""
    app, db, doomed = Busy(recorder), Tap(recorder), doomed_tap(recorder, shut=True)
    guard = LifespanGuard(
        app,
        [db.recipe, doomed.recipe],
        gate=Gate(needs={"/": [db.recipe]}),
        drain=Drain(delay=delay),
        observers=[recorder],
    )
    server = Alone(guard, recorder)
    async with anyio.create_task_group() as group:
        group.start_soon(server.run)
        await recorder.wait_for_mark("open db")
        group.start_soon(server.requests.get, "/")
        await recorder.wait_for_mark("request")
        assert await statuses(server.requests, "/livez") == [200]
        doomed.let()
        await recorder.wait_for(DrainBegun)
        assert await statuses(server.requests, *PROBES) == [503, 503, 503]
        app.finish.set()
        await recorder.wait_for_mark("exit 1")
    assert recorder.marks == [
        *("startup.complete", "open db", "request"),
        *("finished", "close db", "shutdown.complete", "exit 1"),
    ]
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.CRITICAL]
    assert lines == [
        "doomed: gave up after 1 attempt(s), its retry policy allows no more:"
        " OSError: cannot connect to postgresql://app:***@db/app"
    ]
    kinds: list[type[Event]] = [ResourceGaveUp, DrainBegun, DrainEnded]
    facts = [event for event in recorder.events if type(event) in kinds]
    assert [type(fact) for fact in facts] == kinds
    assert facts[1] == DrainBegun("doomed gave up", 1)


@pytest.mark.usefixtures("ending")
async def test_a_process_that_ends_has_written_its_last_answers(
    recorder: Recorder,
) -> None:
    """A server may take an answer before it writes it, so there is a short pause."""
    moments: dict[type[Event], float] = {}

    def note(event: Event) -> None:
        moments[type(event)] = anyio.current_time()

    recorder.also = note
    db, doomed = Tap(recorder), doomed_tap(recorder, shut=True)
    guard = LifespanGuard(hello, [db.recipe, doomed.recipe], observers=[recorder])
    async with anyio.create_task_group() as group:
        group.start_soon(Alone(guard, recorder).run)
        await recorder.wait_for_mark("open db")
        doomed.let()
    pause = moments[ResourceClosed] - moments[DrainEnded]
    assert pause == pytest.approx(_run.LAST_ANSWERS)


@pytest.mark.usefixtures("ending")
async def test_without_a_drain_it_ends_without_one(recorder: Recorder) -> None:
    """Everything is closed, and the process ends."""
    db, doomed = Tap(recorder), doomed_tap(recorder, shut=True)
    guard = LifespanGuard(
        hello, [db.recipe, doomed.recipe], drain=None, observers=[recorder]
    )
    async with anyio.create_task_group() as group:
        group.start_soon(Alone(guard, recorder).run)
        await recorder.wait_for_mark("open db")
        doomed.let()
    assert recorder.marks[1:] == ["open db", "close db", "shutdown.complete", "exit 1"]


@pytest.mark.usefixtures("ending")
async def test_a_startup_that_gives_up_may_end_the_process(recorder: Recorder) -> None:
    """With our own status, after the server has been told and all is closed."""
    cache = Tap(recorder, "cache", startup="blocking")
    doomed = doomed_tap(recorder, startup="blocking", needs=[cache.recipe])
    recipes = [cache.recipe, doomed.recipe]
    guard = LifespanGuard(hello, recipes, observers=[recorder])
    with anyio.fail_after(PATIENCE), pytest.raises(StartupFailedError):
        await Alone(guard, recorder).run()
    assert recorder.marks == ["open cache", "close cache", "startup.failed", "exit 1"]


@pytest.mark.usefixtures("ending")
async def test_an_optional_one_that_gives_up_at_startup(recorder: Recorder) -> None:
    """The startup does not fail; what follows it is the drain, and the end."""
    doomed = doomed_tap(recorder, startup="blocking", required=False)
    guard = LifespanGuard(hello, [doomed.recipe], observers=[recorder])
    with anyio.fail_after(PATIENCE):
        await Alone(guard, recorder).run()
    assert recorder.marks == ["startup.complete", "shutdown.complete", "exit 1"]
    assert len(recorder.of(DrainBegun)) == 1


@pytest.mark.usefixtures("ending")
async def test_a_lost_need_ends_what_would_exit(recorder: Recorder) -> None:
    """What cannot open because of another has given up, too."""
    db = Tap(recorder, errors=[REFUSED], retry=None)
    doomed = doomed_tap(recorder, needs=[db.recipe])
    guard = LifespanGuard(hello, [db.recipe, doomed.recipe], observers=[recorder])
    with anyio.fail_after(PATIENCE):
        await Alone(guard, recorder).run()
    assert recorder.marks == ["startup.complete", "shutdown.complete", "exit 1"]


@pytest.mark.usefixtures("ending")
async def test_giving_up_while_it_drains_changes_the_status(
    recorder: Recorder,
) -> None:
    """The drain that is on is not begun again; the process ends with status 1."""
    doomed = doomed_tap(recorder, shut=True)
    guard = LifespanGuard(hello, [doomed.recipe], observers=[recorder])
    server = Alone(guard, recorder)
    async with anyio.create_task_group() as group:
        group.start_soon(server.run)
        await recorder.wait_for_mark("startup.complete")
        guard.begin_drain("preStop")
        await recorder.wait_for(DrainEnded)
        doomed.let()
        await recorder.wait_for_mark("exit 1")
    assert recorder.of(DrainBegun) == [DrainBegun("preStop", 0)]


@pytest.mark.usefixtures("ending")
async def test_otherwise_giving_up_ends_nothing(recorder: Recorder) -> None:
    """By default it stays unready and live; another life finds a fresh budget."""
    db = Tap(recorder, errors=[REFUSED], retry=None)
    guard = LifespanGuard(hello, [db.recipe], observers=[recorder])
    server = MemoryServer(guard)
    async with server:
        await recorder.wait_for(ResourceGaveUp)
        assert await statuses(server, *PROBES) == [200, 503, 503]
        report = guard.report().resource("db")
        assert report is not None
        assert report.phase is ResourcePhase.FAILED
    assert recorder.marks == []
    assert recorder.of(PhaseChanged)[-1].new is Phase.STOPPED
