"""The layout: who may import whom, and how big a module may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import asgi_lifespan_guard


PACKAGE = Path(asgi_lifespan_guard.__file__).parent
LAYERS = (
    {"_frozen", "_redaction"},
    {"_errors"},
    {"_phases", "_settings", "_state"},
    {"_report", "events"},
    {"_tasks"},
    {"observers"},
    {"_asgi", "_resources"},
    {"_app", "_lazy", "_main_process", "_signals"},
    {"_drain", "_plan"},
    {"_run"},
    {"_requests"},
    {"_guard"},
    {"auto", "integrations", "testing"},
    {"__init__"},
)
"""From the bottom to the top. An import goes strictly down, or stays in its folder."""

PLAIN = set.union(*LAYERS[:4])
LONGEST_FUNCTION = 50
LONGEST_MODULE = 410
LONGER = {"_guard.py": 530, "_resources/owner.py": 540}

MODULES = sorted(PACKAGE.rglob("*.py"))


def _id(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def _part(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(module: Path) -> Iterator[str]:
    """Yield the full name of everything that *module* imports, wherever it does so."""
    package = (PACKAGE.name, *module.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = (*base, *(node.module or "").split(".")) if node.module else base
            yield from (".".join((*stem, alias.name)) for alias in node.names)


def _ours(module: Path) -> set[str]:
    """Return the modules and folders of ours that *module* imports from."""
    names = (name.split(".") for name in _imports(module))
    return {name[1] for name in names if name[0] == PACKAGE.name}


def test_every_module_has_its_layer() -> None:
    """A new one is under the rule of the next test from its first day."""
    assert {_part(module) for module in MODULES} == set.union(*LAYERS)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: _id(module))
def test_imports_go_strictly_down(module: Path) -> None:
    """A module imports from lower layers, and from its own folder; nothing else."""
    part = _part(module)
    layer = next(n for n, layer in enumerate(LAYERS) if part in layer)
    below = set[str]().union(*LAYERS[:layer])
    own = {part} if module.parent != PACKAGE else set()
    assert _ours(module) - own <= below


@pytest.mark.parametrize("folder", ["_asgi", "_resources", "_tasks", "testing"])
def test_no_folder_imports_in_a_circle(folder: str) -> None:
    """Its modules can be read one after another."""
    graph = {
        module.stem: {
            name.split(".")[2]
            for name in _imports(module)
            if name.startswith(f"{PACKAGE.name}.{folder}.")
        }
        for module in (PACKAGE / folder).glob("*.py")
    }
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", ["_exchange", "_server"])
def test_the_server_in_memory_does_not_know_what_it_serves(name: str) -> None:
    """It speaks ASGI, and has never heard of guards and resources."""
    module = PACKAGE / "testing" / f"{name}.py"
    assert _ours(module) <= {"_asgi", "_tasks", "testing"}


def test_nothing_is_tested_in_production() -> None:
    """The kit for tests is imported by tests only."""
    users = [module for module in MODULES if "testing" in _ours(module)]
    assert {_part(module) for module in users} <= {"testing"}


@pytest.mark.parametrize(
    "module", [module for module in MODULES if _part(module) in PLAIN], ids=_id
)
def test_the_plain_vocabulary_awaits_nothing(module: Path) -> None:
    """No event loop's library in it, and no coroutine."""
    roots = {name.split(".")[0] for name in _imports(module)}
    assert roots.isdisjoint({"anyio", "asyncio", "trio", "tenacity"})
    nodes = ast.walk(ast.parse(module.read_text()))
    assert not any(isinstance(n, ast.AsyncFunctionDef | ast.Await) for n in nodes)


@pytest.mark.parametrize("module", MODULES, ids=_id)
def test_modules_and_functions_are_small(module: Path) -> None:
    """A module can be read at a sitting, and a function at a glance."""
    source = module.read_text()
    assert len(source.splitlines()) <= LONGER.get(_id(module), LONGEST_MODULE)
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


@pytest.mark.parametrize("module", MODULES, ids=_id)
def test_nothing_is_left_out_of_coverage(module: Path) -> None:
    """What cannot be tested is not written."""
    assert "pragma: no" + " cover" not in module.read_text()
