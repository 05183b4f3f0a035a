"""A guard around the app that the environment names, without any code change.

``LIFESPAN_GUARD_APP=main:app uvicorn asgi_lifespan_guard.auto:app``

==============================  =====================================================
``LIFESPAN_GUARD_APP``          ``module:attribute``; required
``LIFESPAN_GUARD_FACTORY``      ``1``: it names a callable that makes the app
``LIFESPAN_GUARD_APP_LIFESPAN``  ``background`` or ``off``
``LIFESPAN_GUARD_WAIT``         seconds that a request is held
``LIFESPAN_GUARD_MAX_WAITING``  requests held at the same time, at most
``LIFESPAN_GUARD_LIVE``         path of the liveness probe; empty: none
``LIFESPAN_GUARD_READY``        path of the readiness probe; empty: none
``LIFESPAN_GUARD_STARTUP``      path of the startup probe; empty: none
``LIFESPAN_GUARD_DETAILS``      ``1``: probes may show names and errors
``LIFESPAN_GUARD_DELAY``        seconds to go on serving after SIGTERM
``LIFESPAN_GUARD_GRACE``        seconds that requests in flight have to finish
``LIFESPAN_GUARD_ENDLESS``      path prefixes without an end, separated by commas
``LIFESPAN_GUARD_SHUTDOWN_TIMEOUT``  seconds for closing everything
==============================  =====================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ._asgi.loading import is_import_string
from ._errors import ConfigurationError
from ._guard import LifespanGuard
from ._settings import Drain, Gate, Probes
from .observers.logging import log_critical


T = TypeVar("T")

PREFIX = "LIFESPAN_GUARD_"

_SERVICE_LINK = (
    r"\w+_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?"
    r"|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes tells of a Service, such as ``lifespan-guard``, in variables."""


def guard_from(environ: Mapping[str, str]) -> LifespanGuard:
    """Return the guard that *environ* describes.

    Raises:
        ConfigurationError: When the app is not named, a value is malformed, or a
            variable with our prefix is none of ours. Logged as CRITICAL, too. What
            Kubernetes sets in every pod for a Service of a like name is left alone.
    """
    try:
        arguments = _arguments(environ)
    except ConfigurationError as error:
        log_critical(str(error))
        raise
    return LifespanGuard(**arguments)


def _arguments(environ: Mapping[str, str]) -> dict[str, Any]:
    given = {
        name.removeprefix(PREFIX): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and not re.fullmatch(_SERVICE_LINK, name)
    }
    _check_known(given)
    if not given.get("APP"):
        raise ConfigurationError(
            f"{PREFIX}APP is not set; it names the app to be guarded, such as"
            f" {PREFIX}APP=main:app"
        )
    return {
        "app": _value(given, "APP", _import_string),
        "app_factory": _value(given, "FACTORY", _flag) or False,
        "gate": Gate(**_options(given, _GATE)),
        "probes": Probes(**_options(given, _PROBES)),
        "drain": Drain(**_options(given, _DRAIN)),
        **_options(given, _GUARD),
    }


def _import_string(text: str) -> str:
    if not is_import_string(text):
        raise ValueError(text)
    return text


def _flag(text: str) -> bool:
    return {"1": True, "true": True, "0": False, "false": False, "": False}[
        text.lower()
    ]


def _app_lifespan(text: str) -> str:
    # "blocking" would be before the port opens, and the app is imported after that.
    if text not in ("background", "off"):
        raise ValueError(text)
    return text


def _path(text: str) -> str | None:
    return text or None


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


_GATE: Mapping[str, Callable[[str], Any]] = {"WAIT": float, "MAX_WAITING": int}
_PROBES: Mapping[str, Callable[[str], Any]] = {
    "LIVE": _path,
    "READY": _path,
    "STARTUP": _path,
    "DETAILS": _flag,
}
_DRAIN: Mapping[str, Callable[[str], Any]] = {
    "DELAY": float,
    "GRACE": float,
    "ENDLESS": _list,
}
_GUARD: Mapping[str, Callable[[str], Any]] = {
    "APP_LIFESPAN": _app_lifespan,
    "SHUTDOWN_TIMEOUT": float,
}
_KINDS: Mapping[Callable[[str], Any], str] = {
    float: "a number of seconds",
    int: "a whole number",
    _flag: "1 or 0",
    _import_string: "'module:attribute', such as main:app",
    _app_lifespan: (
        "background or off (blocking it cannot be: the app is imported behind the open"
        " port)"
    ),
}
_KNOWN = frozenset({"APP", "FACTORY", *_GATE, *_PROBES, *_DRAIN, *_GUARD})


def _check_known(given: Mapping[str, str]) -> None:
    unknown = sorted(given.keys() - _KNOWN)
    if unknown:
        raise ConfigurationError(
            f"{PREFIX}{unknown[0]} is no setting; there are"
            f" {', '.join(PREFIX + name for name in sorted(_KNOWN))}"
        )


def _options(
    given: Mapping[str, str], table: Mapping[str, Callable[[str], Any]]
) -> dict[str, Any]:
    return {
        name.lower(): _value(given, name, parse)
        for name, parse in table.items()
        if name in given
    }


def _value(given: Mapping[str, str], name: str, parse: Callable[[str], T]) -> T | None:
    if name not in given:
        return None
    try:
        return parse(given[name])
    except (ValueError, KeyError):
        raise ConfigurationError(
            f"{PREFIX}{name}={given[name]!r}: must be {_KINDS[parse]}"
        ) from None


# The app is in the module's own dict, where hypercorn looks for it; a mere import of
# the module raises nothing, wherever it comes from.
_mistake: ConfigurationError
try:
    app = guard_from(os.environ)
except ConfigurationError as error:
    _mistake = error


def __getattr__(name: str) -> Any:
    """Say why there is no ``app``.

    Raises:
        ConfigurationError: When the environment describes no guard.
        AttributeError: When something else was asked for.
    """
    if name == "app":
        raise _mistake
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
