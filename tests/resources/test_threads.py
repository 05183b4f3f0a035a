"""Sync forms: one daemon thread each, entered and left there."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from asgi_lifespan_guard import (
    Check,
    CloseTimeoutError,
    FactoryError,
    OpenTimeoutError,
    ResourcePhase,
    Retry,
    resource,
)
from asgi_lifespan_guard._resources.threads import ThreadedContext
from asgi_lifespan_guard.events import AttemptFailed, CloseFailed, ResourceGaveUp
from tests.resources.stage import Stage, failing
from tests.support.virtual_time import on_time_by_hand, on_virtual_time, pass_time


AT_ONCE = Retry(wait=lambda _: 0)


class Model:
    """A sync context manager that waits where it is told to, and notes its thread."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.may_enter = threading.Event()
        self.may_leave = threading.Event()
        self.entering = threading.Event()
        self.left = threading.Event()
        self.inside = 0
        self.most_inside = 0

    @contextmanager
    def open(self) -> Generator[str, None, None]:
        self.threads.append(threading.current_thread())
        self.entering.set()
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.may_enter.wait()
        yield "model"
        self.threads.append(threading.current_thread())
        self.may_leave.wait()
        self.inside -= 1
        self.left.set()


@pytest.fixture
def model() -> Iterator[Model]:
    """Return a model whose threads are let go at the end."""
    made = Model()
    yield made
    made.may_enter.set()
    made.may_leave.set()
    for thread in made.threads:
        thread.join()


@pytest.mark.anyio
async def test_it_is_entered_and_left_in_one_thread(stage: Stage, model: Model) -> None:
    """Locks and GUI-like libraries care; the process is not kept alive by it."""
    model.may_enter.set()
    model.may_leave.set()
    async with stage.running(resource(model.open, name="model")):
        await stage.until_up("model")
        assert stage.values == {"model": "model"}
        assert not model.left.is_set()
    entered, left = model.threads
    assert entered is left is not threading.current_thread()
    assert (entered.daemon, entered.name) == (True, "model")
    assert model.left.is_set()


@pytest.mark.anyio
async def test_the_loop_goes_on_while_a_thread_enters(
    stage: Stage, model: Model
) -> None:
    """Entering may block for as long as it likes."""
    model.may_leave.set()
    db = stage.make("db", on_open=model.may_enter.set)
    async with stage.running(resource(model.open, name="model"), db):
        await stage.until_up("db", "model")


@pytest.mark.anyio
async def test_context_variables_reach_the_thread(stage: Stage) -> None:
    """What was set where the guard started can be read."""
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")

    @resource
    def db() -> Generator[str, None, None]:
        yield variable.get()

    async with stage.running(db):
        await stage.until_up("db")
        assert stage.values == {"db": "set"}


@pytest.mark.anyio
async def test_errors_of_the_thread_are_the_resources(stage: Stage) -> None:
    """One on entering is retried, one on leaving is told."""
    refused, late = OSError("refused"), ValueError("late")
    enter = failing(refused)

    @resource(retry=AT_ONCE)
    def db() -> Generator[None, None, None]:
        enter()
        yield
        raise late

    async with stage.running(db):
        await stage.until_up("db")
    assert [event.error for event in stage.recorder.of(AttemptFailed)] == [refused]
    assert [event.error for event in stage.recorder.of(CloseFailed)] == [late]


@pytest.mark.anyio
async def test_a_call_that_fails_in_the_thread_is_permanent(stage: Stage) -> None:
    """A TypeError from calling the factory is no matter of time."""

    class Broken:
        def __init__(self, _: object = None) -> None:
            raise TypeError("odd")

        def __enter__(self) -> None: ...
        def __exit__(self, *exc_info: object) -> None: ...

    async with stage.running(resource(Broken, name="db", retry=AT_ONCE)):
        await stage.until_phase("db", ResourcePhase.FAILED)
    (gave_up,) = stage.recorder.of(ResourceGaveUp)
    assert isinstance(gave_up.error, FactoryError)


@pytest.mark.anyio
async def test_a_thread_that_cannot_start_is_tried_again(
    stage: Stage, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is out of threads for a moment does not lose its resource."""
    start, refused = threading.Thread.start, RuntimeError("can't start new thread")
    refuse = failing(refused)

    def start_or_refuse(thread: threading.Thread) -> None:
        if thread.name == "model":
            refuse()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_refuse)
    model.may_enter.set()
    model.may_leave.set()
    async with stage.running(resource(model.open, name="model", retry=AT_ONCE)):
        await stage.until_up("model")
    assert [event.error for event in stage.recorder.of(AttemptFailed)] == [refused]


@pytest.mark.anyio
@on_virtual_time
async def test_a_late_thread_is_abandoned(stage: Stage, model: Model) -> None:
    """Its attempt has failed; it leaves as soon as it has entered."""
    model.may_leave.set()
    late = resource(model.open, name="model", timeout=5, retry=None)
    async with stage.running(late):
        await stage.until_phase("model", ResourcePhase.FAILED)
    (gave_up,) = stage.recorder.of(ResourceGaveUp)
    assert isinstance(gave_up.error, OpenTimeoutError)
    assert not model.left.is_set()
    model.may_enter.set()
    await anyio.to_thread.run_sync(model.left.wait)
    assert len(set(model.threads)) == 1


@pytest.mark.anyio
@on_time_by_hand
async def test_no_attempt_starts_while_the_last_ones_thread_runs(
    stage: Stage, model: Model
) -> None:
    """Later attempts wait for it, each within its own timeout."""
    model.may_leave.set()
    late = resource(model.open, name="model", timeout=3600, retry=AT_ONCE)
    async with stage.running(late):
        await anyio.to_thread.run_sync(model.entering.wait)
        for attempt in range(1, 4):
            await anyio.wait_all_tasks_blocked()
            pass_time(3600)
            await stage.recorder.wait_for(AttemptFailed, attempt)
        assert len(model.threads) == 1
        model.may_enter.set()
        await stage.until_up("model")
    assert model.most_inside == 1


@pytest.mark.anyio
@on_time_by_hand
async def test_what_an_abandoned_thread_ended_with_is_told(stage: Stage) -> None:
    """As the cause of the next failure, unless that has one of its own."""
    may_fail = threading.Event()
    attempts = 0

    def fail() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            may_fail.wait()
            raise OSError("out of disk space")
        raise ConnectionError("refused")

    def load() -> Generator[None, None, None]:
        fail()
        yield

    late = resource(load, name="model", timeout=3600, retry=AT_ONCE)
    async with stage.running(late):
        await anyio.wait_all_tasks_blocked()
        pass_time(3600)
        await stage.recorder.wait_for(AttemptFailed)
        may_fail.set()
        await stage.recorder.wait_for(AttemptFailed, 3)
    errors = [event.error for event in stage.recorder.of(AttemptFailed)][:3]
    assert isinstance(errors[0], OpenTimeoutError)
    causes = [repr(error.__cause__) for error in errors[1:]]
    assert causes == ["OSError('out of disk space')", "None"]


@pytest.mark.anyio
async def test_a_stop_abandons_a_thread_that_enters(stage: Stage, model: Model) -> None:
    """The stop is over at once; the thread leaves when it has entered."""
    model.may_leave.set()
    async with stage.running(resource(model.open, name="model")):
        await stage.until_phase("model", ResourcePhase.OPENING)
        await anyio.to_thread.run_sync(model.entering.wait)
    assert stage.phase("model") is ResourcePhase.CLOSED
    model.may_enter.set()
    await anyio.to_thread.run_sync(model.left.wait)
    assert model.inside == 0


@pytest.mark.anyio
async def test_a_thread_that_hangs_in_leaving_is_abandoned(
    stage: Stage, model: Model
) -> None:
    """After its close_timeout the stop goes on without it, and tells."""
    model.may_enter.set()
    async with stage.running(resource(model.open, name="model", close_timeout=0.02)):
        await stage.until_up("model")
    (failed,) = stage.recorder.of(CloseFailed)
    assert isinstance(failed.error, CloseTimeoutError)
    assert not model.left.is_set()


def test_a_thread_survives_its_event_loop(model: Model, anyio_backend: Any) -> None:
    """When it has nobody left to tell, it still leaves, and says nothing."""
    model.may_leave.set()

    async def main() -> None:
        context = ThreadedContext("model", model.open)
        async with anyio.create_task_group() as group:
            group.start_soon(context.__aenter__)
            await anyio.to_thread.run_sync(model.entering.wait)
            group.cancel_scope.cancel()

    backend, options = anyio_backend
    anyio.run(main, backend=backend, backend_options=options)
    model.may_enter.set()
    model.threads[0].join()
    assert model.left.is_set()


@pytest.mark.anyio
async def test_a_check_that_hangs_keeps_one_thread_only(stage: Stage) -> None:
    """Later attempts ask nothing while the question of an earlier one is on."""
    may_answer, asked = threading.Event(), 0

    def hang(_: object) -> None:
        nonlocal asked
        asked += 1
        may_answer.wait()

    def load() -> Generator[None, None, None]:
        yield

    check = Check(hang, timeout=0.01)
    async with stage.running(resource(load, name="model", check=check, retry=AT_ONCE)):
        await stage.recorder.wait_for(AttemptFailed, 3)
        assert asked == 1
        may_answer.set()
