"""The observer that every guard has: one line for each fact."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import get_args

import pytest

from asgi_lifespan_guard import (
    NeedGaveUpError,
    Phase,
    ResourcePhase,
    StopRequestedError,
)
from asgi_lifespan_guard.events import (
    AttemptFailed,
    CheckFailed,
    CloseFailed,
    ConversationBroken,
    DrainBegun,
    DrainEnded,
    Event,
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
from asgi_lifespan_guard.observers.logging import log, log_critical


def _raised() -> OSError:
    try:
        raise OSError("redis://:hunter2@h")
    except OSError as error:
        return error


ERROR = _raised()
TOLD = "OSError: redis://:***@h"
LINES: list[tuple[Event, int, str, bool]] = [
    (PhaseChanged(Phase.IDLE, Phase.STARTING), 10, "idle -> starting", False),
    (
        ResourcePhaseChanged("db", ResourcePhase.PENDING, ResourcePhase.OPENING),
        10,
        "db: pending -> opening",
        False,
    ),
    (
        AttemptFailed("db", 2, ERROR, 0.5, False),
        30,
        f"db: attempt 2 failed, next in 0.50 s: {TOLD}",
        False,
    ),
    (
        AttemptFailed("db", 1, ERROR, 0.5, True),
        30,
        f"db: attempt 1 failed, next in 0.50 s: {TOLD}",
        True,
    ),
    (ResourceOpened("db", 2, 0.1), 20, "db: up after 0.100 s (attempt 2)", False),
    (ResourceSkipped("db"), 20, "db: skipped, not enabled", False),
    (ResourceCrashed("db", ERROR), 40, f"db: crashed: {TOLD}", True),
    (
        ResourceGaveUp("db", 3, ERROR, True, True),
        50,
        f"db: gave up after 3 attempt(s), a permanent error: {TOLD}",
        True,
    ),
    (
        ResourceGaveUp("db", 3, ERROR, False, True),
        50,
        f"db: gave up after 3 attempt(s), its retry policy allows no more: {TOLD}",
        True,
    ),
    (CheckFailed("db", ERROR, 1), 30, f"db: check failed (1): {TOLD}", False),
    (CheckFailed("db", ERROR, 2), 10, f"db: check failed (2): {TOLD}", False),
    (ResourceDown("db", ERROR), 40, f"db: down: {TOLD}", False),
    (ResourceRecovered("db"), 20, "db: recovered", False),
    (ResourceReopening("db", 0.25), 20, "db: reopening in 0.25 s", False),
    (ResourceClosed("db", 0.1), 20, "db: closed after 0.100 s", False),
    (CloseFailed("db", ERROR), 40, f"db: closing failed: {TOLD}", True),
    (StartupFailed(ERROR, False), 50, f"startup failed: {TOLD}", True),
    (StartupFailed(ERROR, True), 50, f"startup failed: {TOLD}", False),
    (LifespanUnsupported("app", None), 20, "the app has no lifespan of its own", False),
    (
        LifespanUnsupported("app", ERROR),
        20,
        f"the app has no lifespan of its own ({TOLD})",
        False,
    ),
    (ConversationBroken("odd"), 30, "lifespan: odd", False),
    (RequestHeld("/a"), 10, "/a: held", False),
    (RequestAdmitted("/a", 0.1), 10, "/a: admitted after 0.100 s", False),
    (RequestAbandoned("/a", 0.1), 10, "/a: the client left after 0.100 s", False),
    (
        RequestRefused("/a", 3, "full"),
        10,
        "/a: refused, full (retry after 3 s)",
        False,
    ),
    (
        ResourceGaveUp("db", 3, ERROR, False, False),
        40,
        f"db: gave up after 3 attempt(s), its retry policy allows no more: {TOLD}",
        True,
    ),
    (
        ResourceGaveUp("api", 0, NeedGaveUpError("api", "db"), True, True),
        40,
        "api: gave up: NeedGaveUpError: resource 'api' needs 'db', which gave up",
        False,
    ),
    (
        StartupFailed(StopRequestedError("SIGTERM"), False),
        20,
        "startup ended by SIGTERM",
        False,
    ),
    (Paused("maintenance"), 30, "paused: maintenance", False),
    (Resumed(), 20, "resumed", False),
    (DrainBegun("SIGTERM", 3), 20, "draining (SIGTERM), 3 in flight", False),
    (DrainEnded(0.5, 1), 20, "drained after 0.500 s, 1 left behind", False),
    (StreamEnded("/sse"), 10, "/sse: ended", False),
    (RequestCut("/a", 3.0), 30, "/a: cut, still running 3.000 s into the drain", False),
    (
        RequestStuck("/a", 7.0),
        40,
        "/a: stuck, running for 7.0 s at least; it does not end when it is cancelled",
        False,
    ),
]


def test_every_event_has_its_line() -> None:
    """The list of lines leaves no event out."""
    assert {type(event) for event, *_ in LINES} == set(get_args(Event))


@pytest.mark.parametrize(("event", "level", "text", "traceback"), LINES)
def test_each_fact_is_one_line(
    event: Event,
    level: int,
    text: str,
    traceback: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Level, text and fields say what happened; passwords are in none of them."""
    caplog.set_level(logging.DEBUG, "asgi_lifespan_guard")
    log(event)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("asgi_lifespan_guard", level)
    assert record.getMessage() == text
    assert vars(record)["event"] == type(event).__name__
    assert {field.name for field in fields(event)} <= set(vars(record))
    assert (record.exc_text is not None) is traceback
    shown = logging.Formatter("%(message)s").format(record)
    assert ("Traceback" in shown) is traceback
    assert "hunter2" not in str(vars(record))


def test_a_line_nobody_wants_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    """A record below the logger's level is never made."""
    caplog.set_level(logging.WARNING, "asgi_lifespan_guard")
    log(RequestHeld("/a"))
    assert caplog.records == []


def test_a_critical_text_is_redacted(caplog: pytest.LogCaptureFixture) -> None:
    """Errors at construction are logged without passwords, too."""
    log_critical("bad dsn redis://:hunter2@h")
    assert caplog.messages == ["bad dsn redis://:***@h"]
