"""Whether and when a failed attempt is followed by another, as arithmetic.

tenacity's strategies say it and tenacity drives them; only the sleeping is ours,
because a stop must end it at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._errors import (
    AppCannotRestartError,
    CheckFailedError,
    ConfigurationError,
    CrashedError,
    FactoryError,
    StateKeyClashError,
    culprits,
)
from .._frozen import Frozen


if TYPE_CHECKING:
    from typing import TypeAlias

    from tenacity import RetryCallState

    Wait: TypeAlias = Callable[[RetryCallState], float]
    Predicate: TypeAlias = Callable[[RetryCallState], bool]

CAP = 5.0
FIRST = 0.25
LONG_ENOUGH = CAP
"""Seconds up after which coming down is an outage, and not a part of the last one."""

_HOPELESS = (
    ConfigurationError,
    FactoryError,
    AppCannotRestartError,
    StateKeyClashError,
)
_PERMANENT = (
    *_HOPELESS,
    NameError,
    SyntaxError,
    ImportError,
    NotImplementedError,
)
# What we found out ourselves, and the user's predicate was not written for.
_OURS = (CheckFailedError, CrashedError)
# Drivers raise these on malformed answers, so they are retried; but most often they
# are mistakes of the program, so the first one is shown with its traceback.
_SUSPICIOUS = (TypeError, AttributeError, AssertionError)


def equal_jitter(state: RetryCallState) -> float:
    """Wait ``uniform(c/2, c)`` seconds, ``c = min(5, 0.25·2^min(n-1, 5))``.

    Half of the wait is certain, so that a herd's load stays bounded; half is random,
    so that it does not come back in step. The exponent is capped because ``2.0**n``
    overflows after some hours of attempts.
    """
    ceiling = min(CAP, FIRST * 2.0 ** min(state.attempt_number - 1, 5))
    return random.uniform(ceiling / 2, ceiling)


def is_permanent(error: BaseException) -> bool:
    """Whether *error* says that the program is wrong: another attempt cannot help.

    A group is permanent if one of its leaves is, an app's lifespan if what it raised
    is. What is no `Exception` (a Rust panic) is.
    """
    return any(_is_permanent(culprit) for culprit in culprits(error))


def is_hopeless(error: BaseException) -> bool:
    """Whether no policy, the user's included, may ask for another attempt."""
    return any(
        isinstance(culprit, _HOPELESS) or not isinstance(culprit, Exception)
        for culprit in culprits(error)
    )


def is_unexpected(error: BaseException) -> bool:
    """Whether *error* deserves its traceback: the program may well be at fault."""
    return any(
        _is_permanent(culprit) or isinstance(culprit, _SUSPICIOUS)
        for culprit in culprits(error)
    )


def _is_permanent(culprit: BaseException) -> bool:
    return isinstance(culprit, _PERMANENT) or not isinstance(culprit, Exception)


def _never(_state: RetryCallState) -> bool:
    """Never stop."""
    return False


def _transient(state: RetryCallState) -> bool:
    """Retry what the world may have done."""
    error = state.outcome.exception() if state.outcome else None
    return isinstance(error, Exception) and not is_permanent(error)


class Retry(Frozen, kw_only=True):
    """When a resource that did not open is tried again; tenacity strategies.

    Attributes:
        wait: Seconds before the next attempt: ``tenacity.wait_*``, or any callable
            from a ``RetryCallState``. Default: equal jitter, capped at 5 s.
        stop: When the budget is spent: ``tenacity.stop_*``. Default: never.
        when: Which outcomes are worth another attempt: ``tenacity.retry_if_*``.
            Default: every ``Exception`` but ``NameError``, ``SyntaxError``,
            ``ImportError`` and ``NotImplementedError``.

    Raises:
        ConfigurationError: When one of them cannot be called.
    """

    wait: Wait = equal_jitter
    stop: Predicate = _never
    when: Predicate = _transient

    def __post_init__(self) -> None:
        for option in ("wait", "stop", "when"):
            strategy = getattr(self, option)
            if not callable(strategy):
                raise ConfigurationError(
                    f"Retry({option}={strategy!r}): must be a tenacity strategy, such"
                    " as tenacity.wait_fixed(1), tenacity.stop_after_attempt(5) or"
                    " tenacity.retry_if_exception_type(OSError)"
                )


class Series:
    """The attempts from the time when a resource is wanted until it is up.

    Args:
        policy: The resource's; ``None`` allows one attempt.
        falls: How many times in a row it has come down soon after it had come up.

    Attributes:
        attempt: The number of the attempt that is on, or comes next, from 1.
    """

    __slots__ = (
        "_began",
        "_down_since",
        "_falls",
        "_hurried",
        "_policy",
        "_retrying",
        "_state",
        "attempt",
    )

    def __init__(self, policy: Retry | None, falls: int = 0) -> None:
        self._policy = policy
        self._falls = falls
        self._down_since: float | None = None
        self._retrying: Any = None
        self._state: Any = None
        self._began: float | None = None
        self._hurried = False
        self.attempt = max(1, falls)

    def begin(self) -> int:
        """Have the time count from now, if it does not yet; return the attempt."""
        self._hurried = False
        if self._began is None:
            self._began = time.monotonic()
        return self.attempt

    def hurry(self) -> None:
        """Leave out the wait after the attempt that is on."""
        self._hurried = True

    def next_wait(self, error: BaseException) -> float | None:
        """Return the seconds until the next attempt after *error*; ``None``: never.

        Raises:
            Exception: What a strategy raised.
            ValueError: When one gave something that is no number of seconds.
        """
        if self._policy is None or is_hopeless(error):
            return None
        self._start()
        wait = self._ask_tenacity(error)
        if wait is None:
            return None
        self.attempt += 1
        return 0.0 if self._hurried else self._shortened(wait)

    def _shortened(self, wait: float) -> float:
        """Return *wait*, but no more than half of the outage so far.

        So that the end of a short outage is noticed shortly after it. A wait of the
        user's own is left as it is, and so are those of a start, where there may be a
        thousand others.
        """
        policy = self._policy
        if (
            self._down_since is None
            or policy is None
            or policy.wait is not equal_jitter
        ):
            return wait
        return min(wait, max(FIRST, (time.monotonic() - self._down_since) / 2))

    def after_fall(self, lasted: float) -> Series:
        """Return the series that follows when it came down, *lasted* seconds up.

        Having been up is no attempt: the budget is whole again, and its time counts
        from now. But one that comes down again and again is kept from spinning.
        """
        soon = lasted < LONG_ENOUGH
        series = Series(self._policy, self._falls + 1 if soon else 0)
        series.begin()
        series._down_since = None if series._falls > 1 else series._began
        return series

    def wait_after_fall(self, error: BaseException) -> float | None:
        """Return the seconds until it is opened again; ``None``: never.

        Raises:
            Exception: As `next_wait`.
        """
        if self._falls > 1:
            return self.next_wait(error)
        if is_hopeless(error):
            return None
        if self._policy is None:
            return None if self._falls or is_permanent(error) else FIRST
        self._start()
        self._note(error)
        if not self._retrying.retry(self._state):
            return None
        return min(
            random.uniform(0.0, FIRST), _seconds(self._retrying.wait(self._state))
        )

    def _ask_tenacity(self, error: BaseException) -> float | None:
        from tenacity import DoSleep

        self._note(error)
        try:
            told = self._retrying.iter(retry_state=self._state)
        except BaseException as raised:
            if raised is not self._state.outcome.exception():
                raise
            return None
        assert isinstance(told, DoSleep)
        self._state.prepare_for_next_attempt()
        return _seconds(told)

    def _note(self, error: BaseException) -> None:
        shown = _as_one(error)
        self._state.set_exception((type(shown), shown, shown.__traceback__))

    def _start(self) -> None:
        policy = self._policy
        if policy is None or self._retrying is not None:
            return
        from tenacity import RetryCallState, Retrying

        def when(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            return isinstance(error, _OURS) or policy.when(state)

        retrying = Retrying(
            wait=policy.wait, stop=policy.stop, retry=when, reraise=True
        )
        retrying.begin()
        self._retrying = retrying
        self._state = RetryCallState(retrying, None, (), {})
        self._state.attempt_number = self.attempt
        self._state.start_time = self._began or self._state.start_time


class Pace:
    """A policy's waits without its end: what asks on while something is down.

    Args:
        policy: Of the resource; ``None``: the default waits.
        longest: Seconds that no wait exceeds.
    """

    __slots__ = ("_began", "_longest", "_policy", "_waits")

    def __init__(self, policy: Retry | None, longest: float) -> None:
        self._policy = policy or Retry()
        self._longest = longest
        self._waits = 0
        self._began = 0.0

    def next_wait(self, error: BaseException | None, now: float) -> float:
        """Return the seconds to wait after *error*, at *now* on any one clock.

        Never longer than half of the time that has passed since the first one, so that
        the end of a short outage is noticed shortly after it.
        """
        self._waits += 1
        if self._waits == 1:
            self._began = now
        most = max(FIRST, (now - self._began) / 2)
        return min(self._asked(error), most, self._longest)

    def _asked(self, error: BaseException | None) -> float:
        from tenacity import RetryCallState, Retrying

        policy = self._policy
        state = RetryCallState(Retrying(wait=policy.wait), None, (), {})
        state.attempt_number = self._waits
        if error is not None:
            state.set_exception((type(error), error, error.__traceback__))
        try:
            return _seconds(policy.wait(state))
        except Exception:  # of the user's; the next attempt to open tells of it
            return self._longest


def _seconds(told: object) -> float:
    """Return what a strategy said; inf is a wait that only `retry_now` ends.

    Raises:
        ValueError: When it is less than 0, or no number.
    """
    seconds = float(told)  # type: ignore[arg-type]
    if not seconds >= 0:
        raise ValueError(
            f"Retry(wait=...) returned {told!r}; it must return seconds, 0 or more"
        )
    return seconds


def _as_one(error: BaseException) -> BaseException:
    """Return what *error* is about, where it is about one thing only.

    A crash comes out of a task group as a group, and what an app's lifespan raised
    inside an error of ours; ``retry_if_exception_type(OSError)`` is meant for neither.
    """
    found = list(culprits(error))
    return found[0] if len(found) == 1 else error
