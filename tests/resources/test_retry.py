"""Whether and when another attempt follows, as arithmetic."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from asgi_lifespan_guard import (
    AppCannotRestartError,
    ConfigurationError,
    FactoryError,
    Retry,
    StateKeyClashError,
)
from asgi_lifespan_guard._resources.retry import (
    CAP,
    FIRST,
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
        assert state.seconds_since_start >= 0
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


def test_a_long_run_is_no_attempt() -> None:
    """What ended it is followed by the first wait; the budget is whole afterwards."""
    retry = Retry(
        wait=tenacity.wait_incrementing(1, 2), stop=tenacity.stop_after_attempt(3)
    )
    series = Series(retry)
    assert series.wait_uncounted(OSError()) == 1
    assert series.attempt == 1
    series.begin()
    assert [series.next_wait(OSError()) for _ in range(3)] == [1, 3, None]


def test_after_a_long_run_the_policy_is_asked_whether() -> None:
    """Permanent errors and those that it does not want end it even then."""
    retry = Retry(when=tenacity.retry_if_exception_type(OSError))
    assert Series(retry).wait_uncounted(OSError()) is not None
    assert Series(retry).wait_uncounted(KeyError()) is None
    for error in HOPELESS:
        assert Series(retry).wait_uncounted(error) is None
        assert Series(None).wait_uncounted(error) is None


def test_a_single_attempt_is_allowed_again_after_a_long_run() -> None:
    """`retry=None` is about opening: what ran for long may be opened once more."""
    series = Series(None)
    assert series.wait_uncounted(OSError()) == FIRST
    assert series.next_wait(OSError()) is None
    assert Series(None).wait_uncounted(NameError()) is None
