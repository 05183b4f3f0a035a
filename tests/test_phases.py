"""The two tables: the whole product of phase and trigger."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from itertools import product
from typing import Any

import pytest

from asgi_lifespan_guard import IllegalTransitionError, Phase, ResourcePhase
from asgi_lifespan_guard._phases import (
    RESOURCE_TRANSITIONS,
    TRANSITIONS,
    Lifecycle,
    ResourceTrigger,
    Trigger,
)
from tests.transitions import is_second_start, rows, transitions


Table = Mapping[Any, Mapping[Any, Any]]
TABLES: list[tuple[Table, type[Enum], type[Enum], Enum]] = [
    (TRANSITIONS, Phase, Trigger, Phase.IDLE),
    (RESOURCE_TRANSITIONS, ResourcePhase, ResourceTrigger, ResourcePhase.PENDING),
]
WALKS = [
    pytest.param(table, phase, trigger, id=f"{phase}-{trigger}")
    for table, phases, triggers, _ in TABLES
    for phase, trigger in product(phases, triggers)
]


@pytest.mark.parametrize(("table", "phase", "trigger"), WALKS)
def test_every_phase_takes_every_trigger_as_the_table_says(
    table: Table, phase: Any, trigger: Any
) -> None:
    """A legal trigger moves and tells; an illegal one raises and changes nothing."""
    steps: list[tuple[Enum, Enum]] = []
    life: Lifecycle[Any, Any] = Lifecycle(
        "db", table, phase, lambda old, new: steps.append((old, new))
    )
    new = table[phase].get(trigger)
    if new is None:
        with pytest.raises(IllegalTransitionError) as caught:
            life.handle(trigger)
        told = (caught.value.subject, caught.value.phase, caught.value.trigger)
        assert told == ("db", phase.value, trigger.value)
        assert (life.phase, steps) == (phase, [])
    else:
        life.handle(trigger)
        assert (life.phase, steps) == (new, [(phase, new)])


@pytest.mark.parametrize(("table", "phases", "triggers", "first"), TABLES)
def test_the_tables_are_whole(
    table: Table, phases: type[Enum], triggers: type[Enum], first: Enum
) -> None:
    """Every phase is listed and can be reached; every trigger does something."""
    reached, frontier = {first}, [first]
    while frontier:
        ahead = set(table[frontier.pop()].values()) - reached
        reached |= ahead
        frontier += ahead
    assert set(table) == reached == set(phases)
    used = {trigger for steps in table.values() for trigger in steps}
    assert used == set(triggers)


@pytest.mark.parametrize("end", [Phase.STOPPED, Phase.FAILED])
def test_a_guard_that_ended_may_start_again(end: Phase) -> None:
    """A guard survives many cycles: both of its ends lead to a new start."""
    assert TRANSITIONS[end] == {Trigger.START: Phase.STARTING}


@pytest.mark.parametrize(
    "end", [ResourcePhase.CLOSED, ResourcePhase.SKIPPED, ResourcePhase.FAILED]
)
def test_a_resource_that_ended_stays_where_it_is(end: ResourcePhase) -> None:
    """A resource's run has three ends; the next start makes a new run."""
    assert RESOURCE_TRANSITIONS[end] == {}


def test_the_suite_fires_every_row_and_no_other(
    request: pytest.FixtureRequest,
) -> None:
    """What the tables allow does happen, and nothing else is tried."""
    config = request.config
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if not whole or config.option.keyword or config.option.markexpr:
        pytest.skip("only the whole suite fires every row")
    assert rows(TRANSITIONS, RESOURCE_TRANSITIONS) - transitions.fired == set()
    odd = {row for row in transitions.refused if not is_second_start(row)}
    assert odd == set()
