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
from asgi_lifespan_guard._asgi.loading import as_asgi3
from asgi_lifespan_guard._plan import Plan
from tests.support.memory_server import MemoryServer
from tests.support.resources import hello


async def _open() -> Any:
    yield 1


DB = resource(_open, name="db")
CACHE = resource(_open, name="cache")
OPTIONAL = resource(_open, name="docs", required=False)
MODEL = resource(_open, name="model", startup="blocking")
TOY = resource(_open, name="toy", startup="blocking", required=False)


NEEDY = lifespan_of(needs=[CACHE])
UNKNOWN = Gate(needs={"/s": [CACHE]})


def plan(*resources: Any, app_lifespan: Any = "blocking", **needs: Any) -> Plan:
    """Make a plan; *needs* maps the name of a path to resources."""
    gate = Gate(needs={f"/{name}": needed for name, needed in needs.items()})
    return Plan(resources, app_lifespan, gate, Probes(), Drain(), 15.0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param({"app": "main:app"}, "is no ASGI app", id="app"),
        pytest.param({"app": None}, "is no ASGI app", id="no-app"),
        pytest.param({"resources": DB}, "must be a list", id="no-list"),
        pytest.param({"resources": [_open]}, "is no resource", id="no-resource"),
        pytest.param({"resources": [DB, DB]}, "used twice", id="twice"),
        pytest.param({"app_lifespan": "on"}, "must be 'blocking'", id="app-lifespan"),
        pytest.param({"app_lifespan": DB}, "must be 'blocking'", id="another-recipe"),
        pytest.param({"app_lifespan": None}, "must be 'blocking'", id="none"),
        pytest.param({"app_lifespan": NEEDY}, "does not know", id="app-needs"),
        pytest.param({"gate": 5.0}, "must be Gate(...)", id="gate"),
        pytest.param({"probes": "/livez"}, "must be Probes(...)", id="probes"),
        pytest.param({"probes": False}, "must be Probes(...)", id="probes-off"),
        pytest.param({"gate": UNKNOWN}, "'/s': ...}) names cache", id="unknown"),
        pytest.param({"shutdown_timeout": -1}, "0 or more", id="timeout"),
        pytest.param({"shutdown_timeout": None}, "number of seconds", id="no-timeout"),
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


def test_an_asgi_3_app_is_taken_as_it_is() -> None:
    """What is no class is called with three arguments."""
    assert as_asgi3(hello) is hello


@pytest.mark.anyio
async def test_an_asgi_2_class_is_adapted() -> None:
    """A class is an ASGI 2 app: called with the scope, then with receive and send."""

    class App:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            await hello(self.scope, receive, send)

    assert (await MemoryServer(as_asgi3(App)).get("/")).body == b"hello"
