"""The observer that every guard has: one line for each fact."""

from __future__ import annotations

import json
import logging
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import Any, get_args

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
from asgi_lifespan_guard.observers._places import place_of
from asgi_lifespan_guard.observers.logging import (
    LINES,
    Log,
    log_critical,
    log_failure,
    logger,
)


def _raised() -> OSError:
    try:
        raise OSError("redis://:hunter2@h")
    except OSError as error:
        return error


ERROR = _raised()
TOLD = "OSError: redis://:***@h"
PLACE = place_of(ERROR)
TOLD_LINES: list[tuple[Event, int, str, bool]] = [
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
        f"db: attempt 2 failed in {PLACE}, next in 0.50 s: {TOLD}",
        False,
    ),
    (
        AttemptFailed("db", 1, ERROR, 0.5, True),
        30,
        f"db: attempt 1 failed in {PLACE}, next in 0.50 s: {TOLD}",
        True,
    ),
    (ResourceOpened("db", 2, 0.1), 20, "db: up after 0.100 s (attempt 2)", False),
    (ResourceSkipped("db"), 20, "db: skipped, not enabled", False),
    (ResourceCrashed("db", ERROR), 40, f"db: crashed in {PLACE}: {TOLD}", True),
    (
        ResourceGaveUp("db", 3, ERROR, True, True),
        50,
        f"db: gave up after 3 attempt(s), a permanent error in {PLACE}: {TOLD}",
        True,
    ),
    (
        ResourceGaveUp("db", 3, ERROR, False, True),
        50,
        f"db: gave up after 3 attempt(s), its retry policy allows no more: {TOLD}",
        True,
    ),
    (
        CheckFailed("db", ERROR, 1),
        30,
        f"db: check failed (1) in {PLACE}: {TOLD}",
        False,
    ),
    (ResourceDown("db", ERROR), 40, f"db: down in {PLACE}: {TOLD}", False),
    (ResourceRecovered("db"), 30, "db: recovered after 0.0 s", False),
    (ResourceReopening("db", 0.25), 20, "db: reopening in 0.25 s", False),
    (ResourceClosed("db", 0.1), 20, "db: closed after 0.100 s", False),
    (CloseFailed("db", ERROR), 40, f"db: closing failed: {TOLD}", True),
    (StartupFailed(ERROR, False), 50, f"startup failed: {TOLD}", True),
    (StartupFailed(ERROR, True), 50, f"startup failed: {TOLD}", False),
    (
        GuardFailed(ERROR),
        50,
        f"the guard's lifespan was ended by {TOLD}; what it held is closed",
        True,
    ),
    (
        LifespanUnsupported("app", None, False),
        20,
        "the app has no lifespan of its own",
        False,
    ),
    (
        LifespanUnsupported("app", ERROR, False),
        20,
        f"the app has no lifespan of its own ({TOLD})",
        False,
    ),
    (
        LifespanUnsupported("app", ERROR, True),
        30,
        "the app raised when it was given its lifespan, and is served without one:"
        f" {TOLD}",
        True,
    ),
    (ConversationBroken("odd"), 30, "lifespan: odd", False),
    (RequestHeld("/a"), 10, "/a: held", False),
    (RequestAdmitted("/a", 0.1), 10, "/a: admitted after 0.100 s", False),
    (RequestAbandoned("/a", 0.1), 10, "/a: the client left after 0.100 s", False),
    (
        RequestRefused("/a", 3, "full", 0.05),
        10,
        "/a: refused after 0.050 s, full (retry after 3 s)",
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
    (
        LifespanMissing("/a"),
        30,
        "/a: refused, because the server has not run the app's lifespan, so that"
        " nothing is opened: turn it on (uvicorn --lifespan on), or say"
        " LifespanGuard(..., lazy_start=True)",
        False,
    ),
    (Paused("maintenance"), 30, "paused: maintenance", False),
    (Resumed(), 30, "resumed", False),
    (DrainBegun("SIGTERM", 3), 20, "draining (SIGTERM), 3 in flight", False),
    (DrainBegun("shutdown", 1), 20, "draining (shutdown), 1 in flight", False),
    (DrainBegun("shutdown", 0), 10, "draining (shutdown), 0 in flight", False),
    (DrainEnded(0.1, 0, 0), 10, "drained after 0.100 s, 0 left behind", False),
    (DrainEnded(5.0, 0, 0), 20, "drained after 5.000 s, 0 left behind", False),
    (DrainEnded(0.5, 1, 3), 20, "drained after 0.500 s, 1 left behind", False),
    (StreamEnded("/sse"), 10, "/sse: ended", False),
    (RequestCut("/a", 3.0), 30, "/a: cut, still running 3.000 s into the drain", False),
    (
        RequestStuck("/a", 7.0),
        40,
        "/a: stuck, running for 7.0 s at least; it does not end when it is cancelled",
        False,
    ),
]


def _refusing(observer: Event) -> None:
    """Be an observer that fails."""


@pytest.fixture
def all_levels(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return the log with all its levels on."""
    caplog.set_level(logging.DEBUG, logger.name)
    return caplog


def test_every_event_has_its_line() -> None:
    """The table has a row for each event and no others, and so has the list above."""
    assert set(LINES) == set(get_args(Event))
    assert {type(event) for event, *_ in TOLD_LINES} == set(LINES)


@pytest.mark.parametrize(("event", "level", "text", "traceback"), TOLD_LINES)
def test_each_fact_is_one_line(
    event: Event,
    level: int,
    text: str,
    traceback: bool,
    all_levels: pytest.LogCaptureFixture,
) -> None:
    """Level and text say what happened; passwords are nowhere in the record."""
    Log()(event)
    (record,) = all_levels.records
    assert (record.name, record.levelno) == (logger.name, level)
    assert record.getMessage() == text
    assert (record.exc_text is not None) is traceback
    shown = logging.Formatter("%(message)s").format(record)
    assert ("Traceback" in shown) is traceback
    assert "hunter2" not in str(vars(record))


@pytest.mark.parametrize("event", [event for event, *_ in TOLD_LINES])
def test_the_fields_of_an_event_are_under_one_key(
    event: Event, all_levels: pytest.LogCaptureFixture
) -> None:
    """A record has one attribute that others have not, a dict that JSON can hold.

    No field of an event, whatever its name, meets an attribute of a record or a key
    of what makes JSON of it ("event", "message", "level").
    """
    Log()(event)
    (record,) = all_levels.records
    known = {*vars(logging.makeLogRecord({})), "message", "asctime"}
    assert set(vars(record)) - known == {"asgi_lifespan_guard"}
    fields = _fields(record)
    names = ["event", *type(event).__match_args__]
    assert list(fields)[: len(names)] == names
    assert {*fields} - {*names} <= {"where", "attempts", "outage", "traceback"}
    assert fields["event"] == type(event).__name__
    assert json.loads(json.dumps(fields)) == fields


def test_the_fields_say_what_happened(all_levels: pytest.LogCaptureFixture) -> None:
    """They are plain: phases by their names, errors as one redacted line."""
    Log()(AttemptFailed("db", 2, ERROR, 0.5, False))
    Log()(ResourcePhaseChanged("db", ResourcePhase.PENDING, ResourcePhase.OPENING))
    assert [_fields(record) for record in all_levels.records] == [
        {
            "event": "AttemptFailed",
            "resource": "db",
            "attempt": 2,
            "error": TOLD,
            "wait": 0.5,
            "unexpected": False,
            "where": PLACE,
        },
        {
            "event": "ResourcePhaseChanged",
            "resource": "db",
            "old": "pending",
            "new": "opening",
        },
    ]


def test_facts_of_a_kind_have_one_message(
    all_levels: pytest.LogCaptureFixture,
) -> None:
    """What groups records by their unformatted message finds them together."""
    Log()(ResourceOpened("db", 2, 0.1))
    Log()(ResourceOpened("cache", 1, 0.2))
    assert len({record.msg for record in all_levels.records}) == 1


def test_a_record_survives_a_queue(all_levels: pytest.LogCaptureFixture) -> None:
    """A handler that sends records elsewhere has the text, traceback and fields."""
    queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(queue)
    logger.addHandler(handler)
    try:
        Log()(CloseFailed("db", ERROR))
    finally:
        logger.removeHandler(handler)
    record = queue.get_nowait()
    assert record.getMessage().startswith(f"db: closing failed: {TOLD}\nTraceback")
    assert _fields(record)["resource"] == "db"


def test_percent_signs_are_only_that(all_levels: pytest.LogCaptureFixture) -> None:
    """What looks like a template in a path or in an error is shown as it is."""
    Log()(RequestHeld("/100%(path)s%d"))
    assert all_levels.messages == ["/100%(path)s%d: held"]


def test_a_line_nobody_wants_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    """A record below the logger's level is never made."""
    caplog.set_level(logging.CRITICAL, logger.name)
    Log()(RequestHeld("/a"))
    Log()(ResourceDown("db", ERROR))
    log_failure(_refusing, Resumed(), OSError())
    assert caplog.records == []


def test_what_the_server_says_is_not_said_twice(
    all_levels: pytest.LogCaptureFixture,
) -> None:
    """An app that is forwarded starts and stops in the server's own lines."""
    log = Log(quiet=True)
    for event in (
        ResourceOpened("app", 1, 0.1),
        ResourceOpened("app", 2, 0.1),
        ResourceOpened("db", 1, 0.1),
        ResourceClosed("app", 0.1),
        ResourceClosed("db", 0.1),
        Resumed(),
    ):
        log(event)
    levels = [record.levelno for record in all_levels.records]
    assert levels == [10, 20, 20, 10, 20, 30]


def test_logging_can_be_turned_off(all_levels: pytest.LogCaptureFixture) -> None:
    """`logging.disable()` silences the guard, too, and `Logger.disabled` does."""
    logging.disable()
    try:
        _log_everything()
    finally:
        logging.disable(logging.NOTSET)
    logger.disabled = True
    try:
        _log_everything()
    finally:
        logger.disabled = False
    assert all_levels.records == []


def _log_everything() -> None:
    for event, *_ in TOLD_LINES:
        Log()(event)
    log_failure(_refusing, Resumed(), OSError())
    log_critical("bad dsn")


def test_a_critical_text_is_redacted(caplog: pytest.LogCaptureFixture) -> None:
    """Errors at construction are logged without passwords, too."""
    log_critical("bad dsn redis://:hunter2@h")
    assert caplog.messages == ["bad dsn redis://:***@h"]


def test_an_observer_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The line names the observer, the event and the error, and has its traceback."""
    log_failure(_refusing, Resumed(), ERROR)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"observer {_refusing!r} failed on Resumed: {TOLD}"
    assert "Traceback" in str(record.exc_text)
    assert _fields(record) == {
        "event": "Resumed",
        "observer": repr(_refusing),
        "error": TOLD,
        "traceback": record.exc_text,
    }
    assert "hunter2" not in str(vars(record))


def test_an_observer_without_a_name_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One whose representation raises fails as loudly as others."""

    class Nameless:
        def __repr__(self) -> str:
            raise LookupError

    log_failure(Nameless(), Resumed(), OSError("a"))
    (text,) = caplog.messages
    assert text == (
        "observer <Nameless whose text cannot be shown: LookupError> failed on"
        " Resumed: OSError: a"
    )


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = vars(record)["asgi_lifespan_guard"]
    assert type(fields) is dict
    return fields
