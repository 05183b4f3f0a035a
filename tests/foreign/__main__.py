"""Runs other people's tests, bare and with every app in a guard: ``make foreign``.

The suites come with the projects' own source archives, in the versions that
`constraints.txt` beside this names; the code that they test is what is installed. Each
test must end guarded as it does bare, but for the few below, each for its reason. With
arguments (``starlette``) only these suites are run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree


HERE = Path(__file__).resolve().parent
SOURCES = Path(sys.prefix) / "foreign"
TIMEOUT = "30"
"""Seconds for one test."""

GETS_ONE = "an app without a lifespan gets one (the fourth exception)"
TURNS = "it counts on an answer within a turn or a millisecond of the event loop"
SHUT_DOWN = "a lifespan that its server cancels is shut down as well"


class Suite(NamedTuple):
    """Somebody's tests.

    Attributes:
        project: Its name in the package index.
        tests: What to run of it, and how.
        explained: Tests that end otherwise when guarded, and why.
        left_out: Tests that would never end when guarded, and why.
    """

    project: str
    tests: tuple[str, ...]
    explained: dict[str, str]
    left_out: dict[str, str]


SUITES = (
    Suite(
        "starlette",
        ("tests", "-p", "no:asyncio"),
        {"tests.test_testclient::test_exception_in_middleware": GETS_ONE},
        {},
    ),
    Suite(
        "uvicorn",
        (
            *("tests/middleware", "tests/protocols", "tests/test_lifespan.py"),
            *("-p", "no:asyncio"),
        ),
        {
            "tests.middleware.test_logging::test_default_logging": GETS_ONE,
            "tests.test_lifespan::test_lifespan_auto_with_error": GETS_ONE,
            "tests.test_lifespan::test_lifespan_on_with_error": GETS_ONE,
        },
        {},
    ),
    Suite(
        "falcon",
        (
            *("tests/asgi", "--ignore=tests/asgi/test_asgi_servers.py"),
            *("tests/test_error_handlers.py", "tests/test_headers.py"),
            *("tests/test_httperror.py", "tests/test_after_hooks.py"),
            *("-p", "no:asyncio"),
        ),
        {
            "tests.asgi.test_scope::test_supported_asgi_version": TURNS,
            "tests.asgi.test_lifespan_handlers"
            "::test_asgi_conductor_raised_error_skips_shutdown": SHUT_DOWN,
        },
        {
            "tests/asgi/test_scope.py::test_lifespan_scope_default_version": TURNS,
            "tests/asgi/test_scope.py::test_lifespan_scope_version": TURNS,
            # It tells of the shutdown before the lifespan has asked for a message.
            "tests/asgi/test_ws.py::test_ws_simulator_client_require_accepted": TURNS,
        },
    ),
    Suite("asgiref", ("tests",), {}, {}),
)


def main(wanted: list[str]) -> int:
    """Run them all, or those *wanted*, and print what came of it."""
    head = ("suite", "passed bare", "passed guarded", "differ", "unexplained")
    rows: list[tuple[str, ...]] = [head]
    unexplained = 0
    for suite in (s for s in SUITES if not wanted or s.project in wanted):
        release = version(suite.project)
        folder = unpacked(suite.project, release)
        bare = outcomes(folder, suite)
        guarded = outcomes(folder, suite, "-p", "guarded_apps")
        differing = {t for t in bare | guarded if bare.get(t) != guarded.get(t)}
        wrong = surprises(suite, differing)
        for test in wrong:
            say(f"{test}: {bare.get(test)} bare, {guarded.get(test)} guarded")
        unexplained += len(wrong)
        figures = map(str, (passed(bare), passed(guarded), len(differing), len(wrong)))
        rows.append((f"{suite.project} {release}", *figures))
    show(rows)
    return int(unexplained > 0)


def surprises(suite: Suite, differing: set[str]) -> list[str]:
    """Return the tests that differ without a reason, or do not differ with one."""
    known = {function_of(test) for test in differing}
    new = (test for test in differing if function_of(test) not in suite.explained)
    return sorted((*new, *(suite.explained.keys() - known)))


def function_of(test: str) -> str:
    """Return the name of a test without its parameters."""
    return test.partition("[")[0]


def passed(ended: dict[str, str]) -> int:
    """Return how many tests passed."""
    return list(ended.values()).count("passed")


def unpacked(project: str, release: str) -> Path:
    """Return the folder of a project's sources, without the code itself."""
    name = project.replace("-", "_")
    folder = SOURCES / f"{name}-{release}"
    if not folder.exists():
        wanted = ("--no-deps", "--no-binary", project, f"{project}=={release}")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
        command = (*pip, "download", *wanted, "-d", str(SOURCES))
        subprocess.run(command, check=True)
        with tarfile.open(f"{folder}.tar.gz") as archive:
            archive.extractall(SOURCES, filter="data")
        shutil.rmtree(folder / name)
    return folder


def outcomes(folder: Path, suite: Suite, *options: str) -> dict[str, str]:
    """Run a suite, and return how each of its tests ended."""
    say(f"== {suite.project} {' '.join(options)}")
    told = SOURCES / "told.xml"
    told.unlink(missing_ok=True)
    pytest = (sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "--no-summary")
    without = (f"--deselect={test}" for test in suite.left_out)
    quiet = ("--timeout", TIMEOUT, "--junitxml", str(told), "-p", "no:cacheprovider")
    subprocess.run(
        (*pytest, *suite.tests, *without, *quiet, *options),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    cases = ElementTree.parse(told).iter("testcase")
    return {f"{case.get('classname')}::{case.get('name')}": end(case) for case in cases}


def end(case: ElementTree.Element) -> str:
    """Return how a test ended."""
    return next((child.tag for child in case if child.tag in _ENDS), "passed")


_ENDS = ("failure", "error", "skipped")


def show(rows: list[tuple[str, ...]]) -> None:
    """Print a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        say("  ".join(cell.ljust(width) for cell, width in cells).rstrip())


def say(text: str) -> None:
    """Tell whoever looks on."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
