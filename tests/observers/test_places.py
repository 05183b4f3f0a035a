"""The line that an error is said to come from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from asgi_lifespan_guard import AppLifespanError
from asgi_lifespan_guard.observers._places import needs_traceback, place_of


PLACE = r"tests/observers/test_places\.py:\d+"


def module(folder: Path, name: str, text: str) -> dict[str, Any]:
    """Run the text of a module that is called *name*, in a file below *folder*."""
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(text, str(path), "exec"), namespace)
    return namespace


def raised_by(call: Callable[[], Any]) -> Exception:
    """Return what *call* raises, without the frame of this function."""
    return _from(lambda _: call(), None)


@pytest.fixture
def driver(tmp_path: Path) -> dict[str, Any]:
    """Return an installed package that cannot connect."""
    folder = tmp_path / "lib" / "site-packages"
    text = "def connect(dsn):\n    raise OSError('refused')\n"
    return module(folder, "driver.pool", text)


def test_the_line_of_the_program_that_called_the_driver(
    driver: dict[str, Any], tmp_path: Path
) -> None:
    """Not the driver's own; told from where the import began."""
    shop = module(tmp_path, "shop.db", "def connect(driver):\n    driver('dsn')\n")
    error = _from(shop["connect"], driver["connect"])
    assert place_of(error) == "shop/db.py:2"


def test_a_program_that_is_installed(driver: dict[str, Any], tmp_path: Path) -> None:
    """The outermost line, which is that of its factory."""
    folder = tmp_path / "lib" / "site-packages"
    shop = module(folder, "shop.db", "def connect(driver):\n    driver('dsn')\n")
    error = _from(shop["connect"], driver["connect"])
    assert place_of(error) == "shop/db.py:2"


def test_a_package_is_named_with_its_file(tmp_path: Path) -> None:
    """An ``__init__.py`` alone would say nothing."""
    text = "def connect(_):\n    1 / 0\n"
    namespace: dict[str, Any] = {"__name__": "shop"}
    exec(compile(text, str(tmp_path / "shop" / "__init__.py"), "exec"), namespace)
    assert place_of(_from(namespace["connect"], None)) == "shop/__init__.py:2"


def _from(call: Callable[[Any], Any], argument: Any) -> Exception:
    """Return what *call* raises, with its own frames only."""
    raised: Exception | None = None
    try:
        call(argument)
    except Exception as error:
        raised = error
    assert raised is not None
    assert raised.__traceback__ is not None
    return raised.with_traceback(raised.__traceback__.tb_next)


def test_what_carries_a_call_on_names_nothing() -> None:
    """The standard library, anyio and the like: the line is the caller's."""
    error = raised_by(lambda: json.loads("{"))
    assert _matches(place_of(error))

    async def in_a_thread() -> None:
        await anyio.to_thread.run_sync(lambda: json.loads("{"))

    assert _matches(place_of(raised_by(lambda: anyio.run(in_a_thread))))


def test_no_line_is_known() -> None:
    """Of an error that was never raised, or by the standard library alone."""
    assert place_of(OSError()) is None
    assert place_of(_from(json.loads, "{")) is None


def test_the_cause_is_asked_where_the_error_has_no_line() -> None:
    """Ours are made where nothing has been raised yet."""
    late = TimeoutError()
    late.__cause__ = raised_by(lambda: json.loads("{"))
    assert _matches(place_of(late))


def test_causes_in_a_circle_come_to_an_end() -> None:
    """They cannot be raised so, but made."""
    one, other = OSError(), OSError()
    one.__cause__, other.__cause__ = other, one
    assert place_of(one) is None


def test_a_group_is_where_its_first_error_is() -> None:
    """A task group names nothing itself."""
    group = ExceptionGroup("", [raised_by(lambda: json.loads("{")), OSError()])
    assert _matches(place_of(group))
    assert _matches(place_of(AppLifespanError("startup", group)))


@pytest.mark.parametrize(
    ("error", "needs"),
    [
        (OSError(), False),
        (ExceptionGroup("", [OSError(), TimeoutError()]), False),
        (AppLifespanError("startup", OSError()), False),
        (AppLifespanError("startup", None), False),
        (AppLifespanError("startup", KeyError("a")), True),
        (ExceptionGroup("", [OSError(), ValueError()]), True),
        (KeyError("DATABASE_URL"), True),
    ],
    ids=repr,
)
def test_a_mistake_is_worth_its_traceback(error: Exception, needs: bool) -> None:
    """An outage is told in one line."""
    assert needs_traceback(error) is needs


def _matches(place: str | None) -> bool:
    return re.fullmatch(PLACE, str(place)) is not None
