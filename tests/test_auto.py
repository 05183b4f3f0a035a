"""A guard from the environment alone."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import asgi_lifespan_guard.auto as auto
from asgi_lifespan_guard import ConfigurationError, Drain, Gate, LifespanGuard, Probes
from asgi_lifespan_guard.auto import guard_from
from tests.support.memory_server import MemoryServer
from tests.support.modules import Modules


def given(**values: str) -> dict[str, str]:
    """Return an environment with our variables, and another."""
    ours = {f"LIFESPAN_GUARD_{name}": value for name, value in values.items()}
    return {"PATH": "/bin", "LIFESPAN_GUARD_APP": "tests_auto:app", **ours}


def plan_of(**values: str) -> Any:
    """Return the settings of the guard that is made of *values*."""
    return guard_from(given(**values))._plan


def test_the_app_alone() -> None:
    """Everything else has its usual default."""
    plan = plan_of()
    assert (plan.gate, plan.probes, plan.drain) == (Gate(), Probes(), Drain())
    assert plan.shutdown_timeout == 15.0
    assert [recipe.startup for recipe in plan.recipes] == ["background"]


def test_every_setting() -> None:
    """Each variable is one option."""
    plan = plan_of(
        FACTORY="1",
        APP_LIFESPAN="off",
        WAIT="2.5",
        MAX_WAITING="7",
        LIVE="/alive",
        READY="",
        STARTUP="/started",
        DETAILS="true",
        DELAY="3",
        GRACE="4",
        ENDLESS="/events, /logs,",
        SHUTDOWN_TIMEOUT="5",
    )
    assert plan.gate == Gate(wait=2.5, max_waiting=7)
    assert plan.probes == Probes(
        live="/alive", ready=None, startup="/started", details=True
    )
    assert plan.drain == Drain(delay=3, grace=4, endless=("/events", "/logs"))
    assert plan.shutdown_timeout == 5.0


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"APP": ""}, "LIFESPAN_GUARD_APP is not set; it names the app"),
        ({"APP": "main"}, "LIFESPAN_GUARD_APP='main': must be 'module:attribute'"),
        ({"APP": "main.py:app:x"}, "such as main:app"),
        ({"FACTORY": "yes"}, "LIFESPAN_GUARD_FACTORY='yes': must be 1 or 0"),
        ({"WAIT": "5s"}, "LIFESPAN_GUARD_WAIT='5s': must be a number of seconds"),
        ({"MAX_WAITING": "1e3"}, "MAX_WAITING='1e3': must be a whole number"),
        ({"GRACE": "-1"}, "Drain(grace=-1.0): must be"),
        ({"APP_LIFESPAN": "on"}, "APP_LIFESPAN='on': must be background or off"),
        ({"APP_LIFESPAN": "blocking"}, "imported behind the open port"),
        ({"SERVICE_PORTS": "80"}, "LIFESPAN_GUARD_SERVICE_PORTS is no setting"),
        (
            {"WAITS": "5"},
            "LIFESPAN_GUARD_WAITS is no setting; there are LIFESPAN_GUARD",
        ),
    ],
    ids=lambda value: (
        None
        if isinstance(value, str)
        else next(iter(value)) + "-" + "".join(value.values())
    ),
)
def test_mistakes(
    values: dict[str, str], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake is raised and logged as CRITICAL, once, with the variable's name."""
    with pytest.raises(ConfigurationError) as caught:
        guard_from(given(**values))
    assert text in str(caught.value)
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.CRITICAL, str(caught.value))
    ]


@pytest.mark.parametrize("service", ["", "APP_", "WEB_2_"])
def test_what_kubernetes_tells_of_a_service_is_left_alone(service: str) -> None:
    """A Service named `lifespan-guard`, or `lifespan-guard-app`, is no setting."""
    link = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
        "PORT": "tcp://10.0.0.1:80",
        "PORT_80_TCP": "tcp://10.0.0.1:80",
        "PORT_80_TCP_PROTO": "tcp",
        "PORT_80_TCP_PORT": "80",
        "PORT_80_TCP_ADDR": "10.0.0.1",
    }
    plan = plan_of(**{service + name: value for name, value in link.items()})
    assert plan.gate == plan_of().gate


def test_nothing_is_set(caplog: pytest.LogCaptureFixture) -> None:
    """Without the one required variable it is said what to set."""
    with pytest.raises(ConfigurationError, match="such as LIFESPAN_GUARD_APP=main:app"):
        guard_from({})


@pytest.fixture
def reloaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return what imports the module anew, in an environment of one's own."""

    def reload(**environ: str) -> Any:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        auto.__dict__.pop("app", None)
        return importlib.reload(auto)

    monkeypatch.delenv("LIFESPAN_GUARD_APP", raising=False)
    yield reload
    monkeypatch.undo()
    auto.__dict__.pop("app", None)
    importlib.reload(auto)


def test_the_app_is_in_the_modules_dict(reloaded: Any) -> None:
    """Hypercorn looks for it there, not with `getattr`."""
    module = reloaded(**given())
    assert isinstance(vars(module)["app"], LifespanGuard)
    assert module.app is module.app


def test_a_mere_import_raises_nothing(
    reloaded: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Without an environment the import is fine, but who asks for the app hears why."""
    module = reloaded()
    assert "LIFESPAN_GUARD_APP is not set" in caplog.text
    with pytest.raises(ConfigurationError, match="LIFESPAN_GUARD_APP is not set"):
        _ = module.app
    with pytest.raises(AttributeError, match="no attribute 'guard'"):
        _ = module.guard


@pytest.mark.anyio
async def test_it_serves_the_app(modules: Modules) -> None:
    """The guard imports the app when it starts, and puts requests to it."""
    modules.write("tests_auto", "from tests.support.resources import hello as app")
    async with MemoryServer(guard_from(given())) as server:
        assert (await server.get("/")).body == b"hello"
        assert (await server.get("/readyz")).status == 200
