"""What a user may set on a guard: frozen, and judged when it is built."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, fields
from types import MappingProxyType
from typing import Any, Protocol

from ._errors import ConfigurationError
from ._frozen import Frozen


class Named(Protocol):
    """Anything with a name; a `Resource`, seen from where resources are unknown."""

    @property
    def name(self) -> str: ...


MOST = 1e10
"""Seconds that no timeout reaches: some three hundred years. Clocks overflow later."""


def check_seconds(owner: str, option: str, value: object, *, zero: bool = True) -> None:
    """Raise unless *value* is a finite number of seconds (above 0 unless *zero*).

    Raises:
        ConfigurationError: When it is anything else.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (value >= 0 if zero else value > 0) and value < MOST:  # type: ignore[operator]
        return
    least = "0 or more" if zero else "more than 0"
    raise ConfigurationError(
        f"{owner}({option}={value!r}): must be a number of seconds, {least}"
    )


def check_flag(owner: str, option: str, value: object) -> None:
    """Raise unless *value* is `True` or `False`: ``"no"`` would count as true.

    Raises:
        ConfigurationError: When it is anything else.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{owner}({option}={value!r}): must be True or False")


def check_path(owner: str, option: str, value: object) -> None:
    """Raise unless *value* is an absolute path without a query.

    Raises:
        ConfigurationError: When it is anything else.
    """
    good = isinstance(value, str) and value.startswith("/") and "?" not in value
    if not good:
        raise ConfigurationError(
            f"{owner}({option}={value!r}): must be a path that begins with '/'"
        )


class Gate(Frozen, kw_only=True):
    """How requests are treated while what they need is away.

    Attributes:
        wait: Seconds that a request is held for what it needs. 0: never held.
        max_waiting: How many requests are held at the same time, at most.
        needs: Path prefix → the exact set of resources that it needs, all others
            notwithstanding. ``()`` declares a path open. The longest prefix wins, on
            a segment boundary. Unlisted paths need every required resource.

    Raises:
        ConfigurationError: When a value is out of range.
    """

    wait: float = 5.0
    max_waiting: int = 1000
    needs: Mapping[str, Sequence[Named]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_seconds("Gate", "wait", self.wait)
        most: object = self.max_waiting
        if not isinstance(most, int) or most < 0:
            raise ConfigurationError(
                f"Gate(max_waiting={most!r}): must be a whole number, 0 or more"
            )
        for prefix, named in self.needs.items():
            check_path("Gate", "needs", prefix)
            _check_named(prefix, named)
        frozen = {prefix: tuple(named) for prefix, named in self.needs.items()}
        object.__setattr__(self, "needs", MappingProxyType(frozen))


def _check_named(prefix: str, named: Any) -> None:
    good = isinstance(named, Sequence) and not isinstance(named, str)
    if not good or any(not hasattr(item, "name") for item in named):
        raise ConfigurationError(
            f"Gate(needs={{{prefix!r}: {named!r}}}): give a list of resources (the"
            " objects that @resource made), or () for a path that needs none"
        )


class Drain(Frozen, kw_only=True):
    """What happens between the first signal to stop and the closing of resources.

    Attributes:
        delay: Seconds to go on serving, unready, after SIGTERM, so that a load
            balancer takes notice. Only uvicorn can be held back so; other servers
            stop at once, and the delay is left out there.
        grace: Seconds that requests in flight have to finish.
        endless: Path prefixes whose answers have no end, and are ended. GET requests
            that accept ``text/event-stream`` and WebSockets are known to be so.
        signals: Which signals begin the drain.

    Raises:
        ConfigurationError: When a value is out of range.
    """

    delay: float = 0.0
    grace: float = 10.0
    endless: Sequence[str] = ()
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)

    def __post_init__(self) -> None:
        check_seconds("Drain", "delay", self.delay)
        check_seconds("Drain", "grace", self.grace)
        prefixes: object = self.endless
        if isinstance(prefixes, str):
            raise ConfigurationError(
                f"Drain(endless={prefixes!r}): must be a list of path prefixes"
            )
        for prefix in self.endless:
            check_path("Drain", "endless", prefix)
        _check_signals(self.signals)


def _check_signals(signals: Any) -> None:
    catchable = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    if isinstance(signals, Iterable) and all(sig in catchable for sig in signals):
        return
    raise ConfigurationError(
        f"Drain(signals={signals!r}): must be a list of signals that can be caught,"
        " such as signal.SIGTERM"
    )


class Probes(Frozen, kw_only=True):
    """Where the guard answers for itself.

    Attributes:
        live: Path of the liveness probe; ``None`` takes no path.
        ready: Path of the readiness probe, and of ``<ready>/<name>`` below it.
        startup: Path of the startup probe.
        details: Whether names, phases and (redacted) error texts may be shown to
            whoever asks. Without it there is a verdict alone, but for each resource
            whose name is asked for, too.

    Raises:
        ConfigurationError: When a path does not begin with "/" or is used twice, or
            *details* is no bool.
    """

    live: str | None = "/livez"
    ready: str | None = "/readyz"
    startup: str | None = "/startupz"
    details: bool = False

    def __post_init__(self) -> None:
        check_flag("Probes", "details", self.details)
        paths = [
            (f.name, getattr(self, f.name)) for f in fields(self) if f.name != "details"
        ]
        taken = [(option, path) for option, path in paths if path is not None]
        for option, path in taken:
            check_path("Probes", option, path)
        if len({path for _, path in taken}) < len(taken):
            raise ConfigurationError(f"{self!r}: two probes cannot share one path")
