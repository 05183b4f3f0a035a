"""Telling every observer of every event, in the same order, whatever they do."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterable
from typing import Any

from .._errors import ConfigurationError
from .._tasks.backend import must_pass
from ..events import Event, Observer
from .logging import is_logged, log_critical, log_failure


MOST_AT_ONCE = 1000
"""Events that may follow one from another before they are taken for an endless row."""


class Observers:
    """Tells the log, and then the *given* observers, of each event.

    An observer that raises is logged, and stops nobody. An event that happens while
    another one is told waits until everybody has heard of that one.

    Args:
        own: The log's.
        given: The user's.

    Raises:
        ConfigurationError: When one of them is none.
    """

    def __init__(self, own: Observer, given: Iterable[Observer]) -> None:
        self._observers = (own, *_checked(given))
        self._ahead: deque[Event] = deque()
        self._is_telling = False

    def hears(self, kind: type[Event]) -> bool:
        """Whether anybody would do anything with an event of *kind*."""
        return len(self._observers) > 1 or is_logged(kind)

    def __call__(self, event: Event, /) -> None:
        """Tell everybody of *event*, at once or as soon as it is its turn."""
        self._ahead.append(event)
        if self._is_telling:
            return
        self._is_telling = True
        try:
            self._tell_all()
        finally:
            self._is_telling = False

    def _tell_all(self) -> None:
        """Tell of what is ahead; then raise what may not be kept, if there was any."""
        passing: BaseException | None = None
        told = 0
        while self._ahead and told < MOST_AT_ONCE:
            event = self._ahead.popleft()
            told += 1
            for observer in self._observers:
                try:
                    observer(event)
                except BaseException as error:
                    if must_pass(error):
                        passing = passing or error
                    else:
                        log_failure(observer, event, error)
        if self._ahead:
            self._ahead.clear()
            log_critical(
                f"an observer answers each event with another one: after {told} in a"
                " row the rest was dropped"
            )
        if passing is not None:
            raise passing


def _checked(given: Iterable[Observer]) -> tuple[Observer, ...]:
    try:
        observers: tuple[Any, ...] = tuple(given)
    except TypeError:
        raise ConfigurationError(
            f"LifespanGuard(observers={given!r}): must be a list of observers"
        ) from None
    for observer in observers:
        if not callable(observer) or isinstance(observer, type):
            raise ConfigurationError(
                f"LifespanGuard(observers=[{observer!r}]): must be a callable that"
                " takes an event"
            )
        if _is_async(observer):
            raise ConfigurationError(
                f"LifespanGuard(observers=[{observer!r}]): is async, and nobody would"
                " await it; give a plain function, which may start a task or fill a"
                " queue"
            )
    return observers


def _is_async(observer: Any) -> bool:
    """Whether calling it only makes something that has to be awaited or iterated."""
    call = getattr(observer, "__call__", None)  # noqa: B004 - an instance's method
    return any(
        asks(candidate)
        for candidate in (observer, call)
        for asks in (
            inspect.iscoroutinefunction,
            inspect.isasyncgenfunction,
            inspect.isgeneratorfunction,
        )
    )
