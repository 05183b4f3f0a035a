"""Whatever a scope, an app and a server come up with, the guarantees hold.

Here always the same lives are played; `make fuzz` plays others each time, and many more
of them. What it finds goes, as small as can be, to the tests of what was mended.
"""

from __future__ import annotations

import logging

import pytest

from tests.fuzz.life import played


BATCHES = 8
BATCH = 10


@pytest.mark.parametrize("batch", range(BATCHES))
def test_fuzz(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours is raised, nothing passes a closed gate, nothing is left."""
    monkeypatch.setattr(logging.getLogger("asgi_lifespan_guard"), "disabled", True)
    for number in range(batch * BATCH, (batch + 1) * BATCH):
        life = played(f"quick/{number}")
        assert life.calls
        assert not life.faults, f"python -m tests.fuzz quick/{number}"
