"""Anything may happen, in any order; the guarantees hold all the same.

A few hundred steps in `make test`, always the same ones; `make chaos` takes other ones
each time, and more of them. What a machine does is told step by step when it fails.
"""

from __future__ import annotations

import logging
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asgi_lifespan_guard import Phase
from asgi_lifespan_guard._resources import owner, supervisor
from tests.chaos.loops import LOOPS, MainThread
from tests.chaos.world import (
    CLOSE_TIMEOUT,
    GRACE,
    PATIENCE,
    SHUTDOWN_TIMEOUT,
    Actor,
    Node,
    World,
)


SEED = os.environ.get("CHAOS_SEED")
EXAMPLES = int(os.environ.get("CHAOS_EXAMPLES", "120"))
STEPS = 40

LONG = 120.0
"""Seconds in which everything recovers, if nothing gets in its way."""

FDS = Path("/dev/fd")


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    """Draw resources that a guard would take."""
    nodes: list[Node] = []
    for _ in range(draw(st.integers(1, 5))):
        required = draw(st.sampled_from([True, True, False]))
        blocking = draw(st.sampled_from([False, False, True]))
        possible = [
            need
            for need, node in enumerate(nodes)
            if (node.required or not required) and (node.blocking or not blocking)
        ]
        node = Node(
            kind=draw(st.sampled_from(["held", "held", "held", "step", "skipped"])),
            needs=draw(st.sets(st.sampled_from(possible))) if possible else set(),
            blocking=blocking,
            required=required,
            retry=draw(st.sampled_from([None, None, 3])),
            check=draw(st.sampled_from([None, "report", "reopen"])),
        )
        nodes.append(node)
    return nodes


ANY = st.integers(0, 4)


class Chaos(RuleBasedStateMachine):
    """One guard, on one event loop, from its making to its last stop."""

    main: MainThread
    backend: str

    def __init__(self) -> None:
        super().__init__()
        self.fds = _open_files()
        self.loop = LOOPS[self.backend]()
        self.portal = self.main.portal(self.loop)
        self.world: World
        self.tasks = 0

    @initialize(nodes=graphs(), delay=st.sampled_from([0.0, 0.0, 3.0]))
    def make(self, nodes: list[Node], delay: float) -> None:
        """Make the guard, and start it."""

        async def make() -> None:
            self.tasks = len(anyio.get_running_tasks())
            self.world = World(nodes, delay)

        self.portal.call(make)
        self.start()

    # What may happen

    @precondition(lambda self: not self.world.hosted)
    @rule()
    def start(self) -> None:
        """Start it, the first time or once more."""
        self.portal.start_task_soon(self.world.host)
        self._settle()

    @rule(number=ANY, what=st.sampled_from(["open", "close"]), fate=st.data())
    def doom(self, number: int, what: str, fate: st.DataObject) -> None:
        """Say what becomes of an opening, or a closing, to come."""
        fates = ["fails", "fails", "hangs", "dawdles", "is hopeless"]
        drawn = fate.draw(st.sampled_from(fates[: 5 if what == "open" else 4]))
        self._actor(number).fates[what].append(drawn)

    @rule(number=ANY, health=st.sampled_from(["fine", "fails", "hangs", "is false"]))
    def make_ill(self, number: int, health: str) -> None:
        """Say what checks find."""
        self._actor(number).health = health

    @rule(number=ANY)
    def crash(self, number: int) -> None:
        """End a context manager while it is open."""
        crash = self._actor(number).crash
        if crash is not None:
            self.portal.call(crash.set)
            self._settle()

    @rule(path=st.sampled_from(["/", "/", "/first", "/open"]))
    def ask(self, path: str) -> None:
        """Make a request that stays for a while."""
        self.portal.start_task_soon(self.world.ask, path)
        self._settle()

    @rule()
    def let_go(self) -> None:
        """End the requests in flight."""
        self._let_go()

    @rule(seconds=st.sampled_from([0.001, 0.5, 1.0, 2.0, 5.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self._pass(seconds)

    @rule()
    def hurry(self) -> None:
        """Cut the waits short."""
        self.portal.call(self.world.guard.retry_now)
        self._settle()

    @rule(wanted=st.booleans())
    def pause(self, wanted: bool) -> None:
        """Withhold readiness, or no longer."""
        guard = self.world.guard
        self.portal.call(partial(guard.pause, "chaos") if wanted else guard.resume)
        self._settle()

    @precondition(lambda self: self.world.hosted)
    @rule()
    def recover(self) -> None:
        """Let everything be fine again; then it comes up, unless it gave up."""
        self._calm_down()
        self._pass(LONG)
        self.portal.call(self.world.look_for_the_late)

    # How it ends, perhaps to begin anew

    @precondition(lambda self: self.world.hosted)
    @rule()
    def signal(self) -> None:
        """Send the process a SIGTERM; the server stops when it hears of it."""

        async def send() -> None:
            signal.raise_signal(signal.SIGTERM)

        self.portal.call(send)
        self._settle()
        assert self.world.guard.phase is not Phase.SERVING

    @precondition(lambda self: self.world.hosted)
    @rule()
    def shut_down(self) -> None:
        """Have the server stop of its own accord."""
        self.portal.call(self.world.stop.set)
        self._settle()

    @precondition(lambda self: self.world.hosted)
    @rule()
    def cancel(self) -> None:
        """Cancel the server's task."""
        self.portal.call(self.world.scope.cancel)
        self._settle()

    @precondition(lambda self: self.world.hosted)
    @rule(politely=st.booleans())
    def stop_for_good(self, politely: bool) -> None:
        """Stop it in one way or the other, and wait for as long as that may take."""
        self._stop_for_good(politely=politely)

    def _stop_for_good(self, *, politely: bool) -> None:
        world = self.world
        starting = world.guard.phase is Phase.STARTING
        self.portal.call(
            world.stop.set if politely and not starting else world.scope.cancel
        )
        at_most = world.delay + GRACE + PATIENCE + SHUTDOWN_TIMEOUT + CLOSE_TIMEOUT
        self._pass(at_most)
        self.portal.call(world.look_back)
        assert world.wrong == []

    # What must hold

    @invariant()
    def all_is_well(self) -> None:
        """Whatever was just done, nothing is wrong."""
        self.portal.call(self.world.look)
        assert self.world.wrong == []

    def teardown(self) -> None:
        """Stop, and look for what is left over."""
        try:
            if hasattr(self, "world"):
                self._stop_for_good(politely=False)
                self._let_go()
                assert self.portal.call(_count_tasks) == self.tasks
        finally:
            self.portal.call(self.portal.stop, True)
        self.main.wait_idle()
        assert _open_files() <= self.fds

    # Small change

    def _actor(self, number: int) -> Actor:
        return self.world.actors[number % len(self.world.actors)]

    def _calm_down(self) -> None:
        for actor in self.world.actors:
            actor.health = "fine"
            for fates in actor.fates.values():
                fates.clear()

    def _let_go(self) -> None:
        async def let_go() -> None:
            for request in self.world.requests:
                request.set()

        self.portal.call(let_go)
        self._settle()

    def _settle(self) -> None:
        self.portal.call(self.loop.settle)

    def _pass(self, seconds: float) -> None:
        self.portal.call(self.loop.advance, seconds)


async def _count_tasks() -> int:
    return len(anyio.get_running_tasks())


def _open_files() -> int:
    return len(list(FDS.iterdir()))


@pytest.mark.parametrize("backend", LOOPS)
def test_chaos(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantees 2 to 8 hold, everything is closed once, and nothing is left over."""
    monkeypatch.setattr(logging.getLogger("asgi_lifespan_guard"), "disabled", True)
    for module in (owner, supervisor):
        monkeypatch.setattr(module, "monotonic", anyio.current_time)
    main = MainThread()
    machine: Any = type("Machine", (Chaos,), {"main": main, "backend": backend})
    if SEED is not None:
        machine = seed(int(SEED))(machine)
    limits = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        derandomize=SEED is None,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    main.run(lambda: run_state_machine_as_test(machine, settings=limits))
