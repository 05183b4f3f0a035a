"""What a guard is told at construction: judged, and worked out once."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from asgi_lifespan_guard import (
    ConfigurationError,
    Drain,
    Gate,
    LifespanGuard,
    Probes,
    ResourcePhase,
    lifespan_of,
    resource,
)
from asgi_lifespan_guard._asgi.loading import LoadedApp
from asgi_lifespan_guard._plan import Plan
from tests.support.resources import hello


async def _open() -> Any:
    yield 1


def _make() -> Any:
    """Make an app."""
    return hello


async def _hear(event: Any) -> None:
    """Be told of an event, if somebody awaits it."""


class Listener:
    """Would be told of an event, if somebody awaited its call."""

    async def __call__(self, event: Any) -> None: ...


DB = resource(_open, name="db")
CACHE = resource(_open, name="cache")
OPTIONAL = resource(_open, name="docs", required=False)
MODEL = resource(_open, name="model", startup="blocking")
TOY = resource(_open, name="toy", startup="blocking", required=False)


NEEDY = lifespan_of(needs=[CACHE])
LATE = {"app": "main:app"}
WANTED = lifespan_of(required=False)
SWITCHED = lifespan_of(enabled=lambda: True)
UNKNOWN = Gate(needs={"/s": [CACHE]})


def plan(
    *resources: Any,
    app_lifespan: Any = "blocking",
    app: LoadedApp | None = None,
    lazy_start: bool = False,
    **needs: Any,
) -> Plan:
    """Make a plan; *needs* maps the name of a path to resources."""
    gate = Gate(needs={f"/{name}": needed for name, needed in needs.items()})
    args = (gate, Probes(), Drain(), 15.0, app)
    return Plan(resources, app_lifespan, *args, lazy_start=lazy_start)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param({"app": "main"}, "is 'module:attribute'", id="string"),
        pytest.param({"app": "main:"}, "is 'module:attribute'", id="no-attribute"),
        pytest.param({"app": "src/main.py:app"}, "'module:attribute'", id="file"),
        pytest.param({"app": _make}, "say app_factory=True", id="factory"),
        pytest.param({"app": None}, "is no ASGI app", id="no-app"),
        pytest.param({"resources": DB}, "must be a list", id="no-list"),
        pytest.param({"resources": [_open]}, "is no resource", id="no-resource"),
        pytest.param({"resources": [DB, DB]}, "used twice", id="twice"),
        pytest.param({"app_lifespan": "on"}, "must be 'blocking'", id="app-lifespan"),
        pytest.param({"app_lifespan": DB}, "must be 'blocking'", id="another-recipe"),
        pytest.param({"app_lifespan": None}, "must be 'blocking'", id="none"),
        pytest.param({"app_lifespan": NEEDY}, "does not know", id="app-needs"),
        pytest.param({**LATE, "app_lifespan": WANTED}, "required=False", id="wanted"),
        pytest.param({**LATE, "app_lifespan": SWITCHED}, "enabled=...", id="switched"),
        pytest.param({"gate": 5.0}, "must be Gate(...)", id="gate"),
        pytest.param({"probes": "/livez"}, "must be Probes(...)", id="probes"),
        pytest.param({"probes": False}, "must be Probes(...)", id="probes-off"),
        pytest.param({"gate": UNKNOWN}, "'/s': ...}) names cache", id="unknown"),
        pytest.param({"shutdown_timeout": -1}, "0 or more", id="timeout"),
        pytest.param({"shutdown_timeout": None}, "number of seconds", id="no-timeout"),
        pytest.param({"lazy_start": "no"}, "must be True or False", id="lazy-start"),
        pytest.param({"app_factory": 1}, "must be True or False", id="app-factory"),
        pytest.param({"observers": print}, "must be a list", id="one-observer"),
        pytest.param({"observers": ["log"]}, "takes an event", id="no-observer"),
        pytest.param({"observers": [Listener]}, "takes an event", id="observer-class"),
        pytest.param({"observers": [_hear]}, "is async", id="async-observer"),
        pytest.param({"observers": [Listener()]}, "is async", id="async-call"),
        pytest.param({"observers": [_open]}, "is async", id="async-generator"),
    ],
)
def test_mistakes_are_told_at_once(
    arguments: dict[str, Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong argument is logged as CRITICAL and raised, with what to write instead."""
    given = {"app": hello, "resources": [DB], **arguments}
    with pytest.raises(ConfigurationError) as caught:
        LifespanGuard(given.pop("app"), **given)
    assert text in str(caught.value)
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.CRITICAL, str(caught.value))
    ]


def test_requests_need_what_is_required() -> None:
    """A path that is not listed needs every required resource, and no other."""
    assert plan(DB, CACHE, OPTIONAL, MODEL, TOY).needed_by("/any") == (
        None,
        frozenset({"db", "cache", "model"}),
    )


def test_a_listed_path_needs_exactly_what_is_listed() -> None:
    """What is listed for a prefix holds below it, all others notwithstanding."""
    planned = plan(DB, CACHE, OPTIONAL, search=[OPTIONAL], open=())
    assert planned.needed_by("/search/x") == ("/search", frozenset({"docs"}))
    assert planned.needed_by("/open") == ("/open", frozenset())
    assert planned.needed_by("/searching") == (None, frozenset({"db", "cache"}))
    assert planned.needed_anywhere == {"db", "cache", "docs"}


@pytest.mark.parametrize(
    ("app_lifespan", "gates"),
    [
        ("blocking", False),
        (lifespan_of(startup="blocking"), False),
        ("background", True),
        (lifespan_of(), True),
        ("off", False),
    ],
    ids=["blocking", "blocking-recipe", "background", "background-recipe", "off"],
)
def test_requests_wait_for_an_app_in_the_background(
    app_lifespan: Any, gates: bool
) -> None:
    """Only an app that starts behind the open port is waited for."""
    planned = plan(app_lifespan=app_lifespan)
    assert ("app" in planned.needed_by("/any")[1]) is gates
    assert planned.transparent is not gates
    assert [r.name for r in planned.recipes] == ["app"] * (app_lifespan != "off")


def test_a_blocking_app_needs_what_blocks() -> None:
    """Forwarded before the port, the app finds the required blocking ones open."""
    recipe = plan(DB, MODEL, TOY).recipes[-1]
    assert (recipe.name, recipe.needs) == ("app", (MODEL,))


def test_nothing_is_transparent_with_a_resource() -> None:
    """Any resource shows in the state."""
    assert not plan(OPTIONAL).transparent


def test_reports_before_the_first_start() -> None:
    """Before anything ran, everything is pending."""
    reports = plan(DB, OPTIONAL, app_lifespan="background").unopened()
    assert [(r.name, r.required) for r in reports] == [
        ("db", True),
        ("docs", False),
        ("app", True),
    ]
    assert {r.phase for r in reports} == {ResourcePhase.PENDING}


def test_defaults() -> None:
    """Without a gate or probes given, the defaults hold."""
    planned = Plan([], "off", None, None, None, 15.0)
    assert (planned.gate, planned.probes) == (Gate(), Probes())


@pytest.mark.parametrize("app_lifespan", ["blocking", "background", "off"])
def test_an_imported_app_is_in_the_background(app_lifespan: Any) -> None:
    """Its import follows the port, whatever becomes of its lifespan."""
    late = LoadedApp("main:app", has_lifespan=app_lifespan != "off")
    (recipe,) = plan(app_lifespan=app_lifespan, app=late).recipes
    assert (recipe.name, recipe.startup) == ("app", "background")
    assert recipe.retry is not None


def test_a_recipe_may_have_an_import_block() -> None:
    """Who writes `startup="blocking"` has the import before the port."""
    recipe = lifespan_of(startup="blocking")
    assert plan(app_lifespan=recipe, app=LoadedApp("main:app")).recipes == (recipe,)


def test_a_factory_is_called_where_the_lifespan_is_run() -> None:
    """What a factory makes starts as any other app; without a lifespan, behind."""
    late = LoadedApp(_make, factory=True)
    assert plan(app=late).recipes[0].startup == "blocking"
    assert plan(app=late, app_lifespan="off").recipes[0].startup == "background"


@pytest.mark.parametrize("app_lifespan", ["blocking", "background", "off"])
def test_no_path_is_open_without_an_app(app_lifespan: Any) -> None:
    """Where the app is not there yet, every path needs it, be it declared open."""
    planned = plan(DB, app_lifespan=app_lifespan, app=LoadedApp("main:app"), open=())
    assert planned.needed_by("/open") == ("/open", frozenset({"app"}))
    assert planned.needed_by("/any") == (None, frozenset({"app", "db"}))


def test_no_path_is_open_before_a_lazy_start() -> None:
    """No server has waited for the app's startup: every path does, be it open."""
    planned = plan(DB, lazy_start=True, open=())
    assert planned.needed_by("/open") == ("/open", frozenset({"app"}))
    assert not planned.transparent
    without = plan(DB, app_lifespan="off", lazy_start=True, open=())
    assert without.needed_by("/open") == ("/open", frozenset())
