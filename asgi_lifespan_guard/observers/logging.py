"""The observer that every guard has: one line for each fact.

Logger ``asgi_lifespan_guard``. A record's ``msg`` is the same for all facts of a kind,
its ``args`` are the event's fields; they are in its ``extra``, too, as a plain dict
under the one key ``asgi_lifespan_guard``. Texts are redacted, tracebacks too. The lines
that operators grep for ("Application startup complete") stay the server's.

uvicorn sets up no handler for loggers that are not its own, and of those Python prints
WARNING and above. So what was announced at that level is announced as mended at it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import islice
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING, getLogger
from typing import NamedTuple

from .._errors import CrashedError, NeedGaveUpError, StopRequestedError, culprits
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
from ._outages import Outage, Outages
from ._places import needs_traceback, place_of


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

    def if_news(self, is_news: bool) -> Line:
        """Return it, or, where that is no news, a line for those who debug."""
        return self if is_news else self._replace(level=DEBUG)


LINES: Mapping[type[Event], Line] = {
    PhaseChanged: Line(DEBUG, "%(old)s -> %(new)s"),
    ResourcePhaseChanged: Line(DEBUG, "%(resource)s: %(old)s -> %(new)s"),
    AttemptFailed: Line(
        WARNING,
        "%(resource)s: attempt %(attempt)d failed%(at)s, next in %(wait).2f s:"
        " %(error)s",
    ),
    ResourceOpened: Line(
        WARNING, "%(resource)s: up again after %(tries)s, %(seconds)s s"
    ),
    ResourceSkipped: Line(INFO, "%(resource)s: skipped, not enabled"),
    ResourceCrashed: Line(ERROR, "%(resource)s: crashed%(at)s: %(error)s"),
    CheckFailed: Line(
        WARNING, "%(resource)s: check failed (%(in_a_row)d)%(at)s: %(error)s"
    ),
    ResourceDown: Line(ERROR, "%(resource)s: down%(at)s: %(error)s"),
    ResourceRecovered: Line(WARNING, "%(resource)s: recovered after %(seconds)s s"),
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
        DEBUG,
        "%(path)s: refused after %(waited).3f s, %(reason)s"
        " (retry after %(retry_after)s s)",
    ),
    LifespanMissing: Line(
        WARNING,
        "%(path)s: refused, because the server has not run the app's lifespan, so that"
        " nothing is opened: turn it on (uvicorn --lifespan on), or say"
        " LifespanGuard(..., lazy_start=True)",
    ),
    Paused: Line(WARNING, "paused: %(reason)s"),
    Resumed: Line(WARNING, "resumed"),
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

_UP = Line(INFO, "%(resource)s: up after %(duration).3f s (attempt %(attempt)d)")
_UP_AT_LAST = "%(resource)s: up after %(tries)s, %(seconds)s s"
_NEED_GAVE_UP = Line(ERROR, "%(resource)s: gave up: %(error)s")
_PERMANENT = (
    "%(resource)s: gave up after %(attempts)d attempt(s), a permanent error%(at)s:"
    " %(error)s"
)
_STARTUP_STOPPED = Line(INFO, "%(error)s")
_NO_LIFESPAN = Line(INFO, "the app has no lifespan of its own")
_REFUSED_LIFESPAN = Line(INFO, "the app has no lifespan of its own (%(error)s)")


class Log:
    """The observer; it remembers what it has told, so that it can be brief.

    Whatever goes on and on is told at its 1st, 2nd, 4th, 8th ... time, then once a
    minute, and otherwise at DEBUG.

    Args:
        quiet: Whether the app's lifespan is forwarded as it is: that it has started and
            shut down is said by the server's own lines, then.
        clock: Seconds, on any clock that only goes forward.
    """

    def __init__(
        self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._quiet = quiet
        self._outages = Outages(clock)

    def __call__(self, event: Event, /) -> None:
        """Write *event* to the log."""
        is_news = self._outages.hear(event)
        match event:
            case AttemptFailed() | CheckFailed() | ResourceDown() | ResourceCrashed():
                self._tell_failure(event, is_news=is_news)
            case ResourceOpened():
                self._tell_it_is_up(event, self._outages.end(event.resource))
            case ResourceRecovered():
                outage = self._outages.end(event.resource)
                _write_line(event, LINES[ResourceRecovered], _over(outage))
            case ResourceGaveUp():
                _write_line(event, _line(event), _at(place_of(event.error)))
            case _:
                if isinstance(event, ResourceClosed) and self._is_servers(event):
                    is_news = False
                _write_line(event, _line(event).if_news(is_news))

    def _tell_failure(
        self,
        event: AttemptFailed | CheckFailed | ResourceDown | ResourceCrashed,
        *,
        is_news: bool,
    ) -> None:
        """Tell of it at its turn; where it is from, the first time that it is so."""
        if not is_logged(type(event)):
            return
        error, crashed = event.error, isinstance(event, ResourceCrashed)
        place = place_of(error)
        kinds = {type(culprit).__qualname__ for culprit in islice(culprits(error), 5)}
        kind = (crashed, place, frozenset(kinds))
        is_first = self._outages.is_new(event.resource, kind)
        odd = isinstance(event, AttemptFailed) and event.unexpected
        line = _line(event).if_news(is_news or is_first)
        shows = is_first and (crashed or odd or needs_traceback(error))
        more = _at(place, in_text=is_first)
        _write_line(event, line._replace(traceback=shows), more)

    def _tell_it_is_up(self, event: ResourceOpened, outage: Outage) -> None:
        line = LINES[ResourceOpened]
        if not outage.told:
            quiet = self._is_servers(event) and event.attempt == 1
            _write_line(event, _UP.if_news(not quiet))
        else:
            if not outage.again:
                line = line._replace(template=_UP_AT_LAST)
            _write_line(event, line, _over(outage))

    def _is_servers(self, event: ResourceOpened | ResourceClosed) -> bool:
        """Whether the server says as much in a line of its own."""
        return self._quiet and event.resource == APP


class More(NamedTuple):
    """What a line says beyond its event.

    Attributes:
        fields: For programs.
        text: For people: parts of the template.
    """

    fields: Mapping[str, object]
    text: Mapping[str, object]


_NO_MORE = More({}, {})


def _at(place: str | None, *, in_text: bool = True) -> More:
    text = f" in {place}" if in_text and place else ""
    return More({"where": place}, {"at": text})


def _over(outage: Outage) -> More:
    count, seconds = outage.attempts, outage.seconds
    text = {
        "tries": "1 attempt" if count == 1 else f"{count} attempts",
        "seconds": f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}",
    }
    return More({"attempts": count, "outage": round(seconds, 3)}, text)


def is_logged(kind: type[Event]) -> bool:
    """Whether events of *kind* may be written to the log, as it is set up now."""
    # What stands for a row has no higher level than the row.
    return logger.isEnabledFor(LINES[kind].level)


def _write_line(event: Event, line: Line, more: More = _NO_MORE) -> None:
    if logger.isEnabledFor(line.level):
        error = getattr(event, "error", None) if line.traceback else None
        fields = {**_presentable(event), **more.fields}
        _write(line.level, line.template, fields, error, more.text)


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
            return line.if_news(not _is_no_news(event))
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
    level: int,
    template: str,
    fields: Mapping[str, object],
    error: BaseException | None,
    text: Mapping[str, object] | None = None,
) -> None:
    # The traceback goes in as text, because a formatter that is given the exception
    # itself prints the messages inside it as they are; and into the fields, because
    # structlog's formatter drops the text.
    shown = None if error is None else render_traceback(error)
    extra = {KEY: {**fields} if shown is None else {**fields, "traceback": shown}}
    args = ({**fields, **(text or {})},)
    record = logger.makeRecord(
        logger.name, level, "(guard)", 0, template, args, None, None, extra
    )
    record.exc_text = shown
    logger.handle(record)
