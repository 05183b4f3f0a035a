"""The house: who may import whom, and how big a room may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import asgi_lifespan_guard


HOUSE = Path(asgi_lifespan_guard.__file__).parent
HALL = {
    "_errors",
    "events",
    "_report",
    "_phases",
    "_redaction",
    "_settings",
    "_state",
}
MAY_IMPORT = {
    "_asgi": HALL | {"_asgi", "_tasks"},
    "_resources": HALL | {"_resources", "_tasks"},
    "_process": HALL | {"_process", "_tasks"},
    "_tasks": HALL | {"_tasks"},
    "observers": HALL | {"observers"},
} | dict.fromkeys(HALL, HALL)
LONGEST_FUNCTION = 50
LONGEST_MODULE = 300
# One of these is a closed set, the other says each option of `resource` three times.
LONGER = {"events.py": 370, "_lifetime.py": 310, "_resources/resource.py": 330}

ROOMS = sorted(HOUSE.rglob("*.py"))


def _id(room: Path) -> str:
    return room.relative_to(HOUSE).as_posix()


def _place(room: Path) -> str:
    return room.relative_to(HOUSE).parts[0].removesuffix(".py")


def _imports(room: Path) -> Iterator[str]:
    """Yield the full name of everything that *room* imports, wherever it does so."""
    package = (HOUSE.name, *room.relative_to(HOUSE).parts[:-1])
    for node in ast.walk(ast.parse(room.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = (*base, *(node.module or "").split(".")) if node.module else base
            yield from (".".join((*stem, alias.name)) for alias in node.names)


def _ours(room: Path) -> set[str]:
    """Return the places in the house that *room* imports from."""
    names = (name.split(".") for name in _imports(room))
    return {name[1] for name in names if name[0] == HOUSE.name}


@pytest.mark.parametrize(
    "room", [room for room in ROOMS if _place(room) in MAY_IMPORT], ids=_id
)
def test_a_room_imports_only_what_its_place_allows(room: Path) -> None:
    """The hall knows itself, the wings the hall and the cellar; nobody the door."""
    assert _ours(room) <= MAY_IMPORT[_place(room)]


@pytest.mark.parametrize("name", ["_exchange", "_server"])
def test_the_server_in_memory_does_not_know_what_it_serves(name: str) -> None:
    """It speaks ASGI, and has never heard of guards and resources."""
    room = HOUSE / "testing" / f"{name}.py"
    assert _ours(room) <= {"_asgi", "_tasks", "testing"}


def test_nothing_is_tested_in_production() -> None:
    """The kit for tests is imported by tests only."""
    users = [room for room in ROOMS if "testing" in _ours(room)]
    assert {_place(room) for room in users} <= {"testing"}


@pytest.mark.parametrize(
    "room", [room for room in ROOMS if _place(room) in HALL], ids=_id
)
def test_the_hall_awaits_nothing(room: Path) -> None:
    """It is plain vocabulary: no event loop's library, and no coroutine."""
    roots = {name.split(".")[0] for name in _imports(room)}
    assert roots.isdisjoint({"anyio", "asyncio", "trio", "tenacity"})
    nodes = ast.walk(ast.parse(room.read_text()))
    assert not any(isinstance(n, ast.AsyncFunctionDef | ast.Await) for n in nodes)


@pytest.mark.parametrize("room", ROOMS, ids=_id)
def test_rooms_and_functions_are_small(room: Path) -> None:
    """A module can be read at a sitting, and a function at a glance."""
    source = room.read_text()
    assert len(source.splitlines()) <= LONGER.get(_id(room), LONGEST_MODULE)
    long = [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and _length(node) > LONGEST_FUNCTION
    ]
    assert long == []


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    explained = ast.get_docstring(node, clean=False) is not None
    begin = (first.end_lineno or 0) + 1 if explained else first.lineno
    return (node.end_lineno or 0) - begin + 1


@pytest.mark.parametrize("room", ROOMS, ids=_id)
def test_nothing_is_left_out_of_coverage(room: Path) -> None:
    """What cannot be tested is not written."""
    assert "pragma: no" + " cover" not in room.read_text()


def test_the_rules_cover_every_place() -> None:
    """A new room is either under a rule, or one of the doors."""
    doors = {
        "__init__",
        "_admission",
        "_controls",
        "_cycle",
        "_drain",
        "_guard",
        "_hosting",
        "_lazy",
        "_lifespan_of",
        "_lifetime",
        "_plan",
        "_stop_signals",
        "auto",
        "testing",
    }
    assert {_place(room) for room in ROOMS} - set(MAY_IMPORT) <= doors
