"""Fixtures for every test: the three event loops, and a recorder."""

from __future__ import annotations

from typing import Any

import pytest

from tests.recorder import Recorder


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        pytest.param(("trio", {}), id="trio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run an async test (marked ``anyio``) on each event loop."""
    return request.param


@pytest.fixture
def recorder() -> Recorder:
    """Return an observer that keeps what it is told."""
    return Recorder()
