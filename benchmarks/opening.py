"""How long many resources take to open: a part of the benchmark `startup`."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from asgi_lifespan_guard import LifespanGuard, Resource, resource

from .hello import hello
from .measure import Row, serving, until


def opening_rows(quick: bool) -> list[Row]:
    """Measure very many trivial resources, and graphs of slow ones."""
    return [
        _many_row(100 if quick else 1000, 2 if quick else 7),
        *_path_rows(1 if quick else 10),
    ]


async def _seconds_to_ready(resources: list[Resource[Any]]) -> float:
    opened = 0

    def count(event: object) -> None:
        nonlocal opened
        opened += type(event).__name__ == "ResourceOpened"

    guard = LifespanGuard(hello, resources, app_lifespan="off", observers=[count])
    begun = time.perf_counter()
    async with serving(guard):
        await until(lambda: opened == len(resources))
        took = time.perf_counter() - begun
        assert guard.ready
    return took


async def _trivial() -> AsyncGenerator[object, None]:
    yield object()


def _many_row(number: int, times: int) -> Row:
    def once() -> float:
        resources = [resource(_trivial, name=f"r{index}") for index in range(number)]
        return asyncio.run(_seconds_to_ready(resources)) * 1000

    took = [once() for _ in range(times)]
    note = f"best {min(took):.0f}"
    return Row(f"opening {number:,} trivial resources", median(took), "ms", 40.0, note)


@dataclass(frozen=True, slots=True)
class Node:
    """One resource of a random graph: opening it is a sleep."""

    sleep: float
    needs: tuple[int, ...]


def _graph(seed: int) -> list[Node]:
    """Return up to 100 nodes, each needing some of those before it."""
    rng = random.Random(seed)
    nodes: list[Node] = []
    for index in range(rng.randint(20, 100)):
        near = range(max(0, index - 20), index)
        needs = rng.sample(near, min(len(near), rng.randint(0, 3)))
        nodes.append(Node(rng.uniform(0.005, 0.04), tuple(needs)))
    return nodes


def _critical_path(nodes: list[Node]) -> float:
    ends: list[float] = []
    for node in nodes:
        ends.append(node.sleep + max((ends[need] for need in node.needs), default=0.0))
    return max(ends)


def _path_rows(graphs: int) -> list[Row]:
    guarded: list[float] = []
    plain: list[float] = []
    for seed in range(graphs):
        nodes = _graph(seed)
        path = _critical_path(nodes)
        assert path >= 0.1
        guarded.append(asyncio.run(_seconds_to_ready(_as_resources(nodes))) / path)
        plain.append(asyncio.run(_without_us(nodes)) / path)
    what = "time to ready / critical path"
    note = f"{min(guarded):.3f} to {max(guarded):.3f} in {graphs} random graphs"
    control = "what the event loop's timers add by themselves"
    return [
        Row(what, median(guarded), "×", 1.05, note),
        Row(f"{what}, bare tasks", median(plain), "×", None, control),
    ]


def _as_resources(nodes: list[Node]) -> list[Resource[Any]]:
    made: list[Resource[Any]] = []
    for index, node in enumerate(nodes):
        needs = [made[need] for need in node.needs]
        made.append(resource(_sleeper(node.sleep), name=f"r{index}", needs=needs))
    return made


def _sleeper(seconds: float) -> Callable[..., AsyncGenerator[float, None]]:
    async def open_it(*_needs: float) -> AsyncGenerator[float, None]:
        await asyncio.sleep(seconds)
        yield seconds

    return open_it


async def _without_us(nodes: list[Node]) -> float:
    done = [asyncio.Event() for _ in nodes]

    async def open_it(index: int) -> None:
        for need in nodes[index].needs:
            await done[need].wait()
        await asyncio.sleep(nodes[index].sleep)
        done[index].set()

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for index in range(len(nodes)):
            group.create_task(open_it(index))
    return time.perf_counter() - begun
