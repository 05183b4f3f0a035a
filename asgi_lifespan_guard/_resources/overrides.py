"""Stand-ins: what a resource is opened through while a test overrides it.

For the whole process on purpose: a test client runs the app in a thread of its own,
and a guard may be built long before the test. Recipes stay what they are; whoever is
about to open them asks here what to open instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from .._errors import ConfigurationError
from .._frozen import Frozen
from .._state import APP
from .factories import Form, check_arity, form_of
from .resource import Resource


class StandIn(Frozen):
    """What is opened instead of a resource.

    Attributes:
        recipe: What is opened; has the resource's name.
        shown: What requests see of it where nothing is opened, if that is known.
    """

    recipe: Resource[Any]
    shown: Mapping[str, Any] | None = None


_standing: dict[Resource[Any], list[StandIn]] = {}


def put(recipe: Resource[Any], stand_in: StandIn) -> None:
    """Have *stand_in* opened for *recipe*, until it is taken away."""
    _standing.setdefault(recipe, []).append(stand_in)


def take_away(recipe: Resource[Any], stand_in: StandIn) -> None:
    """Undo `put`; what was put there before, or since, stays."""
    standing = _standing[recipe]
    last = max(n for n, other in enumerate(standing) if other is stand_in)
    del standing[last]
    if not standing:
        del _standing[recipe]


def to_open(recipes: Iterable[Resource[Any]]) -> list[Resource[Any]]:
    """Return *recipes*, with stand-ins where there are any."""
    return [
        _standing[recipe][-1].recipe if recipe in _standing else recipe
        for recipe in recipes
    ]


def to_show(recipes: Iterable[Resource[Any]]) -> tuple[frozenset[str], dict[str, Any]]:
    """Return what can be had of *recipes* without opening anything.

    Returns:
        The names of those that can, and what requests are to see of them.
    """
    names: set[str] = set()
    values: dict[str, Any] = {}
    for recipe in recipes if _standing else ():
        shown = _standing[recipe][-1].shown if recipe in _standing else None
        if shown is not None:
            names.add(recipe.name)
            values.update(shown)
    return frozenset(names), values


def showing(recipe: Resource[Any], value: Any) -> StandIn:
    """Make a stand-in that is nothing but *value*.

    Raises:
        ConfigurationError: When *recipe* cannot be overridden, or not by that.
    """
    _check_replaceable(recipe)
    if recipe.merges and not isinstance(value, Mapping):
        raise ConfigurationError(
            f"override({recipe.name}, value={value!r}): an app's lifespan yields a"
            " mapping, which is merged into the state"
        )
    # Not a step: values that want closing are somebody else's here.
    made = _made(recipe, lambda: nullcontext(value), Form.CALLABLE, ())
    return StandIn(made, value if recipe.merges else {recipe.name: value})


def opening(recipe: Resource[Any], factory: object) -> StandIn:
    """Make a stand-in of a factory, or of another recipe.

    Raises:
        ConfigurationError: When *recipe* cannot be overridden, or not by that.
    """
    _check_replaceable(recipe)
    if isinstance(factory, Resource):
        return StandIn(_opened_like(recipe, factory))
    if not callable(factory):
        raise ConfigurationError(
            f"override({recipe.name}, {factory!r}): is not callable; to show it as it"
            f" is, say override({recipe.name}, value=...)"
        )
    needs = _needs_taken(recipe, factory)
    return StandIn(_made(recipe, factory, form_of(factory), needs))


def _made(
    recipe: Resource[Any],
    factory: Callable[..., Any],
    form: Form,
    needs: tuple[Resource[Any], ...],
) -> Resource[Any]:
    return replace(
        recipe,
        factory=factory,
        form=form,
        needs=needs,
        enabled=True,
        timeout=None if form.threaded else recipe.timeout,
        retry=None,
        check=None,
        on_give_up="unready",
    )


def _opened_like(recipe: Resource[Any], other: Resource[Any]) -> Resource[Any]:
    _check_replaceable(other)
    return replace(
        other,
        name=recipe.name,
        needs=_needs_taken(recipe, other.factory),
        startup=recipe.startup,
        required=recipe.required,
        on_give_up="unready",
        outlasts_needs=recipe.outlasts_needs,
        merges=recipe.merges,
        closes_first=recipe.closes_first,
    )


def _needs_taken(
    recipe: Resource[Any], factory: Callable[..., Any]
) -> tuple[Resource[Any], ...]:
    """Return the needs whose values *factory* is called with: all of them, or none."""
    try:
        check_arity(recipe.name, factory, [need.name for need in recipe.needs])
    except ConfigurationError as misfit:
        try:
            check_arity(recipe.name, factory, ())
        except ConfigurationError:
            raise misfit from None
        return ()
    return recipe.needs


def _check_replaceable(recipe: object) -> None:
    if not isinstance(recipe, Resource):
        raise ConfigurationError(
            f"override({recipe!r}): is no resource; give what @resource made"
        )
    if recipe.name == APP:
        raise ConfigurationError(
            "override(lifespan_of()): the wrapped app's own lifespan cannot be"
            " overridden; give the guard of the test app_lifespan='off'"
        )
