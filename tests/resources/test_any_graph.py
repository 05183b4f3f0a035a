"""Any graph of resources, whatever crashes in it and whenever it is stopped."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_lifespan_guard import Resource, ResourcePhase, Retry, resource
from tests.recorder import Recorder
from tests.resources.stage import Stage


AT_ONCE = Retry(wait=lambda _: 0)


@dataclass
class Node:
    """One resource, its needs among the nodes before it, and its fate."""

    kind: str
    needs: set[int]
    failures: int
    crashes: int


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    """Draw a graph of a few nodes."""
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, 6))):
        node = Node(
            kind=draw(st.sampled_from(["held", "held", "step", "skipped"])),
            needs=draw(st.sets(st.integers(0, number - 1))) if number else set(),
            failures=draw(st.integers(0, 1)),
            crashes=draw(st.integers(0, 1)),
        )
        nodes.append(node)
    return nodes


class World:
    """Opens the nodes, and at every mark looks whether the order is kept."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.stage = Stage(Recorder())
        self.open: set[int] = set()
        self.crash: dict[int, anyio.Event] = {}
        self.opened: list[int] = []
        self.wrong: list[str] = []

    def recipes(self) -> list[Resource[Any]]:
        made: list[Resource[Any]] = []
        for number, node in enumerate(self.nodes):
            make = self._step(number) if node.kind == "step" else self._held(number)
            made.append(
                resource(
                    make,
                    name=f"r{number}",
                    needs=[made[need] for need in sorted(node.needs)],
                    enabled=node.kind != "skipped",
                    retry=AT_ONCE,
                )
            )
        return made

    def below(self, number: int) -> Iterator[int]:
        """Yield what must be open while *number* is, through steps that ran."""
        for need in self.nodes[number].needs:
            if self.nodes[need].kind == "held":
                yield need
            if self.nodes[need].kind == "step":
                yield from self.below(need)

    def _step(self, number: int) -> Callable[..., Any]:
        async def step(*values: object) -> None:
            self._check_needs(number)
            await checkpoint()
            self._fail_at_first(number)

        return step

    def _held(self, number: int) -> Callable[..., Any]:
        async def held(*values: object) -> AsyncGenerator[None, None]:
            await checkpoint()
            self._fail_at_first(number)
            async with anyio.create_task_group() as group:
                group.start_soon(self._crash, number)
                self._note_open(number)
                try:
                    yield
                finally:
                    self._note_close(number)
                    group.cancel_scope.cancel()

        return held

    def _fail_at_first(self, number: int) -> None:
        if self.nodes[number].failures:
            self.nodes[number].failures -= 1
            raise OSError

    async def _crash(self, number: int) -> None:
        crash = self.crash[number] = anyio.Event()
        await crash.wait()
        raise RuntimeError

    def _check_needs(self, number: int) -> None:
        missing = set(self.below(number)) - self.open
        if missing:
            self.wrong.append(f"r{number} opened without {missing}")

    def _note_open(self, number: int) -> None:
        self._check_needs(number)
        if number in self.open:
            self.wrong.append(f"r{number} opened twice")
        self.open.add(number)
        self.opened.append(number)

    def _note_close(self, number: int) -> None:
        users = {user for user in self.open if number in self.below(user)}
        if users:
            self.wrong.append(f"r{number} closed under {users}")
        self.open.remove(number)

    def all_are_up(self) -> bool:
        up = (ResourcePhase.UP, ResourcePhase.SKIPPED)
        return all(r.phase in up for r in self.stage.supervisor.report())

    async def live(self) -> None:
        """Come up, crash what is to crash, come up again each time, and stop."""
        async with self.stage.running(*self.recipes()):
            await self.stage.recorder.wait_until(self.all_are_up)
            for number, node in enumerate(self.nodes):
                if node.kind == "held" and node.crashes:
                    await anyio.wait_all_tasks_blocked()
                    times = self.opened.count(number)
                    self.crash[number].set()
                    await self._until_reopened(number, times)
        assert self.open == set()
        assert self.wrong == []

    async def _until_reopened(self, number: int, times: int) -> None:
        await self.stage.recorder.wait_until(
            lambda: self.opened.count(number) > times and self.all_are_up()
        )

    async def be_cut_off(self, after: int) -> None:
        """Begin to come up, and be stopped after some switches."""
        async with self.stage.running(*self.recipes()):
            for _ in range(after):
                await checkpoint()
        assert self.open == set()
        assert self.wrong == []


def _run(anyio_backend: Any, main: Callable[[], Any]) -> None:
    backend, options = anyio_backend
    anyio.run(main, backend=backend, backend_options=options)


quick = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@quick
@given(graphs())
def test_whatever_crashes_the_order_is_kept(
    anyio_backend: Any, nodes: list[Node]
) -> None:
    """Nothing is ever open without what it needs, and all comes back up."""
    world = World(nodes)
    _run(anyio_backend, world.live)


@quick
@given(graphs(), st.integers(0, 40))
def test_whenever_it_is_stopped_all_is_closed(
    anyio_backend: Any, nodes: list[Node], after: int
) -> None:
    """A stop at any moment of the opening closes what is open, in order."""
    world = World(nodes)
    _run(anyio_backend, lambda: world.be_cut_off(after))


@pytest.mark.parametrize("crashing", [0, 1, 2, 3])
def test_a_chain_through_a_step_comes_back(anyio_backend: Any, crashing: int) -> None:
    """One graph that is known to be hard: held, step, held, held."""
    kinds = ["held", "step", "held", "held"]
    nodes = [
        Node(kind, {number - 1} if number else set(), 0, int(number == crashing))
        for number, kind in enumerate(kinds)
    ]
    _run(anyio_backend, World(nodes).live)
