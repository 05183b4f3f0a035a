"""What benchmarks share: rows of results, measuring in turns, a guard that serves."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from asgi_lifespan_guard import LifespanGuard


if TYPE_CHECKING:
    from collections.abc import Generator


@dataclass(frozen=True, slots=True)
class Row:
    """One number.

    Attributes:
        what: What was measured.
        value: The number.
        unit: Written after it.
        bound: The most that it may be; ``None``: it is there for comparison.
        note: The figures behind it.
    """

    what: str
    value: float
    unit: str = ""
    bound: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the bound is met, in a word."""
        if self.bound is None:
            return ""
        return "met" if self.value <= self.bound else "missed"


@dataclass(frozen=True, slots=True)
class Times:
    """How long one variant took in each round.

    Attributes:
        rounds: In the order of measuring.
    """

    rounds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The least disturbed round: noise only ever adds."""
        return min(self.rounds)

    @property
    def median(self) -> float:
        """What is usual."""
        return median(self.rounds)


def in_turns(
    variants: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, Times]:
    """Measure each of *variants* once in every round.

    Whatever else the machine is doing hits all of them alike. Each round begins with
    another variant, so that none always comes after the same one.
    """
    found: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            found[name].append(variants[name]())
    return {name: Times(tuple(times)) for name, times in found.items()}


@contextmanager
def no_collection() -> Generator[None, None, None]:
    """Keep the garbage collector out of nanosecond measurements."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@asynccontextmanager
async def serving(guard: LifespanGuard) -> AsyncGenerator[dict[str, Any], None]:
    """Run *guard*'s lifespan in a task, as a server does; give the state dict.

    Background resources have begun to open when the block is entered.
    """
    state: dict[str, Any] = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    started = asyncio.Event()

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] != "lifespan.startup.complete":
            assert message["type"] == "lifespan.shutdown.complete", message
        started.set()

    task = asyncio.create_task(guard(scope, messages.get, send))
    messages.put_nowait({"type": "lifespan.startup"})
    await started.wait()
    try:
        yield state
    finally:
        messages.put_nowait({"type": "lifespan.shutdown"})
        await task


async def until(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    """Wait until *condition* holds, looking every millisecond."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.001)


def silence() -> None:
    """Keep the guard's lines off the terminal, and its logger as it is by default."""
    logger = logging.getLogger("asgi_lifespan_guard")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
