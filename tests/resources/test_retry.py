"""Whether and when another attempt follows, as arithmetic."""

from __future__ import annotations

from math import inf, nan
from types import SimpleNamespace
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from asgi_lifespan_guard import (
    AppCannotRestartError,
    AppLifespanError,
    CheckFailedError,
    ConfigurationError,
    CrashedError,
    FactoryError,
    Retry,
    StateKeyClashError,
)
from asgi_lifespan_guard._resources.retry import (
    CAP,
    FIRST,
    LONG_ENOUGH,
    Series,
    equal_jitter,
    is_permanent,
    is_unexpected,
)


def _state(attempt: int) -> Any:
    return SimpleNamespace(attempt_number=attempt)


@given(st.integers(1, 10_000))
def test_a_wait_is_half_certain_and_half_random(attempt: int) -> None:
    """It lies between half and the whole of a ceiling that doubles up to the cap."""
    ceiling = min(CAP, FIRST * 2 ** min(attempt - 1, 99))
    assert ceiling / 2 <= equal_jitter(_state(attempt)) <= ceiling


@pytest.mark.parametrize("attempt", [10_000, 10**9])
def test_no_attempt_is_too_late_to_be_waited_for(attempt: int) -> None:
    """After a night of attempts the wait is still the cap's."""
    assert CAP / 2 <= equal_jitter(_state(attempt)) <= CAP


def test_waits_differ() -> None:
    """A herd does not come back in step."""
    assert len({equal_jitter(_state(9)) for _ in range(20)}) > 1


def test_the_default_policy_retries_for_ever() -> None:
    """A thousand failures are followed by another attempt, each time counted."""
    series = Series(Retry())
    for attempt in range(1, 1001):
        assert series.attempt == attempt
        wait = series.next_wait(OSError())
        assert wait is not None
        assert 0 < wait <= CAP


def test_no_policy_is_one_attempt() -> None:
    """`retry=None` allows no second one."""
    series = Series(None)
    assert series.next_wait(OSError()) is None
    assert series.attempt == 1


def test_tenacitys_strategies_are_followed() -> None:
    """Wait, stop and when say what tenacity would."""
    retry = Retry(
        wait=tenacity.wait_incrementing(1, 2),
        stop=tenacity.stop_after_attempt(4),
        when=tenacity.retry_if_exception_type(OSError),
    )
    series = Series(retry)
    assert [series.next_wait(OSError()) for _ in range(4)] == [1, 3, 5, None]
    assert Series(retry).next_wait(KeyError()) is None


def test_strategies_combine() -> None:
    """`|`, `&` and `+` work, and a budget in seconds counts from the start."""
    retry = Retry(
        wait=tenacity.wait_fixed(1) + tenacity.wait_fixed(2),
        stop=tenacity.stop_after_delay(0) | tenacity.stop_never,
        when=tenacity.retry_if_exception_type(OSError)
        & tenacity.retry_if_exception_message(match="again"),
    )
    assert Series(retry).next_wait(OSError("again")) is None
    retry = Retry(wait=retry.wait, when=retry.when)
    assert Series(retry).next_wait(OSError("again")) == 3
    assert Series(retry).next_wait(OSError("no")) is None


def test_a_strategy_sees_the_attempt_and_its_error() -> None:
    """As tenacity shows them: number, outcome, and the seconds since the start."""
    seen: list[Any] = []

    def wait(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        seen.append((state.attempt_number, state.outcome.exception()))
        assert state.seconds_since_start is not None
        return 0

    errors = [OSError("one"), OSError("two")]
    series = Series(Retry(wait=wait))
    for error in errors:
        series.next_wait(error)
    assert seen == [(1, errors[0]), (2, errors[1])]


@pytest.mark.parametrize("option", ["wait", "stop", "when"])
def test_a_strategy_that_raises_is_heard(option: str) -> None:
    """Its mistake comes out as it is."""

    def broken(_: object) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Series(Retry(**{option: broken})).next_wait(OSError())


@pytest.mark.parametrize("option", ["wait", "stop", "when"])
def test_a_strategy_can_be_called(option: str) -> None:
    """Anything else is told with examples of what is meant."""
    given: dict[str, Any] = {option: 5}
    with pytest.raises(ConfigurationError, match=rf"Retry\({option}=5\).*tenacity\."):
        Retry(**given)


HOPELESS = [
    FactoryError("db", "bad", "mend it"),
    AppCannotRestartError("app", "sign", "first"),
    StateKeyClashError(["db"]),
]
PERMANENT = [NameError(), SyntaxError(), ModuleNotFoundError(), NotImplementedError()]
SUSPICIOUS = [TypeError(), AttributeError(), AssertionError()]
TRANSIENT = [OSError(), TimeoutError(), RuntimeError(), Exception()]


@pytest.mark.parametrize("error", [*HOPELESS, *PERMANENT], ids=repr)
def test_mistakes_of_the_program_are_permanent(error: Exception) -> None:
    """Alone or inside a group, by default nothing follows them."""
    group = ExceptionGroup("", [OSError(), ExceptionGroup("", [error])])
    for told in (error, group):
        assert is_permanent(told)
        assert is_unexpected(told)
        assert Series(Retry()).next_wait(told) is None


@pytest.mark.parametrize("error", [*SUSPICIOUS, *TRANSIENT], ids=repr)
def test_what_the_world_may_have_done_is_transient(error: Exception) -> None:
    """It is retried, alone and in a group of its like."""
    group = ExceptionGroup("", [error, OSError()])
    for told in (error, group):
        assert not is_permanent(told)
        assert is_unexpected(told) is (error in SUSPICIOUS)
        assert Series(Retry()).next_wait(told) is not None


def test_a_policy_may_retry_what_is_permanent_by_default() -> None:
    """An ImportError of a plugin that is being installed; a hopeless one never."""
    retry = Retry(when=tenacity.retry_if_exception_type(Exception))
    assert Series(retry).next_wait(ImportError()) is not None
    for error in HOPELESS:
        assert Series(retry).next_wait(error) is None


def test_a_policy_by_result_finds_none() -> None:
    """A strategy that looks at results has no say over errors."""
    retry = Retry(when=tenacity.retry_if_result(bool))
    assert Series(retry).next_wait(OSError()) is None


# After a long run


LONG = LONG_ENOUGH
SOON = LONG_ENOUGH / 2


def test_what_came_down_is_opened_again_at_once() -> None:
    """However long it took to open, and whatever waits had grown to by then."""
    series = Series(Retry())
    for _ in range(6):
        series.next_wait(OSError())
    for lasted in (SOON, LONG):
        wait = series.after_fall(lasted).wait_after_fall(OSError())
        assert wait is not None
        assert 0 <= wait < FIRST


def test_at_once_is_never_later_than_the_policy_says() -> None:
    """A policy without waits has none here either."""
    series = Series(Retry(wait=tenacity.wait_none())).after_fall(LONG)
    assert series.wait_after_fall(OSError()) == 0


def test_having_been_up_is_no_attempt() -> None:
    """The budget is whole afterwards."""
    retry = Retry(wait=tenacity.wait_none(), stop=tenacity.stop_after_attempt(3))
    series = Series(retry).after_fall(LONG)
    assert series.wait_after_fall(OSError()) == 0
    assert series.begin() == 1
    assert [series.next_wait(OSError()) for _ in range(3)] == [0, 0, None]


@pytest.mark.parametrize("lasted", [SOON, LONG])
def test_the_end_of_a_short_outage_is_noticed_shortly_after_it(
    monkeypatch: pytest.MonkeyPatch, lasted: float
) -> None:
    """No wait is longer than half of the outage so far, until they are as usual."""
    began = now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    series = Series(Retry()).after_fall(lasted)
    series.wait_after_fall(OSError())
    waits = []
    while now < began + 60:
        wait = series.next_wait(OSError())
        assert wait is not None
        assert wait <= max(FIRST, (now - began) / 2)
        waits.append(wait)
        now += wait
    assert max(waits) > CAP / 2


def test_a_wait_of_the_users_own_is_left_as_it_is() -> None:
    """Also after an outage."""
    series = Series(Retry(wait=tenacity.wait_fixed(30))).after_fall(LONG)
    series.wait_after_fall(OSError())
    assert series.next_wait(OSError()) == 30


def test_what_comes_down_again_and_again_spends_its_budget() -> None:
    """Its waits grow, too, so that it does not spin."""
    retry = Retry(
        wait=tenacity.wait_incrementing(1, 2), stop=tenacity.stop_after_attempt(3)
    )
    series, waits = Series(retry), []
    for _ in range(3):
        series = series.after_fall(SOON)
        waits.append(series.wait_after_fall(OSError()))
    assert waits[0] is not None
    assert waits[0] < FIRST
    assert waits[1:] == [3, None]
    assert series.after_fall(LONG).wait_after_fall(OSError()) is not None


def test_the_clock_of_a_budget_begins_when_it_came_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The time that it was up does not count."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    retry = Retry(wait=tenacity.wait_none(), stop=tenacity.stop_after_delay(30))
    series = Series(retry)
    series.begin()
    now += 45
    series = series.after_fall(45)
    assert series.wait_after_fall(OSError()) == 0
    now += 29
    assert series.next_wait(OSError()) == 0
    now += 2
    assert series.next_wait(OSError()) is None


def test_after_a_fall_the_policy_is_asked_whether() -> None:
    """Permanent errors and those that it does not want end it even then."""
    retry = Retry(when=tenacity.retry_if_exception_type(OSError))
    for series in (Series(retry).after_fall(LONG), Series(retry).after_fall(SOON)):
        assert series.wait_after_fall(OSError()) is not None
        assert series.wait_after_fall(KeyError()) is None
    for error in HOPELESS:
        assert Series(retry).after_fall(LONG).wait_after_fall(error) is None
        assert Series(None).after_fall(LONG).wait_after_fall(error) is None


@pytest.mark.parametrize(
    "error",
    [
        ExceptionGroup("out of a task group", [OSError()]),
        ExceptionGroup("outer", [ExceptionGroup("inner", [OSError()])]),
        AppLifespanError("startup", OSError()),
        CheckFailedError("db"),
        CrashedError("db"),
    ],
    ids=repr,
)
def test_a_predicate_is_asked_about_what_it_was_written_for(error: Exception) -> None:
    """About the one error in a group; and not about what we found out ourselves."""
    retry = Retry(when=tenacity.retry_if_exception_type(OSError))
    assert Series(retry).next_wait(error) is not None
    assert Series(retry).after_fall(LONG).wait_after_fall(error) is not None


def test_a_single_attempt_is_allowed_again_after_a_long_run() -> None:
    """`retry=None` is about opening: what ran for long may be opened once more."""
    series = Series(None).after_fall(LONG)
    assert series.wait_after_fall(OSError()) == FIRST
    assert series.next_wait(OSError()) is None
    assert Series(None).after_fall(LONG).wait_after_fall(NameError()) is None
    assert Series(None).after_fall(SOON).wait_after_fall(OSError()) is None


@pytest.mark.parametrize("wait", [nan, -1.0, -inf])
def test_a_wait_has_to_be_a_number_of_seconds(wait: float) -> None:
    """What a strategy returns is judged before anybody waits for it."""
    with pytest.raises(ValueError, match="must return seconds, 0 or more"):
        Series(Retry(wait=lambda _: wait)).next_wait(OSError())


def test_a_wait_without_end_is_allowed() -> None:
    """It ends with `retry_now` only."""
    assert Series(Retry(wait=lambda _: inf)).next_wait(OSError()) == inf


def test_the_next_wait_can_be_left_out() -> None:
    """Once: the one after that is the policy's again."""
    series = Series(Retry(wait=tenacity.wait_fixed(3)))
    series.begin()
    series.hurry()
    assert series.next_wait(OSError()) == 0
    series.begin()
    assert series.next_wait(OSError()) == 3


def test_a_panic_is_permanent() -> None:
    """What is no `Exception` is never tried again, whatever the policy says."""
    for error in (Panic(), BaseExceptionGroup("group", [Panic(), OSError()])):
        assert is_permanent(error)
        assert is_unexpected(error)
        always = Retry(when=tenacity.retry_if_exception_type(BaseException))
        assert Series(always).next_wait(error) is None


class Panic(BaseException):
    """What pyo3 makes of a panic in Rust."""
