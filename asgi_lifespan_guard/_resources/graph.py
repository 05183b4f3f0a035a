"""Which resources a guard has, whether they fit together, and who needs whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any, Self, TypeVar

from .._errors import ConfigurationError
from .._phases import RESOURCE_TRANSITIONS, Lifecycle, ResourcePhase
from .._report import OPEN
from .factories import Form
from .resource import Resource


N = TypeVar("N", bound="Node")


def check_resources(resources: object) -> tuple[Resource[Any], ...]:
    """Return *resources* as a tuple.

    Raises:
        ConfigurationError: When one is no resource, a name is used twice, a need is
            not among them, or they need one another in a circle.
    """
    recipes = _listed(resources)
    _check_names(recipes)
    _check_needs(recipes)
    _check_cycles(recipes)
    return recipes


def _listed(resources: object) -> tuple[Resource[Any], ...]:
    if not isinstance(resources, Sequence) or isinstance(resources, str):
        raise ConfigurationError(
            f"resources={resources!r} must be a list of what @resource made"
        )
    for item in resources:
        if not isinstance(item, Resource):
            raise ConfigurationError(
                f"resources=[... {item!r} ...] is no resource; decorate it with"
                " @resource, or wrap it: resource(factory, name='...')"
            )
    return tuple(resources)


def _check_names(recipes: Sequence[Resource[Any]]) -> None:
    seen: set[str] = set()
    for recipe in recipes:
        if recipe.name in seen:
            raise ConfigurationError(
                f"resource name {recipe.name!r} is used twice; names are the keys of"
                " the state, so give one of them another: name='...'"
            )
        seen.add(recipe.name)


def _check_needs(recipes: Sequence[Resource[Any]]) -> None:
    known = {recipe.name for recipe in recipes}
    for recipe in recipes:
        for need in recipe.needs:
            if need.name not in known:
                raise ConfigurationError(
                    f"resource {recipe.name!r} needs {need.name!r}, which the guard"
                    f" does not know; add it: resources=[{need.name}, {recipe.name}]"
                )


def _check_cycles(recipes: Sequence[Resource[Any]]) -> None:
    if not any(recipe.needs for recipe in recipes):
        return
    from graphlib import CycleError, TopologicalSorter

    graph = {r.name: [need.name for need in r.needs] for r in recipes}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " needs ".join(map(repr, reversed(error.args[1])))
        raise ConfigurationError(
            f"resources need one another in a circle: {circle}; take one need away"
        ) from None


class Node:
    """A running resource among the others; what moves there is its owner's business.

    Args:
        recipe: What is opened here.
        moved: Called with the old and the new phase.

    Attributes:
        needs: What it needs, in order.
        dependents: What needs it.
        outlives: What at a stop is closed before it is, though it does not need it
            (the app's own lifespan is the first to go).
        outlived_by: The same, seen from the other side.
        value: What it opened, while it is up.
        next_attempt_at: When the next attempt is due, on `time.monotonic`, which
            needs no event loop to be read; ``None`` where it does not wait for one.
        is_step: Whether it is a one-shot step; some are known by what they return.
    """

    def __init__(
        self,
        recipe: Resource[Any],
        moved: Callable[[ResourcePhase, ResourcePhase], None],
    ) -> None:
        self.recipe = recipe
        self.needs: list[Self] = []
        self.dependents: list[Self] = []
        self.outlives: list[Self] = []
        self.outlived_by: list[Self] = []
        self.value: Any = None
        self.next_attempt_at: float | None = None
        self.is_step = recipe.form is Form.STEP
        self._life = Lifecycle(
            recipe.name, RESOURCE_TRANSITIONS, ResourcePhase.PENDING, moved
        )

    @property
    def phase(self) -> ResourcePhase:
        """Where it stands."""
        return self._life.phase

    @property
    def is_open(self) -> bool:
        """Whether its value can be used: up, failing its checks, or off."""
        return self._life.phase in OPEN

    @property
    def is_withheld(self) -> bool:
        """Whether requests are kept from it, and from what needs it, though it is open.

        Its check fails, and was declared to hold them until it passes.
        """
        check = self.recipe.check
        failing = self._life.phase is ResourcePhase.FAILING
        return failing and check is not None and check.then == "hold"

    @property
    def is_skipped(self) -> bool:
        """Whether it is switched off."""
        return self._life.phase is ResourcePhase.SKIPPED

    @property
    def is_lost(self) -> bool:
        """Whether it will not come up any more."""
        return self._life.phase in (ResourcePhase.FAILED, ResourcePhase.CLOSED)

    def outlasts_its_needs(self) -> bool:
        """Whether it stays open, as it is, while what it needs is opened again."""
        once = self.is_step or self.recipe.outlasts_needs
        return once and self.phase in (ResourcePhase.UP, ResourcePhase.FAILING)

    def deep_needs(self) -> Sequence[Self]:
        """Its needs, and through a step (which stays) also what the step needs."""
        return _walk(self.needs, lambda need: need.needs)

    def deep_dependents(self) -> Iterator[Self]:
        """Those who must be closed before it is: the other side of `deep_needs`."""
        found = _walk(self.dependents, lambda dependent: dependent.dependents)
        return (node for node in found if not node.outlasts_its_needs())

    def all_dependents(self) -> set[Self]:
        """Everything that needs it, directly or not."""
        return _closure(self.dependents, lambda node: node.dependents)

    def all_needs(self) -> set[Self]:
        """Everything that it needs, directly or not."""
        return _closure(self.needs, lambda node: node.needs)

    def is_passed_through(self) -> bool:
        """Whether those on its two sides depend on one another directly."""
        return self.is_step and self.phase is not ResourcePhase.SKIPPED


def _walk(first: list[N], further: Callable[[N], list[N]]) -> Sequence[N]:
    """Return *first*, and what lies behind those of them that are passed through."""
    for node in first:
        if node.is_passed_through():
            break
    else:
        return first
    found: dict[N, None] = {}
    ahead = first[::-1]
    while ahead:
        node = ahead.pop()
        if node not in found:
            found[node] = None
            if node.is_passed_through():
                ahead += further(node)[::-1]
    return list(found)


def _closure(first: Iterable[N], further: Callable[[N], list[N]]) -> set[N]:
    found: set[N] = set()
    ahead = list(first)
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead += further(node)
    return found


def connect(nodes: Mapping[str, N]) -> None:
    """Let each of *nodes*, by name, know its neighbours."""
    for node in nodes.values():
        node.needs = [nodes[need.name] for need in node.recipe.needs]
        for need in node.needs:
            need.dependents.append(node)
    for node in nodes.values():
        if node.recipe.closes_first:
            _close_first(node, nodes.values())


def due_in(nodes: Iterable[Node], now: float) -> float:
    """Return the least number of seconds until all *nodes* may be up; inf: never.

    Args:
        nodes: Running resources.
        now: On the clock of `time.monotonic`.
    """
    latest = now
    seen: set[Node] = set()
    ahead = list(nodes)
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.is_open and not node.is_withheld:
            ahead += (need for need in node.all_needs() if need.is_withheld)
            continue
        if node.is_lost:
            return inf
        if node.next_attempt_at is None:
            ahead += node.needs
        else:
            latest = max(latest, node.next_attempt_at)
    return latest - now


def _close_first(first: N, nodes: Iterable[N]) -> None:
    spared = {first, *first.all_dependents()}
    for node in nodes:
        if node not in spared:
            node.outlives.append(first)
            first.outlived_by.append(node)
