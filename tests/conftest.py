"""Fixtures for every test: the event loops, and a recorder."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.recorder import Recorder
from tests.support.modules import Modules
from tests.transitions import transitions


LAST = "test_the_suite_fires_every_row_and_no_other"


def pytest_configure() -> None:
    """Note which transitions the suite fires."""
    transitions.watch()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the test that looks back at all others after them."""
    items.sort(key=lambda item: item.name == LAST)


LOOPS = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]

if sys.version_info >= (3, 12):

    def eager_loop() -> asyncio.AbstractEventLoop:
        """Make an event loop whose tasks run at once, up to their first wait."""
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    LOOPS += [pytest.param(("asyncio", {"loop_factory": eager_loop}), id="eager")]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run an async test (marked ``anyio``) on each event loop."""
    return request.param


@pytest.fixture
def recorder() -> Recorder:
    """Return an observer that keeps what it is told."""
    return Recorder()


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    """Return a directory on the import path, for the test's own modules."""
    modules = Modules(tmp_path, monkeypatch)
    yield modules
    modules.forget()
