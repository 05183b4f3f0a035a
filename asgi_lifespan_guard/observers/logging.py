"""The observer that every guard has: one line for each fact.

Logger ``asgi_lifespan_guard``. The fields of an event are in the record's ``extra``,
and texts are redacted, tracebacks too. The lines that operators grep for ("Application
startup complete") stay the server's.
"""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import assert_never

from .._errors import NeedGaveUpError, StopRequestedError
from .._redaction import describe, redact, render_traceback
from ..events import (
    AttemptFailed,
    CheckFailed,
    CloseFailed,
    ConversationBroken,
    DrainBegun,
    DrainEnded,
    Event,
    GuardFailed,
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


logger = logging.getLogger("asgi_lifespan_guard")


_FREQUENT = (RequestHeld, RequestAdmitted, RequestAbandoned, RequestRefused)


def log(event: Event) -> None:
    """Write *event* to the log."""
    if isinstance(event, _FREQUENT) and not logger.isEnabledFor(logging.DEBUG):
        return
    level, text, error = _line(event)
    if logger.isEnabledFor(level):
        _write(level, redact(text), _extra(event), error)


def log_critical(text: str) -> None:
    """Write *text*, redacted, at the level CRITICAL."""
    logger.critical("%s", redact(text))


def log_failure(observer: object, event: Event, error: Exception) -> None:
    """Write that *observer* raised *error* when it was told of *event*."""
    kind = type(event).__name__
    text = redact(f"observer {observer!r} failed on {kind}: {describe(error)}")
    _write(logging.ERROR, text, {"event": kind}, error)


def _write(
    level: int, text: str, extra: dict[str, object], error: BaseException | None
) -> None:
    # The traceback goes in as text, because a formatter that is given the exception
    # itself prints the messages inside it as they are.
    record = logger.makeRecord(
        logger.name, level, "(guard)", 0, "%s", (text,), None, None, extra
    )
    if error is not None:
        record.exc_text = render_traceback(error)
    logger.handle(record)


def _extra(event: Event) -> dict[str, object]:
    extra: dict[str, object] = {"event": type(event).__name__}
    for field in fields(event):
        value = getattr(event, field.name)
        extra[field.name] = _presentable(value)
    return extra


def _presentable(value: object) -> object:
    if isinstance(value, BaseException):
        return describe(value)
    return redact(value) if isinstance(value, str) else value


def _line(event: Event) -> tuple[int, str, BaseException | None]:
    match event:
        case RequestHeld() | RequestAdmitted() | RequestAbandoned() | RequestRefused():
            return _request_line(event)
        case PhaseChanged(old, new):
            return logging.DEBUG, f"{old.value} -> {new.value}", None
        case LifespanUnsupported(_, error):
            return (
                logging.INFO,
                f"the app has no lifespan of its own{_why(error)}",
                None,
            )
        case ConversationBroken(problem):
            return logging.WARNING, f"lifespan: {problem}", None
        case StartupFailed(StopRequestedError() as error):
            return logging.INFO, str(error), None
        case StartupFailed(error, reported):
            shown = None if reported else error
            return logging.CRITICAL, f"startup failed: {describe(error)}", shown
        case GuardFailed(error):
            text = f"the guard's lifespan was ended by {describe(error)}"
            return logging.CRITICAL, text, error
        case Paused(reason):
            return logging.WARNING, f"paused: {reason}", None
        case Resumed():
            return logging.INFO, "resumed", None
        case (
            DrainBegun() | DrainEnded() | StreamEnded() | RequestCut() | RequestStuck()
        ):
            return _drain_line(event)
        case _:
            return _resource_line(event)


def _resource_line(
    event: AttemptFailed
    | CheckFailed
    | CloseFailed
    | ResourceClosed
    | ResourceCrashed
    | ResourceDown
    | ResourceGaveUp
    | ResourceOpened
    | ResourcePhaseChanged
    | ResourceRecovered
    | ResourceReopening
    | ResourceSkipped,
) -> tuple[int, str, BaseException | None]:
    name = event.resource
    match event:
        case ResourcePhaseChanged(_, old, new):
            return logging.DEBUG, f"{name}: {old.value} -> {new.value}", None
        case ResourceSkipped():
            return logging.INFO, f"{name}: skipped, not enabled", None
        case ResourceOpened(_, attempt, duration):
            text = f"{name}: up after {duration:.3f} s (attempt {attempt})"
            return logging.INFO, text, None
        case AttemptFailed(_, attempt, error, wait, unexpected):
            text = (
                f"{name}: attempt {attempt} failed, next in {wait:.2f} s:"
                f" {describe(error)}"
            )
            return logging.WARNING, text, error if unexpected else None
        case CheckFailed() | ResourceDown() | ResourceRecovered():
            return _check_line(event)
        case ResourceCrashed() | ResourceReopening() | ResourceClosed() | CloseFailed():
            return _closing_line(event)
        case ResourceGaveUp(error=NeedGaveUpError() as error):
            return logging.ERROR, f"{name}: gave up: {describe(error)}", None
        case ResourceGaveUp(_, attempts, error, permanent, required):
            level = logging.CRITICAL if required else logging.ERROR
            return level, _given_up(name, attempts, error, permanent), error
        case _:
            assert_never(event)


def _closing_line(
    event: CloseFailed | ResourceClosed | ResourceCrashed | ResourceReopening,
) -> tuple[int, str, BaseException | None]:
    match event:
        case ResourceCrashed(name, error):
            return logging.ERROR, f"{name}: crashed: {describe(error)}", error
        case ResourceReopening(name, wait):
            return logging.INFO, f"{name}: reopening in {wait:.2f} s", None
        case ResourceClosed(name, duration):
            return logging.INFO, f"{name}: closed after {duration:.3f} s", None
        case CloseFailed(name, error):
            return logging.ERROR, f"{name}: closing failed: {describe(error)}", error
        case _:
            assert_never(event)


def _check_line(
    event: CheckFailed | ResourceDown | ResourceRecovered,
) -> tuple[int, str, BaseException | None]:
    match event:
        case CheckFailed(name, error, in_a_row):
            level = logging.WARNING if in_a_row == 1 else logging.DEBUG
            return level, f"{name}: check failed ({in_a_row}): {describe(error)}", None
        case ResourceDown(name, error):
            return logging.WARNING, f"{name}: down: {describe(error)}", None
        case ResourceRecovered(name):
            return logging.INFO, f"{name}: recovered", None
        case _:
            assert_never(event)


def _given_up(name: str, attempts: int, error: BaseException, permanent: bool) -> str:
    why = "a permanent error" if permanent else "its retry policy allows no more"
    return f"{name}: gave up after {attempts} attempt(s), {why}: {describe(error)}"


def _request_line(
    event: RequestHeld | RequestAdmitted | RequestAbandoned | RequestRefused,
) -> tuple[int, str, BaseException | None]:
    match event:
        case RequestHeld(path):
            text = f"{path}: held"
        case RequestAdmitted(path, waited):
            text = f"{path}: admitted after {waited:.3f} s"
        case RequestAbandoned(path, waited):
            text = f"{path}: the client left after {waited:.3f} s"
        case RequestRefused(path, retry_after, reason):
            text = f"{path}: refused, {reason} (retry after {retry_after} s)"
        case _:
            assert_never(event)
    return logging.DEBUG, text, None


def _drain_line(
    event: DrainBegun | DrainEnded | StreamEnded | RequestCut | RequestStuck,
) -> tuple[int, str, BaseException | None]:
    match event:
        case DrainBegun(reason, in_flight):
            return logging.INFO, f"draining ({reason}), {in_flight} in flight", None
        case DrainEnded(duration, left):
            text = f"drained after {duration:.3f} s, {left} left behind"
            return logging.INFO, text, None
        case StreamEnded(path):
            return logging.DEBUG, f"{path}: ended", None
        case RequestCut(path, after):
            text = f"{path}: cut, still running {after:.3f} s into the drain"
            return logging.WARNING, text, None
        case RequestStuck(path, age):
            text = (
                f"{path}: stuck, running for {age:.1f} s at least; it does not end when"
                " it is cancelled"
            )
            return logging.ERROR, text, None
        case _:
            assert_never(event)


def _why(error: BaseException | None) -> str:
    return "" if error is None else f" ({describe(error)})"
