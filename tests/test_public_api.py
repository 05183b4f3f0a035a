"""What the package shows: complete, true, and explained."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import typing
from importlib import import_module
from importlib.resources import files
from types import ModuleType

import pytest

import asgi_lifespan_guard
from asgi_lifespan_guard import events


NAME = "asgi_lifespan_guard"
MODULES = [NAME] + [
    found.name
    for found in pkgutil.walk_packages(asgi_lifespan_guard.__path__, f"{NAME}.")
]
PUBLIC = [import_module(name) for name in MODULES if "._" not in name]


def test_all_is_complete_and_true() -> None:
    """`__all__` names what the package imports from its modules: no more, no less."""
    source = files(NAME).joinpath("__init__.py").read_text()
    imported = {
        alias.asname or alias.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    told = asgi_lifespan_guard.__all__
    assert set(told) == imported
    assert list(told) == sorted(set(told))
    assert all(hasattr(asgi_lifespan_guard, name) for name in told)


def test_every_error_is_public() -> None:
    """What may be raised can be caught by its public name."""
    errors = import_module(f"{NAME}._errors")
    raised = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Exception)
    }
    assert raised <= set(asgi_lifespan_guard.__all__)


def test_the_public_modules_are_those() -> None:
    """Everything else begins with an underscore."""
    public = {module.__name__.removeprefix(f"{NAME}.") for module in PUBLIC}
    frameworks = {f"integrations.{name}" for name in ("django", "litestar", "quart")}
    observers = {"observers", "observers.logging"}
    others = {NAME, "auto", "events", "integrations", "testing"}
    assert public == frameworks | observers | others


def test_every_event_is_public() -> None:
    """What an observer is told can be matched by its public name, and `Event` too."""
    told = {event.__name__ for event in typing.get_args(events.Event)}
    assert set(events.__all__) == told | {"Event", "Observer"}
    assert list(events.__all__) == sorted(events.__all__)


def test_types_are_shipped() -> None:
    """Type checkers take the package's own types."""
    assert files(NAME).joinpath("py.typed").is_file()


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_public_object_is_explained(module: ModuleType) -> None:
    """Modules, classes, functions and methods have docstrings of their own."""
    names = getattr(module, "__all__", None) or [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") in MODULES
    ]
    silent = [name for name in names if not _is_explained(getattr(module, name))]
    assert module.__doc__
    assert silent == []


def _is_explained(thing: object) -> bool:
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return True
    members: list[object] = [thing]
    if inspect.isclass(thing):
        members += [
            member.fget if isinstance(member, property) else member
            for name, member in vars(thing).items()
            if not name.startswith("_")
            and (inspect.isfunction(member) or isinstance(member, property))
        ]
    return all(member.__doc__ for member in members)
