"""Checks: the recipe, what answers add up to, and one question."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from asgi_lifespan_guard import (
    Check,
    CheckFailedError,
    CheckTimeoutError,
    ConfigurationError,
    Retry,
    resource,
)
from asgi_lifespan_guard._resources.checks import Asker, Change, Watch
from tests.recorder import PATIENCE
from tests.support.virtual_time import on_time_by_hand, on_virtual_time, pass_time


def call(value: object) -> object:
    """Pass."""
    return value


# The recipe


def test_the_defaults() -> None:
    """Every five seconds, two failures take it down, one success brings it back."""
    check = Check(call)
    assert (check.every, check.timeout) == (5, 5)
    assert (check.failures, check.successes) == (2, 1)
    assert (check.on, check.then) == (Exception, "hold")


def test_a_check_is_frozen_and_can_be_replaced() -> None:
    """It is plain data: equal by its values, copied with changes."""
    check = Check(call, every=1)
    with pytest.raises(FrozenInstanceError):
        check.every = 2  # type: ignore[misc]
    assert replace(check, failures=5) == Check(call, every=1, failures=5)
    assert hash(check) == hash(Check(call, every=1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"call": "SELECT 1"}, "Check('SELECT 1'): must be a callable"),
        ({"every": 0}, "Check(every=0): must be a number of seconds, more than 0"),
        ({"every": float("inf")}, "Check(every=inf): must be a number of seconds"),
        ({"timeout": None}, "Check(timeout=None): must be a number of seconds"),
        ({"failures": 0}, "Check(failures=0): must be a whole number, 1 or more"),
        ({"failures": 1.5}, "Check(failures=1.5): must be a whole number"),
        ({"successes": -1}, "Check(successes=-1): must be a whole number"),
        ({"then": "close"}, "Check(then='close'): must be 'hold', 'report' or"),
        ({"on": OSError("x")}, "Check(on=OSError('x')): must be a class of exceptions"),
        ({"on": (OSError, str)}, "Check(on=(<class 'OSError'>, <class 'str'>)): must"),
        ({"on": None}, "Check(on=None): must be a class of exceptions, or a tuple"),
    ],
)
def test_mistakes_are_told_with_what_to_write(
    options: dict[str, Any], text: str
) -> None:
    """Each option is judged when the check is made."""
    with pytest.raises(ConfigurationError) as caught:
        Check(**{"call": call, **options})
    assert text in str(caught.value)


def test_a_plain_callable_is_a_check_with_the_defaults() -> None:
    """`check=` takes either."""

    @resource(check=call)
    async def db() -> None: ...

    @resource(check=Check(call, every=1))
    async def cache() -> None: ...

    assert db.check == Check(call)
    assert cache.check == Check(call, every=1)


def test_a_step_cannot_be_reopened() -> None:
    """It is not run again; a check that only reports is fine."""
    resource(nothing, check=Check(call))
    with pytest.raises(ConfigurationError, match="is a step, which is not run again"):
        resource(nothing, check=Check(call, then="reopen"))


async def nothing() -> None:
    """Do it once."""


@given(st.floats(0.001, 1e6))
def test_each_wait_differs_by_up_to_a_tenth(every: float) -> None:
    """A fleet's checks do not come in step."""
    check = Check(call, every=every)
    waits = {check.wait() for _ in range(20)}
    assert len(waits) > 1
    assert min(waits) >= every * 0.9 * 0.999
    assert max(waits) <= every * 1.1 * 1.001


@pytest.mark.parametrize(
    ("on", "error", "expected"),
    [
        (Exception, ValueError(), True),
        (OSError, ConnectionError(), True),
        (OSError, ValueError(), False),
        ((), OSError(), False),
        ((KeyError, OSError), ExceptionGroup("", [ValueError(), OSError()]), True),
        (OSError, ExceptionGroup("", [ValueError(), KeyError()]), False),
    ],
)
def test_what_makes_it_suspect(on: Any, error: Exception, expected: bool) -> None:
    """Exceptions of the classes that were named, alone or in a group."""
    assert Check(call, on=on).is_about(error) is expected


# What answers add up to


@given(
    answers=st.lists(st.booleans(), max_size=40),
    failures=st.integers(1, 4),
    successes=st.integers(1, 4),
)
def test_so_many_in_a_row_turn_it(
    answers: list[bool], failures: int, successes: int
) -> None:
    """Down after *failures* failures in a row, back after *successes* successes."""
    watch = Watch(Check(call, failures=failures, successes=successes), None, 0.0)
    failing = False
    for count in range(1, len(answers) + 1):
        change = watch.count(None if answers[count - 1] else OSError(), 0.0)
        wanted = successes if failing else failures
        seen = answers[max(0, count - wanted) : count]
        turned = seen == [failing] * wanted
        failing = failing is not turned
        expected = Change.DOWN if failing else Change.RECOVERED
        assert change is (expected if turned else Change.NOTHING)
        assert watch.failing is failing
        assert watch.in_a_row == _length_of_last_run(answers[:count])


def ask(watch: Watch, now: float, error: Exception | None) -> float:
    """Answer at *now*; return the seconds until the next question."""
    watch.count(error, now)
    return watch.due - now


def fixed(seconds: float) -> Retry:
    """Return a policy that waits so long."""
    return Retry(wait=lambda _: seconds)


def test_a_bad_answer_is_confirmed_soon() -> None:
    """After the policy's waits, not after `every`; a good answer ends that."""
    watch = Watch(Check(call, every=60, failures=9), fixed(0.2), 0.0)
    assert watch.due > 50
    assert ask(watch, 60.0, OSError()) == pytest.approx(0.2)
    assert ask(watch, 60.2, OSError()) == pytest.approx(0.2)
    assert ask(watch, 60.4, None) > 50


def test_what_is_down_is_asked_at_growing_waits() -> None:
    """Never longer than half of the time it is down, or than `every`."""
    watch = Watch(Check(call, every=60, failures=1), fixed(100), 0.0)
    now, waits = 60.0, []
    for _ in range(14):
        waits.append(ask(watch, now, OSError()))
        now += waits[-1]
    assert waits[:3] == pytest.approx([0.25, 0.25, 0.25])
    assert all(wait <= max(0.26, (now - 60) / 2) for wait in waits)
    assert waits == sorted(waits)
    assert ask(watch, 1000.0, OSError()) == 60
    assert ask(watch, 1060.0, None) > 50


def test_what_needs_several_good_answers_gets_them_soon() -> None:
    """The first good one does not slow it down."""
    watch = Watch(Check(call, every=60, failures=1, successes=2), fixed(0.2), 0.0)
    ask(watch, 60.0, OSError())
    assert ask(watch, 60.2, None) == pytest.approx(0.2)
    assert watch.failing
    assert ask(watch, 60.4, None) > 50
    assert not watch.failing


def test_it_is_asked_ten_times_a_second_at_most() -> None:
    """Unless `every` says more often; a policy without waits is none for checks."""
    watch = Watch(Check(call, every=60), fixed(0), 0.0)
    assert ask(watch, 60.0, OSError()) == pytest.approx(0.1)
    watch = Watch(Check(call, every=0.01), fixed(0), 0.0)
    assert ask(watch, 60.0, OSError()) == pytest.approx(0.01)


@pytest.mark.parametrize("told", [float("nan"), "soon", ValueError("no")])
def test_a_policy_that_fails_is_left_alone(told: Any) -> None:
    """The next attempt to open tells of it; checks follow at their interval."""

    def wait(_: object) -> Any:
        if isinstance(told, Exception):
            raise told
        return told

    watch = Watch(Check(call, every=0.2), Retry(wait=wait), 0.0)
    assert ask(watch, 60.0, OSError()) == pytest.approx(0.2)


def test_a_policy_sees_the_failure_and_its_number() -> None:
    """As it does for attempts to open."""
    seen: list[Any] = []

    def wait(state: Any) -> float:
        seen.append((state.attempt_number, state.outcome and state.outcome.exception()))
        return 0.1

    watch = Watch(Check(call, failures=1, successes=2), Retry(wait=wait), 0.0)
    error = OSError()
    ask(watch, 1.0, error)
    ask(watch, 2.0, None)
    assert seen == [(1, error), (2, None)]


# Suspicion


def test_a_suspicion_has_it_asked_at_once() -> None:
    """And then not again within a tenth of a second."""
    watch = Watch(Check(call, every=60), None, 0.0)
    assert watch.suspect(10.0)
    assert watch.due == 10.0
    assert not watch.suspect(10.01)
    ask(watch, 10.02, None)
    assert watch.suspect(10.03)
    assert watch.due == pytest.approx(10.12)


def test_a_suspicion_that_is_confirmed_is_a_failure_itself() -> None:
    """Two failures are wanted, and one bad answer is enough."""
    watch = Watch(Check(call, failures=2), None, 0.0)
    watch.suspect(1.0)
    assert watch.count(OSError(), 1.0) is Change.DOWN


def test_a_suspicion_that_is_not_confirmed_is_forgotten() -> None:
    """The next bad answer counts for one."""
    watch = Watch(Check(call, failures=2), None, 0.0)
    watch.suspect(1.0)
    assert watch.count(None, 1.0) is Change.NOTHING
    assert watch.count(OSError(), 5.0) is Change.NOTHING
    assert watch.count(OSError(), 5.2) is Change.DOWN


def test_what_is_down_already_is_not_suspected() -> None:
    """It is asked often enough, and requests must not hammer it."""
    watch = Watch(Check(call, failures=1), fixed(2), 0.0)
    watch.count(OSError(), 1.0)
    watch.count(OSError(), 9.0)
    assert not watch.suspect(9.5)


def _length_of_last_run(answers: list[bool]) -> int:
    length = 0
    while length < len(answers) and answers[-1 - length] is answers[-1]:
        length += 1
    return length


# One question


def asking(
    call: Callable[[Any], Any], *, timeout: float = 60.0, threaded: bool = False
) -> Callable[[], Any]:
    """Return what asks *call* once."""
    asker = Asker("db", Check(call, timeout=timeout))
    return functools.partial(asker.ask, "value", threaded=threaded)


async def _echo(value: object) -> object:
    await checkpoint()
    return value


class _AsyncCallable:
    async def __call__(self, value: object) -> object:
        return await _echo(value)


@pytest.mark.anyio
@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, id="sync"),
        pytest.param(_echo, id="async"),
        pytest.param(lambda value: _echo(value), id="lambda"),
        pytest.param(functools.partial(_echo), id="partial"),
        pytest.param(_AsyncCallable(), id="object"),
        pytest.param(lambda _: None, id="none"),
        pytest.param(lambda _: 0, id="zero"),
    ],
)
async def test_whatever_is_not_false_is_a_pass(call: Any, threaded: bool) -> None:
    """Sync or async, in whatever disguise; what can be awaited is awaited."""
    assert await asking(call, threaded=threaded)() is None
    gc.collect()


@pytest.mark.anyio
@pytest.mark.parametrize("threaded", [False, True])
async def test_false_and_an_error_are_failures(threaded: bool) -> None:
    """`False` has an error of its own; what is raised is told as it is."""
    error = await asking(lambda _: False, threaded=threaded)()
    assert isinstance(error, CheckFailedError)

    async def say_no(_: object) -> bool:
        return False

    assert isinstance(await asking(say_no, threaded=threaded)(), CheckFailedError)
    refused = OSError("refused")

    def refuse(_: object) -> None:
        raise refused

    assert await asking(refuse, threaded=threaded)() is refused


@pytest.mark.anyio
async def test_a_sync_check_of_a_threaded_resource_has_a_thread() -> None:
    """It may block; a check of any other resource is called on the loop."""
    threads: list[threading.Thread] = []

    def note(_: object) -> None:
        threads.append(threading.current_thread())

    await asking(note)()
    await asking(note, threaded=True)()
    own, other = threads
    assert own is threading.current_thread()
    assert (other.name, other.daemon) == ("check db", True)


@pytest.mark.anyio
@on_virtual_time
async def test_a_check_has_a_deadline() -> None:
    """What does not answer in time is cancelled, once, and may clean up."""
    marks = []

    async def hang(_: object) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await checkpoint()
            marks.append("cleaned up")

    error = await asking(hang, timeout=5)()
    assert isinstance(error, CheckTimeoutError)
    assert error.timeout == 5
    assert marks == ["cleaned up"]


@pytest.mark.anyio
@on_virtual_time
async def test_a_deadline_counts_however_the_check_takes_it() -> None:
    """A driver that turns the cancellation into an error of its own was late, too."""

    async def hang(_: object) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise OSError("connection lost")

    assert isinstance(await asking(hang, timeout=5)(), CheckTimeoutError)


@pytest.mark.anyio
@on_time_by_hand
async def test_no_thread_is_begun_while_the_last_one_runs() -> None:
    """A thread that hangs is abandoned; until it ends no check is answered."""
    begun, let_go = threading.Event(), threading.Event()
    calls = []

    def hang(_: object) -> None:
        calls.append("call")
        begun.set()
        let_go.wait(PATIENCE)

    async def be_late() -> None:
        await anyio.to_thread.run_sync(begun.wait)
        await anyio.wait_all_tasks_blocked()
        pass_time(3600)

    ask = asking(hang, timeout=3600, threaded=True)
    for _ in range(3):
        async with anyio.create_task_group() as group:
            group.start_soon(be_late)
            assert isinstance(await ask(), CheckTimeoutError)
    assert calls == ["call"]
    let_go.set()
    assert await ask() is None
    assert calls == ["call"] * 2


@pytest.mark.anyio
async def test_a_question_can_be_interrupted() -> None:
    """It says nothing then; with no question on, there is nothing to interrupt."""
    asker = Asker("db", Check(lambda _: anyio.sleep_forever()))
    asker.interrupt(1)
    answers: list[BaseException | None] = []

    async def ask() -> None:
        answers.append(await asker.ask("value", threaded=False))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        asker.interrupt(1)
    asker.interrupt(1)
    assert answers == [None]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_check_that_awaits_something_cancelled_has_failed() -> None:
    """A pool that is being closed cancels those who wait for a connection."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()

    async def acquire(_: object) -> None:
        await future

    error = await asking(acquire)()
    assert isinstance(error, RuntimeError)
    assert isinstance(error.__cause__, asyncio.CancelledError)
