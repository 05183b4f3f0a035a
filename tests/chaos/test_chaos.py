"""Anything may happen, in any order; the guarantees hold all the same.

Here always the same scenarios are played, and those that found something once;
`make chaos` plays others each time, and many more of them.
"""

from __future__ import annotations

import logging

import pytest

from tests.chaos import scenario as language
from tests.chaos.__main__ import told
from tests.chaos.kept import KEPT
from tests.chaos.scenario import Draw, Scenario, smaller
from tests.chaos.witness import CHECKS
from tests.chaos.world import play


BATCHES = 25
BATCH = 100


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the log out of it: it is what takes longest."""
    monkeypatch.setattr(logging.getLogger("asgi_lifespan_guard"), "disabled", True)


def must_hold(name: str, scenario: Scenario) -> None:
    """Fail with the whole story unless everything is as it must be."""
    if play(scenario).faults:
        pytest.fail(f"{name}\n\n{told(scenario)}", pytrace=False)


@pytest.mark.parametrize("name", KEPT)
def test_what_chaos_found_once(name: str) -> None:
    """The guarantees hold where they once did not."""
    must_hold(name, KEPT[name])


@pytest.mark.parametrize("batch", range(BATCHES))
def test_chaos(batch: int) -> None:
    """The guarantees hold whatever happens."""
    for number in range(batch * BATCH, (batch + 1) * BATCH):
        must_hold(f"quick/{number}", Draw(f"quick/{number}").scenario())


def test_a_scenario_is_python() -> None:
    """What is printed of a failure can be kept: it makes the same scenario again."""
    drawn = Draw("python").scenario()
    assert eval(repr(drawn), dict(vars(language))) == drawn


def test_the_same_seed_is_the_same_story() -> None:
    """A seed that found something finds it again."""
    drawn = Draw("story/2").scenario()
    assert play(drawn).transcript() == play(drawn).transcript()


def test_a_smaller_scenario_is_smaller() -> None:
    """Making a scenario smaller comes to an end."""
    drawn = Draw("small").scenario()
    assert all(len(repr(less)) <= len(repr(drawn)) for less in smaller(drawn))


def test_every_check_says_what_it_means() -> None:
    """The names of the checks are told with the sentence that they stand for."""
    assert all(CHECKS.values())
