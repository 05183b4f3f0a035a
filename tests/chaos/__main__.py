"""Plays scenarios by the thousand: ``make chaos``.

A scenario takes a few milliseconds, and none depends on another: so a seed draws it,
without a library that keeps examples (they are lost when the code changes that drew
them). The first that fails is made smaller by leaving things out, and what is left is
printed as Python, to be kept in `tests.chaos.kept`.

``CHAOS_SEED`` and ``CHAOS_EXAMPLES`` say which and how many; ``CHAOS_GO_ON=1`` goes on
after a failure and counts what each check found. With arguments (``2342/17``, or the
name of one that was kept) only these are played and told, whole.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.chaos.kept import KEPT
from tests.chaos.scenario import Draw, Scenario, smaller
from tests.chaos.witness import CHECKS
from tests.chaos.world import World, play
from tests.support.long_runs import giving_up_after, say


REAL_SECONDS = 60
"""Real seconds after which a run does not end any more."""
SHRINKING = 20
"""Real seconds in which a scenario is made smaller."""


def watched(scenario: Scenario) -> World:
    """Play *scenario*, and give up where it does not end."""
    with giving_up_after(REAL_SECONDS):
        return play(scenario)


def shrunk(scenario: Scenario, check: str) -> Scenario:
    """Return the least that one finds from *scenario* on which *check* still fails."""
    end = time.monotonic() + SHRINKING
    again = True
    while again:
        again = False
        for candidate in smaller(scenario):
            if time.monotonic() > end:
                return scenario
            if _fails(candidate, check):
                scenario, again = candidate, True
                break
    return scenario


def _fails(scenario: Scenario, check: str) -> bool:
    return check in watched(scenario).faults


def told(scenario: Scenario) -> str:
    """Return a scenario and what becomes of it, to be read."""
    world = watched(scenario)
    faults = "".join(f"\n  {check}: {text}" for check, text in world.faults.items())
    return (
        f"{_laid_out(scenario)}\n\n{world.transcript()}\n\nwrong:{faults or ' nothing'}"
    )


def _laid_out(scenario: Scenario) -> str:
    text = repr(scenario)
    for start in ("Node(", "Happening("):
        text = text.replace(start, f"\n    {start}")
    return text


def scenarios(seed: str, count: int) -> Iterator[tuple[str, Scenario]]:
    """Yield those that were kept, and then *count* that are drawn."""
    for name, scenario in KEPT.items():
        yield f"kept: {name}", scenario
    for number in range(count):
        yield f"{seed}/{number}", Draw(f"{seed}/{number}").scenario()


class Findings:
    """What was found, by the check that found it."""

    def __init__(self) -> None:
        self.first: dict[str, tuple[str, Scenario]] = {}
        self.count: dict[str, int] = dict.fromkeys(CHECKS, 0)

    def add(self, name: str, scenario: Scenario, world: World) -> list[str]:
        """Note what *world* found wrong; return the checks that are new to it."""
        new = [check for check in world.faults if check not in self.first]
        for check in world.faults:
            self.count[check] += 1
            self.first.setdefault(check, (name, scenario))
        return new

    def tell(self) -> None:
        """Tell how often each check failed."""
        for check, count in self.count.items():
            if count:
                name = self.first[check][0]
                say(f"{count:7} {check}: {CHECKS[check]}; first by {name}")


def main(argv: list[str], environ: Any) -> int:
    """Play what was kept and what is drawn; or, with arguments, these seeds only."""
    logging.getLogger("asgi_lifespan_guard").disabled = True
    if argv:
        for name in argv:
            say(told(KEPT[name] if name in KEPT else Draw(name).scenario()))
        return 0
    seed = environ.get("CHAOS_SEED") or str(random.getrandbits(32))
    count = int(environ.get("CHAOS_EXAMPLES") or 100_000)
    say(f"== chaos: CHAOS_SEED={seed} CHAOS_EXAMPLES={count}")
    findings = _play_all(scenarios(seed, count), len(KEPT) + count, environ)
    findings.tell()
    return 1 if findings.first else 0


def _play_all(
    drawn: Iterator[tuple[str, Scenario]], count: int, environ: Any
) -> Findings:
    goes_on = bool(environ.get("CHAOS_GO_ON"))
    findings = Findings()
    progress = _progress(count)
    for name, scenario in drawn:
        world = watched(scenario)
        new = findings.add(name, scenario, world)
        for check in new:
            say(f"\n== {name}: {check} ({CHECKS[check]})\n")
            say(told(shrunk(scenario, check)))
            say(f"\nagain, whole: python -m tests.chaos {name}")
        if new and not goes_on:
            break
        progress()
    return findings


def _progress(count: int) -> Callable[[], None]:
    began = last = time.monotonic()
    done = 0

    def progress() -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last >= 10 or done == count:
            last = now
            took = now - began
            say(f"{done} of {count} in {took:.0f} s, {1000 * took / done:.1f} ms each")

    return progress


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
