"""What is told of an outage: that it is there, that it is over, and little between."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Literal

import anyio
import pytest

from asgi_lifespan_guard import Check, Phase, ResourcePhase, resource
from asgi_lifespan_guard.events import (
    AttemptFailed,
    CheckFailed,
    Event,
    PhaseChanged,
    ResourceClosed,
    ResourceCrashed,
    ResourceDown,
    ResourceOpened,
    ResourcePhaseChanged,
    ResourceRecovered,
    ResourceReopening,
)
from asgi_lifespan_guard.observers._outages import MOST_KINDS
from asgi_lifespan_guard.observers.logging import Log, logger
from tests.recorder import Recorder
from tests.resources.stage import Stage
from tests.support.virtual_time import on_virtual_time


REFUSED = OSError("refused")
OPENING = ResourcePhaseChanged("db", ResourcePhase.PENDING, ResourcePhase.OPENING)
OPENED = ResourceOpened("db", 1, 0.1)
DOWN = ResourceDown("db", REFUSED)


class Told:
    """A log with a clock that the test moves, and what it has written.

    Attributes:
        time: What the clock says.
        log: What events are given to.
    """

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.time = 1000.0
        self.log = Log(clock=lambda: self.time)
        self._caplog = caplog
        caplog.set_level(logging.DEBUG, logger.name)

    def __call__(self, *events: Event, after: float = 0.0) -> list[tuple[int, str]]:
        """Tell of *events*, each *after* some seconds; return levels and texts."""
        seen = len(self._caplog.records)
        for event in events:
            self.time += after
            self.log(event)
        records = self._caplog.records[seen:]
        return [(record.levelno, record.getMessage()) for record in records]

    def warned(self, *events: Event, after: float = 0.0) -> list[str]:
        """Do the same, and return what is printed where nothing was set up."""
        told = self(*events, after=after)
        return [text for level, text in told if level >= logging.WARNING]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """Return a log with a clock that the test moves."""
    return Told(caplog)


def failed(number: int, error: Exception = REFUSED) -> AttemptFailed:
    """Return the failure of one attempt."""
    return AttemptFailed("db", number, error, 5.0, False)


def numbers(texts: list[str]) -> list[int]:
    """Return the numbers of the attempts that *texts* tell of."""
    return [int(text.split("attempt ")[1].split()[0]) for text in texts]


# The end


def test_a_start_that_never_failed_is_no_news(told: Told) -> None:
    """It is told to those who read INFO."""
    assert told(OPENING, OPENED)[1:] == [
        (logging.INFO, "db: up after 0.100 s (attempt 1)")
    ]


def test_a_start_that_failed_is_told_to_have_succeeded(told: Told) -> None:
    """As loudly as it had failed, with how long it took from the first attempt on."""
    told(OPENING)
    told(*map(failed, range(1, 6)), after=8.0)
    assert told(ResourceOpened("db", 6, 0.1), after=1.2) == [
        (logging.WARNING, "db: up after 6 attempts, 41 s")
    ]


def test_a_crash_is_told_to_be_over(told: Told) -> None:
    """It is up again, which it had been before."""
    told(OPENING, OPENED)
    told(DOWN, ResourceCrashed("db", REFUSED))
    told(ResourceReopening("db", 0.2), after=0.1)
    assert told(OPENING, OPENED, after=0.1)[1:] == [
        (logging.WARNING, "db: up again after 1 attempt, 0.3 s")
    ]


def test_checks_that_pass_again_are_told(told: Told) -> None:
    """With the seconds since the resource was told to be down."""
    told(OPENING, OPENED)
    told(DOWN)
    assert told(ResourceRecovered("db"), after=3.2) == [
        (logging.WARNING, "db: recovered after 3.2 s")
    ]


def test_what_is_opened_again_because_of_others_is_no_news(told: Told) -> None:
    """Nobody was told that it was away; a need of it was."""
    told(OPENING, OPENED)
    assert told(ResourceClosed("db", 0.1), OPENING, OPENED)[::2] == [
        (logging.INFO, "db: closed after 0.100 s"),
        (logging.INFO, "db: up after 0.100 s (attempt 1)"),
    ]


def test_what_is_down_is_closed_without_a_word(told: Told) -> None:
    """That it is away was told; its closing is for those who debug."""
    told(OPENING, OPENED, DOWN)
    assert told(ResourceClosed("db", 0.1))[0][0] == logging.DEBUG


def test_the_fields_have_the_outage(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """For programs: attempts and seconds."""
    told(OPENING, failed(1))
    told(OPENED, after=2.0)
    fields = vars(caplog.records[-1])["asgi_lifespan_guard"]
    assert (fields["attempts"], fields["outage"]) == (2, 2.0)


# Between


def test_a_resource_that_stays_away_is_told_of_ever_less(told: Told) -> None:
    """At attempts 1, 2, 4, 8 ..., then once a minute; at DEBUG all are there."""
    told(OPENING)
    every = told(*map(failed, range(1, 165)), after=3.6)
    shown = numbers([text for level, text in every if level >= logging.WARNING])
    assert len(every) == 164
    assert shown[:5] == [1, 2, 4, 8, 16]
    assert len(shown) == 13
    assert {later - earlier for earlier, later in pairwise(shown[4:])} == {17}


def test_slow_attempts_are_told_once_a_minute(told: Told) -> None:
    """Those that take half a minute each, too."""
    told(OPENING)
    shown = numbers(told.warned(*map(failed, range(1, 21)), after=35.0))
    assert shown == [1, 2, *range(4, 21, 2)]


def test_checks_that_go_on_failing_are_told_of_ever_less(told: Told) -> None:
    """In the same way."""
    told(OPENING, OPENED)
    checks = [CheckFailed("db", REFUSED, number) for number in range(1, 100)]
    shown = told.warned(*checks[:2], DOWN, *checks[2:], after=1.0)
    assert shown[:5] == [
        "db: check failed (1): OSError: refused",
        "db: check failed (2): OSError: refused",
        "db: down: OSError: refused",
        "db: check failed (4): OSError: refused",
        "db: check failed (8): OSError: refused",
    ]
    assert len(shown) == 8


def test_each_resource_is_told_of_by_itself(told: Told) -> None:
    """One that stays away hides no other's first failure."""
    told(*map(failed, range(1, 20)))
    assert told.warned(AttemptFailed("cache", 1, REFUSED, 5.0, False))


def test_a_failure_of_another_kind_is_told_at_once(told: Told) -> None:
    """However many of the old kind were left out."""
    told(OPENING)
    told(*map(failed, range(1, 20)))
    assert told.warned(failed(20, PermissionError("no"))) == [
        "db: attempt 20 failed, next in 5.00 s: PermissionError: no"
    ]
    assert told.warned(failed(21, PermissionError("no")), failed(22)) == []


def test_kinds_without_end_are_not_all_told(told: Told) -> None:
    """Errors of ever new classes fill neither the log nor the memory."""
    told(*map(failed, range(1, 20)))
    errors = [type(f"Error{n}", (OSError,), {})() for n in range(MOST_KINDS + 10)]
    assert len(told.warned(*(failed(99, error) for error in errors))) < MOST_KINDS + 2


def test_what_was_well_for_a_minute_is_news_again(told: Told) -> None:
    """Then its first failure is told like the very first."""
    told(OPENING, *map(failed, range(1, 5)), OPENED)
    told.time += 59.0
    assert told.warned(DOWN, OPENING, failed(1)) == ["db: down: OSError: refused"]
    told(OPENED)
    told.time += 60.0
    assert told.warned(DOWN, OPENING, failed(1))[1:] == [
        "db: attempt 1 failed, next in 5.00 s: OSError: refused"
    ]


def test_a_new_start_begins_anew(told: Told) -> None:
    """What was told of the last one is over."""
    told(OPENING, *map(failed, range(1, 20)))
    told(PhaseChanged(Phase.IDLE, Phase.STARTING))
    assert numbers(told.warned(OPENING, failed(1), failed(2), failed(3))) == [1, 2]


def test_guards_do_not_share_what_they_remember(told: Told) -> None:
    """A second guard's first failure is a first one."""
    told(*map(failed, range(1, 20)))
    told.log = Log(clock=lambda: told.time)
    assert told.warned(failed(1))


# Where it is from


def broken(error: Exception) -> Exception:
    """Return *error* as it is when it was raised here."""
    try:
        raise error
    except Exception as raised:
        return raised


LINE = "tests/observers/test_outages.py:"


def test_a_mistake_shows_its_traceback_once(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, with the line in question; the second time it is one line."""
    error = broken(KeyError("DATABASE_URL"))
    first, second = told(failed(1, error), failed(2, error))
    assert f"failed in {LINE}" in first[1]
    assert LINE not in second[1]
    shown, brief = caplog.records
    assert "KeyError: 'DATABASE_URL'" in str(shown.exc_text)
    assert brief.exc_text is None
    assert vars(brief)["asgi_lifespan_guard"]["where"].startswith(LINE)


@pytest.mark.parametrize(
    "error", [REFUSED, TimeoutError(), type("PoolTimeout", (Exception,), {})()]
)
@pytest.mark.parametrize(
    "event",
    [failed(1), CheckFailed("db", REFUSED, 1), DOWN],
    ids=["open", "ask", "down"],
)
def test_an_outage_shows_no_traceback(
    error: Exception,
    event: Any,
    told: Told,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The line in question is enough."""
    fields = {**vars(event), "error": broken(error)}
    (line,) = told(type(event)(**fields))
    assert f" in {LINE}" in line[1]
    assert caplog.records[-1].exc_text is None


def test_nothing_is_remembered_that_was_not_shown(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """Who turns the log on later sees the first failure then."""
    caplog.set_level(logging.CRITICAL, logger.name)
    assert told(*map(failed, range(1, 4))) == []
    caplog.set_level(logging.WARNING, logger.name)
    assert told(failed(3, broken(KeyError("a"))))
    assert caplog.records[-1].exc_text


# As it comes

FlapsHow = Literal["hold", "report", "reopen", "crash"]


@on_virtual_time
@pytest.mark.anyio
@pytest.mark.parametrize("how", ["hold", "report", "reopen", "crash"])
async def test_short_outages_fill_no_log(
    how: FlapsHow, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Two seconds in ten: less than thirty lines a minute, INFO included."""
    caplog.set_level(logging.INFO, logger.name)
    log = Log(clock=anyio.current_time)
    recorder.also = log
    stage, db = Stage(recorder), SimpleNamespace(away=False, crash=lambda: None)
    lines = []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(stage.running(_flapping(db, how)))
        await stage.until_up("db")
        for _ in range(5):
            seen = len(caplog.records)
            for _ in range(6):
                await anyio.sleep(8)
                db.away = True
                db.crash()
                await anyio.sleep(2)
                db.away = False
            lines.append(len(caplog.records) - seen)
    assert max(lines) < 30
    assert min(lines) >= 12  # Each outage is told, and its end.
    shown = [record for record in caplog.records if record.exc_text]
    assert len(shown) == (1 if how == "crash" else 0)


def _flapping(db: Any, how: FlapsHow) -> Any:
    def ask(_: object) -> None:
        if db.away:
            raise ConnectionResetError("gone")

    async def watch() -> None:
        crashed = anyio.Event()
        db.crash = crashed.set
        await crashed.wait()
        ask(None)

    async def connect() -> AsyncGenerator[str, None]:
        ask(None)
        async with anyio.create_task_group() as group:
            if how == "crash":
                group.start_soon(watch)
            yield "db"
            group.cancel_scope.cancel()

    check: Callable[[Any], None] | Check | None = None
    if how != "crash":
        check = Check(ask, every=0.5, then=how)
    return resource(connect, name="db", check=check)
