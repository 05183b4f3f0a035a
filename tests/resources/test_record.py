"""What is known about one resource."""

from __future__ import annotations

import pytest

from asgi_lifespan_guard import IllegalTransitionError, ResourcePhase
from asgi_lifespan_guard._phases import RESOURCE_TRANSITIONS, ResourceTrigger
from asgi_lifespan_guard._resources.record import Record
from asgi_lifespan_guard.events import ResourcePhaseChanged
from tests.recorder import Recorder
from tests.resources.stage import Stage


WALKS: dict[ResourcePhase, list[ResourceTrigger]] = {ResourcePhase.PENDING: []}
for _phase in list(ResourcePhase) * 2:
    for _trigger, _next in RESOURCE_TRANSITIONS[_phase].items():
        if _phase in WALKS:
            WALKS.setdefault(_next, [*WALKS[_phase], _trigger])


@pytest.fixture
def record(stage: Stage, recorder: Recorder) -> Record:
    """Return the record of a resource that nobody asked for yet."""
    return Record(stage.make("db", required=False), recorder)


@pytest.mark.parametrize("phase", ResourcePhase)
def test_a_phase_says_what_others_may_do(record: Record, phase: ResourcePhase) -> None:
    """Whether its value can be used, what needs it may open, or it is lost."""
    for trigger in WALKS[phase]:
        record.handle(trigger)
    assert record.phase is phase
    up, skipped = ResourcePhase.UP, ResourcePhase.SKIPPED
    assert record.is_satisfied is (phase in (up, skipped))
    assert record.is_open is (phase in (up, skipped, ResourcePhase.FAILING))
    lost = phase in (ResourcePhase.FAILED, ResourcePhase.CLOSED)
    assert record.is_lost is lost


@pytest.mark.parametrize(
    "phase", [phase for phase in ResourcePhase if phase.name not in ("UP", "FAILING")]
)
def test_a_record_ends_wherever_it_may(record: Record, phase: ResourcePhase) -> None:
    """It is closed, unless it came to another end before."""
    for trigger in WALKS[phase]:
        record.handle(trigger)
    record.end()
    kept = phase in (ResourcePhase.SKIPPED, ResourcePhase.FAILED)
    assert record.phase is (phase if kept else ResourcePhase.CLOSED)


def test_every_step_is_told(record: Record, recorder: Recorder) -> None:
    """With both phases; one that is illegal is not."""
    record.handle(ResourceTrigger.OPEN)
    with pytest.raises(IllegalTransitionError, match="db"):
        record.handle(ResourceTrigger.OPEN)
    assert recorder.events == [
        ResourcePhaseChanged("db", ResourcePhase.PENDING, ResourcePhase.OPENING)
    ]


def test_a_report_is_a_photograph(record: Record) -> None:
    """What happens afterwards does not change it; a due attempt is due in 0 s."""
    before = record.report(0)
    record.attempts = 3
    record.error = OSError("redis://:hunter2@h")
    record.next_attempt_at = 10
    assert (before.attempts, before.last_error, before.next_attempt_in) == (
        0,
        None,
        None,
    )
    assert (before.phase, before.required) == (ResourcePhase.PENDING, False)
    assert before.since > 1e9
    after = record.report(7)
    assert (after.attempts, after.next_attempt_in) == (3, 3)
    assert after.last_error == "OSError: redis://:***@h"
    assert record.report(11).next_attempt_in == 0
