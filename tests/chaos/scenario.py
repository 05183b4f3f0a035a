"""What may happen, as data: drawn from a seed, printed as Python, and made smaller.

A seed stands for a scenario only as long as nothing here changes. What is to be kept is
therefore the scenario itself: its ``repr`` leaves out what is usual, and is Python.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar


T = TypeVar("T")


class _Told:
    """Shows itself as the call that makes it, without what is usual."""

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)  # type: ignore[arg-type]
            if getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class Ask(_Told):
    """A resource's check.

    Attributes:
        answers: What it finds in turn (see `ANSWERS`); then it is ``"ok"``.
    """

    then: str = "report"
    every: float = 5.0
    timeout: float = 1.0
    failures: int = 2
    successes: int = 1
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Node(_Told):
    """A resource.

    Attributes:
        kind: ``"context"``, ``"step"``, ``"lifespan"`` (of an app) or ``"thread"``.
        needs: Numbers of other nodes, all lower than its own.
        enabled: ``"yes"``, ``"no"`` or ``"raises"``.
        retry: A key of `RETRIES`.
        group: What is held over the ``yield``: ``None``, ``"anyio"`` or ``"native"``
            (an `asyncio.TaskGroup`). Its child crashes when told to.
        swallows: Whether the context manager logs an ``Exception`` and ends.
        pauses: Whether opening awaits anything.
        openings: What becomes of the attempts in turn (see `OPENINGS`); then ``"ok"``.
        closings: The same, for closing.
    """

    kind: str = "context"
    needs: tuple[int, ...] = ()
    blocking: bool = False
    required: bool = True
    enabled: str = "yes"
    retry: str | None = "steady"
    timeout: float | None = 4.0
    close_timeout: float = 3.0
    ask: Ask | None = None
    group: str | None = None
    swallows: bool = False
    pauses: bool = True
    openings: tuple[str, ...] = ()
    closings: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Happening(_Told):
    """Something that is done to the guard, or to a resource.

    Attributes:
        what: See `HAPPENINGS`.
        when: Seconds since the cycle began; or a line of the transcript, such as
            ``"closing r1"`` or ``"AttemptFailed r1"``: then it is done within that
            line, in an observer, perhaps.
        nth: Which of those lines; 0: each of them.
        target: A node's number; -1: the app.
    """

    what: str
    when: float | str = 0.0
    nth: int = 1
    target: int = 0


@dataclass(frozen=True, repr=False)
class Scenario(_Told):
    """One guard, from its making to its last stop.

    Attributes:
        app: The wrapped app's own lifespan, if it has one.
        stops: For each start/stop cycle, when the server stops it.
        polite: Whether the server says ``lifespan.shutdown``, rather than cancels.
        drain: ``None``, or the seconds of ``Drain(grace=...)``.
        leftover: Whether the server's task has a cancellation that it never took back.
        luck: Seeds jitter, and trio's order of tasks.
    """

    nodes: tuple[Node, ...] = ()
    app: Node | None = None
    happenings: tuple[Happening, ...] = ()
    backend: str = "asyncio"
    stops: tuple[float, ...] = (20.0,)
    polite: bool = True
    shutdown_timeout: float = 6.0
    drain: float | None = None
    leftover: bool = False
    luck: int = 0


OPENINGS = {
    "ok": 3,
    "dawdles": 2,
    "fails": 5,
    "fails late": 2,
    "fails in a group": 1,
    "hangs": 2,
    "lingers": 1,
    "is hopeless": 1,
    "panics": 1,
    "panics in a group": 1,
}
CLOSINGS = {
    "ok": 2,
    "dawdles": 4,
    "fails": 2,
    "hangs": 2,
    "swallows": 1,
    "lingers": 1,
    "panics": 1,
}
ANSWERS = {"ok": 2, "fails": 6, "is false": 1, "hangs": 2, "lingers": 1, "panics": 1}
ON_ASYNCIO = {"leaves a cancellation": 1, "awaits what is cancelled": 1}

HAPPENINGS = {
    "crash": 8,
    "crash by panic": 1,
    "end": 1,
    "retry": 3,
    "suspect": 2,
    "pause": 1,
    "resume": 1,
    "drain": 1,
    "stop": 1,
    "probe": 1,
    "ask": 1,
    "ask the first": 1,
}
NATIVE = {"cancel the owner": 3, "cancel the server": 1, "signal": 1}
LINES = {
    "attempt": 2,
    "opened": 2,
    "asked": 2,
    "closing": 4,
    "closed": 2,
    "AttemptFailed": 3,
    "ResourceCrashed": 2,
    "ResourceDown": 2,
    "ResourceGaveUp": 1,
    "ResourceReopening": 2,
    "ResourceOpened": 1,
    "ResourceClosed": 1,
}
RETRIES = {
    "steady": 10,
    "three": 3,
    "zero": 2,
    "usual": 2,
    "of its own kind": 2,
    None: 2,
    "nan": 0.3,
    "negative": 0.3,
    "raises": 0.3,
    "forever": 0.2,
}


class Draw:
    """Draws a scenario from a seed."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)
        self._wild = 0.0

    def scenario(self) -> Scenario:
        """Draw one."""
        self._wild = self._random.choice([0.1, 0.3, 0.5])
        backend = self._of({"asyncio": 3, "trio": 1})
        native = backend == "asyncio"
        nodes: list[Node] = []
        for _ in range(self._of({1: 3, 2: 6, 3: 6, 4: 4, 5: 3, 6: 2, 7: 1, 8: 1})):
            nodes.append(self._node(nodes, native=native))
        app = self._app(nodes) if self._chance(0.25) else None
        numbers = range(-1 if app else 0, len(nodes))
        happenings = (
            self._happening(numbers, native=native)
            for _ in range(self._of({0: 2, 1: 3, 2: 4, 3: 4, 4: 2, 6: 1}))
        )
        stops = {(3.0,): 2, (9.0,): 3, (20.0,): 3, (70.0,): 3, (8.0, 30.0): 1}
        return Scenario(
            nodes=tuple(nodes),
            app=app,
            happenings=tuple(happenings),
            backend=backend,
            stops=self._of(stops),
            polite=not self._chance(0.2),
            shutdown_timeout=self._of({6.0: 5, 0.5: 1, 2.0: 1}),
            drain=self._of({None: 4, 5.0: 1}),
            leftover=native and self._chance(0.03),
            luck=self._random.randrange(1000),
        )

    def _of(self, weights: dict[T, Any]) -> T:
        return self._random.choices(list(weights), list(weights.values()))[0]

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _some(self, weights: dict[str, Any], *more: dict[str, Any]) -> tuple[str, ...]:
        """Draw what becomes of a few attempts, often nothing in particular."""
        if not self._chance(self._wild):
            return ()
        all_weights = dict(weights)
        for others in more:
            all_weights.update(others)
        if self._chance(0.2):  # the same for long
            return (self._of(all_weights),) * 12
        return tuple(self._of(all_weights) for _ in range(self._random.randint(1, 4)))

    def _node(self, nodes: list[Node], *, native: bool) -> Node:
        kinds = {"context": 16, "step": 3, "lifespan": 2, "thread": 0.1 * native}
        kind = self._of(kinds)
        blocking, required = self._chance(0.3), self._chance(0.65)
        held = kind == "context"
        return Node(
            kind=kind,
            needs=self._needs(nodes, blocking=blocking, required=required),
            blocking=blocking,
            required=required,
            enabled=self._of({"yes": 15, "no": 1, "raises": 0.3}),
            retry=self._of(RETRIES),
            timeout=None if kind == "thread" else self._of({4.0: 3, 1.0: 1}),
            close_timeout=self._of({3.0: 3, 1.0: 1}),
            ask=self._ask(step=kind == "step") if kind in ("context", "step") else None,
            group=self._of({None: 2, "anyio": 2, "native": 2}) if held else None,
            swallows=held and self._chance(0.15),
            pauses=self._chance(0.8),
            openings=self._openings(kind, native=native),
            closings=self._some(CLOSINGS) if kind != "step" else (),
        )

    def _openings(self, kind: str, *, native: bool) -> tuple[str, ...]:
        if kind == "thread":
            return self._some({"ok": 1, "fails": 2, "is hopeless": 1})
        own = native and kind != "lifespan"
        return self._some(OPENINGS, ON_ASYNCIO if own else {})

    def _needs(
        self, nodes: list[Node], *, blocking: bool, required: bool
    ) -> tuple[int, ...]:
        possible = [
            number
            for number, node in enumerate(nodes)
            if (node.required or not required)
            and (node.blocking or not blocking)
            and node.kind != "lifespan"
        ]
        share = self._random.choice([0.2, 0.5, 0.8])
        return tuple(number for number in possible if self._chance(share))

    def _ask(self, *, step: bool) -> Ask | None:
        if self._chance(0.5):
            return None
        return Ask(
            then=self._of({"hold": 2, "report": 1} | ({} if step else {"reopen": 2})),
            every=self._of({5.0: 2, 1.0: 1}),
            timeout=self._of({1.0: 3, 8.0: 1}),
            failures=self._of({1: 1, 2: 2}),
            successes=self._of({1: 3, 2: 1}),
            answers=self._answers(),
        )

    def _answers(self) -> tuple[str, ...]:
        first = ("ok",) * self._of({0: 1, 1: 2, 2: 1})
        return first + (self._some(ANSWERS) or self._some(ANSWERS))

    def _app(self, nodes: list[Node]) -> Node:
        blocking = self._chance(0.5)
        return Node(
            kind="lifespan",
            needs=self._needs(nodes, blocking=blocking, required=True),
            blocking=blocking,
            retry=self._of(RETRIES),
            close_timeout=self._of({3.0: 3, 1.0: 1}),
            openings=self._some(OPENINGS),
            closings=self._some(CLOSINGS),
        )

    def _happening(self, numbers: range, *, native: bool) -> Happening:
        what = self._of({**HAPPENINGS, **(NATIVE if native else {})})
        target = self._random.choice(numbers)
        at = self._random.choice([0.0, 0.5, 1.0, 2.5, 5.0, 5.5, 6.0, 7.5, 10.0, 12.0])
        if self._chance(0.5):
            return Happening(what, when=at, target=target)
        name = name_of(self._random.choice(numbers))
        line = f"{self._of(LINES)} {name}"
        nth = self._of({1: 3, 2: 1, 0: what == "retry"})
        return Happening(what, when=line, nth=nth, target=target)


def name_of(number: int) -> str:
    """Return the name of the node with that number."""
    return "app" if number < 0 else f"r{number}"


def smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Yield scenarios with a little less in them, the greatest cuts first."""
    for number in reversed(range(len(scenario.nodes))):
        yield _without_node(scenario, number)
    if scenario.app is not None:
        others = (h for h in scenario.happenings if h.target >= 0)
        yield replace(scenario, app=None, happenings=tuple(others))
    for number in range(len(scenario.happenings)):
        left = _without(scenario.happenings, number)
        yield replace(scenario, happenings=left)
    if len(scenario.stops) > 1:
        yield replace(scenario, stops=scenario.stops[:1])
    yield from _plainer(scenario, "nodes", "app", "happenings", "stops")
    for number, node in enumerate(scenario.nodes):
        for simple in _simpler(node):
            nodes = list(scenario.nodes)
            nodes[number] = simple
            yield replace(scenario, nodes=tuple(nodes))
    if scenario.app is not None:
        for simple in _simpler(scenario.app):
            yield replace(scenario, app=simple)


def _simpler(node: Node) -> Iterator[Node]:
    yield from _plainer(node, "kind", "openings", "closings", "ask")
    for fates in ("openings", "closings"):
        for cut in _cuts(getattr(node, fates)):
            yield _with(node, fates, cut)
    for number in range(len(node.needs)):
        yield replace(node, needs=_without(node.needs, number))
    if node.ask is not None:
        yield replace(node, ask=None)
        for ask in _plainer(node.ask, "answers"):
            yield replace(node, ask=ask)
        for cut in _cuts(node.ask.answers):
            yield replace(node, ask=replace(node.ask, answers=cut))


def _with(node: Node, fates: str, cut: Any) -> Node:
    return replace(node, **{fates: cut})


def _plainer(thing: Any, *spared: str) -> Iterator[Any]:
    """Yield *thing* with one field as usual."""
    for field in fields(thing):
        usual = getattr(thing, field.name) == field.default
        if field.name not in spared and not usual:
            yield replace(thing, **{field.name: field.default})


def _cuts(fates: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if len(fates) > 2:
        yield fates[: len(fates) // 2]
    for number, fate in enumerate(fates):
        yield _without(fates, number)
        if fate != "ok":
            yield (*fates[:number], "ok", *fates[number + 1 :])


def _without(things: tuple[T, ...], number: int) -> tuple[T, ...]:
    return things[:number] + things[number + 1 :]


def _without_node(scenario: Scenario, number: int) -> Scenario:
    """Leave out a node; what it needs is not needed instead, and names move up."""

    def moved(other: int) -> int:
        return other - (other > number)

    def moved_line(when: float | str) -> float | str:
        if isinstance(when, float | int):
            return when
        line, _, name = when.rpartition(" ")
        return f"{line} {name_of(moved(int(name[1:])))}" if name != "app" else when

    def relieved(node: Node) -> Node:
        needs = (moved(need) for need in node.needs if need != number)
        return replace(node, needs=tuple(needs))

    gone = f" {name_of(number)}"
    happenings = (
        replace(h, target=moved(h.target), when=moved_line(h.when))
        for h in scenario.happenings
        if h.target != number and not str(h.when).endswith(gone)
    )
    return replace(
        scenario,
        nodes=tuple(map(relieved, _without(scenario.nodes, number))),
        app=None if scenario.app is None else relieved(scenario.app),
        happenings=tuple(happenings),
    )
