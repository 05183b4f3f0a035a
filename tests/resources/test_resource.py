"""Recipes: judged when they are made, frozen, and asked for their value."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Generator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from asgi_lifespan_guard import (
    ConfigurationError,
    Resource,
    ResourceUnavailableError,
    Retry,
    lifespan_of,
    resource,
)
from asgi_lifespan_guard._resources.retry import equal_jitter


async def factory() -> AsyncGenerator[str, None]:
    """Yield a value."""
    yield "value"


async def of_one(one: Any) -> AsyncGenerator[str, None]:
    """Yield a value; needs one."""
    yield "value"


def threaded() -> Generator[str, None, None]:
    """Yield a value, in a thread."""
    yield "value"


BACKGROUND = resource(factory, name="db")
OPTIONAL = resource(factory, name="extra", required=False)


def test_a_decorator_takes_options_or_none() -> None:
    """`@resource`, `@resource(...)` and `resource(factory, ...)` are the same."""

    @resource
    async def plain() -> AsyncGenerator[str, None]:
        yield "value"

    @resource(timeout=7)
    async def optioned() -> AsyncGenerator[str, None]:
        yield "value"

    assert (plain.name, optioned.name, BACKGROUND.name) == ("plain", "optioned", "db")
    assert (plain.timeout, optioned.timeout) == (30, 7)


def test_the_defaults_are_those_of_the_documentation() -> None:
    """Background, required, enabled, 30 s to open, 10 s to close, retried for ever."""
    db = resource(factory)
    assert (db.startup, db.required, db.enabled) == ("background", True, True)
    assert (db.timeout, db.close_timeout, db.on_give_up) == (30, 10, "unready")
    assert db.retry is not None
    assert db.retry.wait is equal_jitter
    assert db.needs == ()


def test_a_blocking_resource_is_tried_once() -> None:
    """Its default policy is none; one that is given is kept."""
    assert resource(factory, startup="blocking").retry is None
    retry = Retry()
    assert resource(factory, startup="blocking", retry=retry).retry is retry


def test_a_thread_has_all_the_time_it_needs() -> None:
    """Nothing can cancel it, so the default bounds nothing."""
    assert resource(threaded).timeout is None
    assert resource(threaded, timeout=7).timeout == 7


def test_a_recipe_is_frozen_and_itself() -> None:
    """It does not change, and equals no other; its repr hides the factory."""
    db = resource(factory)
    with pytest.raises(dataclasses.FrozenInstanceError):
        db.name = "other"  # type: ignore[misc]
    assert db != resource(factory)
    assert len({db, resource(factory)}) == 2
    assert "factory=" not in repr(db)


async def asked_with_await() -> bool:
    """Be a coroutine function, whose coroutine would always be true."""
    return False


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (httpx.AsyncClient, {}, "has no telling name; say resource(..., name='...')"),
    (lambda: factory(), {}, "has no telling name"),
    (factory, {"name": "my-db"}, "no Python identifier"),
    (factory, {"name": ""}, "request.state.<name>"),
    (factory, {"name": 7}, "no Python identifier"),
    (factory, {"name": "app"}, "is reserved"),
    (factory, {"name": "asgi_lifespan_guard"}, "is reserved"),
    (factory, {"name": "_db"}, "choose another with name='...'"),
    (factory, {"needs": BACKGROUND}, "must be a list of resources"),
    (factory, {"needs": "db"}, "must be a list of resources"),
    (factory, {"needs": ["db"]}, "the objects that @resource made"),
    (factory, {"startup": "later"}, "must be 'background' or 'blocking'"),
    (factory, {"required": "no"}, "must be True or False"),
    (factory, {"on_give_up": "die"}, "must be 'unready'"),
    (factory, {"retry": 3}, "must be Retry(wait=..., stop=..., when=...), or None"),
    (factory, {"enabled": "no"}, "must be a bool, or a callable that returns one"),
    (factory, {"enabled": asked_with_await}, "not a coroutine function"),
    (factory, {"timeout": 0}, "seconds, more than 0"),
    (factory, {"timeout": "30"}, "must be a number of seconds"),
    (factory, {"close_timeout": -1}, "resource 'factory'(close_timeout=-1)"),
    (factory, {"close_timeout": None}, "must be a number of seconds"),
    (
        of_one,
        {"needs": [BACKGROUND], "startup": "blocking"},
        "make 'db' blocking too, or 'of_one' background",
    ),
    (
        of_one,
        {"needs": [OPTIONAL]},
        "make 'extra' required, or 'of_one' required=False",
    ),
    (of_one, {}, "'of_one' has no needs=, and its factory cannot be called with 0"),
    (factory, {"needs": [BACKGROUND]}, "one for each of its needs, in their order"),
]


@pytest.mark.parametrize(("made_of", "options", "text"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_recipe_is_told_with_its_remedy(
    made_of: Any, options: dict[str, Any], text: str
) -> None:
    """The error names the resource, what was given, and what it must be."""
    with pytest.raises(ConfigurationError) as caught:
        resource(made_of, **options)
    assert text in str(caught.value)


def test_a_factory_without_a_signature_is_taken() -> None:
    """Arguments of a C function cannot be judged before it is called."""
    assert resource(iter, name="db", needs=[BACKGROUND]).needs == (BACKGROUND,)


def test_the_name_of_a_function_is_judged_too() -> None:
    """A function called `app` needs another name for its resource."""

    async def app() -> AsyncGenerator[str, None]:
        yield "value"

    with pytest.raises(ConfigurationError, match="reserved"):
        resource(app)
    assert resource(app, name="other").name == "other"


def test_an_apps_lifespan_has_its_own_reserved_name() -> None:
    """It is called `app`; its needs are checked, its arguments are the guard's."""
    app = lifespan_of(needs=[BACKGROUND])
    assert (app.name, app.needs) == ("app", (BACKGROUND,))
    with pytest.raises(ConfigurationError, match="'app' is blocking"):
        lifespan_of(needs=[BACKGROUND], startup="blocking")


@pytest.mark.parametrize(
    "source",
    [
        {"state": {"db": "value"}},
        SimpleNamespace(scope={"state": {"db": "value"}}),
        SimpleNamespace(state={"db": "value"}),
    ],
    ids=["scope", "request", "guard"],
)
def test_the_value_is_found_in_whatever_is_at_hand(source: Any) -> None:
    """A scope, a request and a guard all lead to it."""
    assert BACKGROUND.get(source) == "value"
    assert OPTIONAL.get(source, None) is None


def test_a_value_that_is_away_is_told() -> None:
    """The error says where it may have gone; a default, even `None`, is returned."""
    with pytest.raises(ResourceUnavailableError, match="'db' is not in the state"):
        BACKGROUND.get({"state": {}})
    assert BACKGROUND.get({"state": {}}, 7) == 7
    assert BACKGROUND.get({"state": {"db": None}}) is None


def test_a_recipe_is_generic() -> None:
    """`Resource[str]` can be written where a type is wanted."""
    assert Resource[str] is not Resource


FACTORY: Any = lambda *_: None  # noqa: E731


def test_a_timeout_is_one_that_clocks_can_hold() -> None:
    """More than three hundred years are a mistake, which trio would die of."""
    with pytest.raises(ConfigurationError, match="must be a number of seconds"):
        resource(FACTORY, name="db", timeout=10**400)


def test_a_recipe_is_shown_without_its_needs() -> None:
    """Or many layers of them would fill the screen with one another."""
    base = resource(FACTORY, name="base")
    assert "'base'" not in repr(resource(FACTORY, name="db", needs=[base]))
