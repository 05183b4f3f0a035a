"""Fixtures for tests of resources without ASGI."""

from __future__ import annotations

import pytest

from tests.recorder import Recorder
from tests.resources.stage import Stage


@pytest.fixture
def stage(recorder: Recorder) -> Stage:
    """Return a stage to run resources on."""
    return Stage(recorder)
