"""Which resources a guard has, and whether they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from .._errors import ConfigurationError
from .resource import Resource


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
    graph = {r.name: [need.name for need in r.needs] for r in recipes}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " needs ".join(map(repr, reversed(error.args[1])))
        raise ConfigurationError(
            f"resources need one another in a circle: {circle}; take one need away"
        ) from None
