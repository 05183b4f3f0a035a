"""Whether and when a failed attempt is followed by another, as arithmetic.

tenacity's strategies say it and tenacity drives them; only the sleeping is ours,
because a stop must end it at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._errors import (
    AppCannotRestartError,
    AppLifespanError,
    ConfigurationError,
    FactoryError,
    StateKeyClashError,
)
from .._redaction import leaves


if TYPE_CHECKING:
    from typing import TypeAlias

    from tenacity import RetryCallState, Retrying

    Wait: TypeAlias = Callable[[RetryCallState], float]
    Predicate: TypeAlias = Callable[[RetryCallState], bool]

CAP = 5.0
FIRST = 0.25

_HOPELESS = (FactoryError, AppCannotRestartError, StateKeyClashError)
_PERMANENT = (
    *_HOPELESS,
    NameError,
    SyntaxError,
    ImportError,
    NotImplementedError,
)
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
    is.
    """
    return any(isinstance(culprit, _PERMANENT) for culprit in _culprits(error))


def is_hopeless(error: BaseException) -> bool:
    """Whether no policy, the user's included, may ask for another attempt."""
    return any(isinstance(leaf, _HOPELESS) for leaf in leaves(error))


def is_unexpected(error: BaseException) -> bool:
    """Whether *error* deserves its traceback: the program may well be at fault."""
    suspicious = (*_PERMANENT, *_SUSPICIOUS)
    return any(isinstance(culprit, suspicious) for culprit in _culprits(error))


def _culprits(error: BaseException) -> Iterator[BaseException]:
    """Yield the leaves of a group; for an app's lifespan, of what the app raised."""
    for leaf in leaves(error):
        if isinstance(leaf, AppLifespanError) and leaf.cause is not None:
            yield from leaves(leaf.cause)
        else:
            yield leaf


def _never(_state: RetryCallState) -> bool:
    return False


def _transient(state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return isinstance(error, Exception) and not is_permanent(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
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
    """The attempts from one time that a resource was asked for until it is up.

    Args:
        policy: The resource's; ``None`` allows one attempt.
    """

    __slots__ = ("_policy", "_retrying", "_started", "_state", "attempt")

    def __init__(self, policy: Retry | None) -> None:
        self._policy = policy
        self._started: float | None = None
        self._retrying: Any = None
        self._state: Any = None
        self.attempt = 1

    def begin(self) -> None:
        """Have the time count from now, if no attempt was made before."""
        if self._started is None:
            self._started = time.monotonic()

    def next_wait(self, error: Exception) -> float | None:
        """Return the seconds until the next attempt after *error*; ``None``: never."""
        if self._policy is None or is_hopeless(error):
            return None
        wait = self._ask_tenacity(self._policy, error)
        if wait is not None:
            self.attempt += 1
        return wait

    def wait_uncounted(self, error: Exception) -> float | None:
        """Return the seconds until the first attempt, after *error* ended a long run.

        The run was no attempt, so the budget is whole; ``None``: *error* is permanent.
        """
        if is_hopeless(error):
            return None
        if self._policy is None:
            return None if is_permanent(error) else FIRST
        self._begin(self._policy)
        self._state.set_exception((type(error), error, error.__traceback__))
        wanted = self._policy.when(self._state)
        wait = float(self._policy.wait(self._state)) if wanted else None
        self._retrying = None
        return wait

    def _ask_tenacity(self, policy: Retry, error: Exception) -> float | None:
        from tenacity import DoSleep

        retrying = self._retrying or self._begin(policy)
        self._state.set_exception((type(error), error, error.__traceback__))
        try:
            told = retrying.iter(retry_state=self._state)
        except BaseException as raised:
            if raised is not error:
                raise
            return None
        assert isinstance(told, DoSleep)
        self._state.prepare_for_next_attempt()
        return float(told)

    def _begin(self, policy: Retry) -> Retrying:
        from tenacity import RetryCallState, Retrying

        retrying = Retrying(
            wait=policy.wait, stop=policy.stop, retry=policy.when, reraise=True
        )
        retrying.begin()
        self._retrying = retrying
        self._state = RetryCallState(retrying, None, (), {})
        self._state.start_time = self._started or self._state.start_time
        return retrying
