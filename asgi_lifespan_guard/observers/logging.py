"""The observer that every guard has: one line for each fact.

Logger ``asgi_lifespan_guard``. A record's ``msg`` is the same for all facts of a kind,
its ``args`` are the event's fields; they are in its ``extra``, too, as a plain dict
under the one key ``asgi_lifespan_guard``. Texts are redacted, tracebacks too. The lines
that operators grep for ("Application startup complete") stay the server's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING, getLogger
from typing import NamedTuple

from .._errors import CrashedError, NeedGaveUpError, StopRequestedError
from .._redaction import describe, quote, redact, render_traceback, show
from .._state import APP
from ..events import (
    AttemptFailed,
    CheckFailed,
    CloseFailed,
    ConversationBroken,
    DrainBegun,
    DrainEnded,
    Event,
    GuardFailed,
    LifespanMissing,
    LifespanUnsupported,
    Paused,
    PhaseChanged,
    RequestAbandoned,
    RequestAdmitted,
    RequestCut,
    RequestHeld,
    RequestRefused,
    RequestStuck,
    ResourceClosed,
    ResourceCrashed,
    ResourceDown,
    ResourceGaveUp,
    ResourceOpened,
    ResourcePhaseChanged,
    ResourceRecovered,
    ResourceReopening,
    ResourceSkipped,
    Resumed,
    StartupFailed,
    StreamEnded,
)


logger = getLogger("asgi_lifespan_guard")

KEY = "asgi_lifespan_guard"
"""Where a record has the fields of its event."""


class Line(NamedTuple):
    """How a fact is told.

    Attributes:
        level: The record's level.
        template: Its text, with the event's fields in ``%(field)s``.
        traceback: Whether the traceback of the event's error follows.
    """

    level: int
    template: str
    traceback: bool = False


LINES: Mapping[type[Event], Line] = {
    PhaseChanged: Line(DEBUG, "%(old)s -> %(new)s"),
    ResourcePhaseChanged: Line(DEBUG, "%(resource)s: %(old)s -> %(new)s"),
    AttemptFailed: Line(
        WARNING,
        "%(resource)s: attempt %(attempt)d failed, next in %(wait).2f s: %(error)s",
    ),
    ResourceOpened: Line(
        INFO, "%(resource)s: up after %(duration).3f s (attempt %(attempt)d)"
    ),
    ResourceSkipped: Line(INFO, "%(resource)s: skipped, not enabled"),
    ResourceCrashed: Line(ERROR, "%(resource)s: crashed: %(error)s", traceback=True),
    CheckFailed: Line(WARNING, "%(resource)s: check failed (%(in_a_row)d): %(error)s"),
    ResourceDown: Line(ERROR, "%(resource)s: down: %(error)s"),
    ResourceRecovered: Line(INFO, "%(resource)s: recovered"),
    ResourceReopening: Line(INFO, "%(resource)s: reopening in %(wait).2f s"),
    ResourceGaveUp: Line(
        CRITICAL,
        "%(resource)s: gave up after %(attempts)d attempt(s),"
        " its retry policy allows no more: %(error)s",
        traceback=True,
    ),
    ResourceClosed: Line(INFO, "%(resource)s: closed after %(duration).3f s"),
    CloseFailed: Line(ERROR, "%(resource)s: closing failed: %(error)s", traceback=True),
    StartupFailed: Line(CRITICAL, "startup failed: %(error)s", traceback=True),
    GuardFailed: Line(
        CRITICAL,
        "the guard's lifespan was ended by %(error)s; what it held is closed",
        traceback=True,
    ),
    LifespanUnsupported: Line(
        WARNING,
        "the app raised when it was given its lifespan, and is served without one:"
        " %(error)s",
        traceback=True,
    ),
    ConversationBroken: Line(WARNING, "lifespan: %(problem)s"),
    RequestHeld: Line(DEBUG, "%(path)s: held"),
    RequestAdmitted: Line(DEBUG, "%(path)s: admitted after %(waited).3f s"),
    RequestAbandoned: Line(DEBUG, "%(path)s: the client left after %(waited).3f s"),
    RequestRefused: Line(
        DEBUG, "%(path)s: refused, %(reason)s (retry after %(retry_after)s s)"
    ),
    LifespanMissing: Line(
        WARNING,
        "%(path)s: refused, because the server has not run the app's lifespan, so that"
        " nothing is opened: turn it on (uvicorn --lifespan on), or say"
        " LifespanGuard(..., lazy_start=True)",
    ),
    Paused: Line(WARNING, "paused: %(reason)s"),
    Resumed: Line(INFO, "resumed"),
    DrainBegun: Line(INFO, "draining (%(reason)s), %(in_flight)d in flight"),
    StreamEnded: Line(DEBUG, "%(path)s: ended"),
    RequestCut: Line(
        WARNING, "%(path)s: cut, still running %(after).3f s into the drain"
    ),
    RequestStuck: Line(
        ERROR,
        "%(path)s: stuck, running for %(age).1f s at least; it does not end when it is"
        " cancelled",
    ),
    DrainEnded: Line(INFO, "drained after %(duration).3f s, %(left)d left behind"),
}

_NEED_GAVE_UP = Line(ERROR, "%(resource)s: gave up: %(error)s")
_PERMANENT = (
    "%(resource)s: gave up after %(attempts)d attempt(s), a permanent error: %(error)s"
)
_STARTUP_STOPPED = Line(INFO, "%(error)s")
_NO_LIFESPAN = Line(INFO, "the app has no lifespan of its own")
_REFUSED_LIFESPAN = Line(INFO, "the app has no lifespan of its own (%(error)s)")


def is_logged(kind: type[Event]) -> bool:
    """Whether events of *kind* may be written to the log, as it is set up now."""
    # What stands for a row has no higher level than the row.
    return logger.isEnabledFor(LINES[kind].level)


def log(event: Event) -> None:
    """Write *event* to the log."""
    if is_logged(type(event)):
        _write_line(event, _line(event))


def _write_line(event: Event, line: Line) -> None:
    if logger.isEnabledFor(line.level):
        error = getattr(event, "error", None) if line.traceback else None
        _write(line.level, line.template, _presentable(event), error)


def log_quietly(event: Event) -> None:
    """Write *event*, for an app whose lifespan is forwarded as it is.

    That it has started and shut down is said by the server's own lines.
    """
    match event:
        case ResourceOpened(resource=name, attempt=1) | ResourceClosed(resource=name):
            quiet = name == APP
        case _:
            quiet = False
    if quiet:
        _write_line(event, LINES[type(event)]._replace(level=DEBUG))
    else:
        log(event)


def log_critical(text: str) -> None:
    """Write *text*, redacted, at the level CRITICAL."""
    logger.critical("%s", redact(text))


def log_failure(observer: object, event: Event, error: BaseException) -> None:
    """Write that *observer* raised *error* when it was told of *event*."""
    if logger.isEnabledFor(ERROR):
        fields: dict[str, object] = {
            "event": type(event).__name__,
            "observer": quote(redact(show(observer, repr))),
            "error": describe(error),
        }
        text = "observer %(observer)s failed on %(event)s: %(error)s"
        _write(ERROR, text, fields, error)


def _line(event: Event) -> Line:
    """Return the row of *event*, or what stands for it in this case."""
    line = LINES[type(event)]
    match event:
        case AttemptFailed(unexpected=True):
            return line._replace(traceback=True)
        case CheckFailed(in_a_row=in_a_row) if in_a_row > 1:
            return line._replace(level=DEBUG)
        case ResourceDown(error=CrashedError()):
            return line._replace(level=WARNING)  # Its cause follows, as an ERROR.
        case ResourceGaveUp(error=NeedGaveUpError()):
            return _NEED_GAVE_UP
        case ResourceGaveUp(permanent=permanent, required=required):
            return Line(
                CRITICAL if required else ERROR,
                _PERMANENT if permanent else line.template,
                traceback=True,
            )
        case StartupFailed(error=StopRequestedError()):
            return _STARTUP_STOPPED
        case StartupFailed(reported=True):
            return line._replace(traceback=False)
        case LifespanUnsupported(unexpected=False, error=error):
            return _REFUSED_LIFESPAN if error else _NO_LIFESPAN
        case DrainBegun() | DrainEnded():
            return line._replace(level=DEBUG) if _is_no_news(event) else line
        case _:
            return line


BRIEF = 1.0
"""Seconds of a drain that nobody needs to hear of, where nothing was in flight."""


def _is_no_news(event: DrainBegun | DrainEnded) -> bool:
    """Whether the server has said it, and there was nothing to let out."""
    if isinstance(event, DrainBegun):
        return event.reason == "shutdown" and not event.in_flight
    return not event.in_flight and event.duration < BRIEF


def _presentable(event: Event) -> dict[str, object]:
    """Return the fields of *event* as what may be shown, and what JSON can hold."""
    shown = {name: _shown(value) for name, value in vars(event).items()}
    return {"event": type(event).__name__, **shown}


def _shown(value: object) -> object:
    match value:
        case StopRequestedError():  # Nothing failed: it has no need of its name.
            return quote(redact(str(value)))
        case BaseException():
            return describe(value)
        case Enum():
            return value.value
        case str():  # A path may hold anything: it was asked for by a stranger.
            return quote(redact(value))
        case _:
            return value


def _write(
    level: int, template: str, fields: dict[str, object], error: BaseException | None
) -> None:
    # The traceback goes in as text, because a formatter that is given the exception
    # itself prints the messages inside it as they are.
    extra = {KEY: dict(fields)}
    record = logger.makeRecord(
        logger.name, level, "(guard)", 0, template, (fields,), None, None, extra
    )
    if error is not None:
        record.exc_text = render_traceback(error)
    logger.handle(record)
