"""Passwords that come a guard's way by odd paths: into no log, and before no eyes."""

from __future__ import annotations

import logging

import pytest

from asgi_lifespan_guard import LifespanGuard, Probes
from asgi_lifespan_guard.events import Event, ResourceGaveUp
from tests.recorder import Recorder
from tests.support.memory_server import MemoryServer
from tests.support.resources import Tap, hello


pytestmark = pytest.mark.anyio

SECRET = "postgresql://app:hunter2@db"


async def test_an_observer_that_raises_gives_no_password_away(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """What is logged of its error is redacted like everything else."""

    def broken(event: Event) -> None:
        raise ValueError(f"cannot send to {SECRET}")

    db = Tap(recorder, errors=[ConnectionError(SECRET)], retry=None)
    guard = LifespanGuard(hello, [db.recipe], observers=[broken, recorder])
    async with MemoryServer(guard):
        await recorder.wait_for(ResourceGaveUp)
    assert "failed on ResourceGaveUp" in caplog.text
    assert "hunter2" not in caplog.text
    assert "hunter2" not in str([record.__dict__ for record in caplog.records])


async def test_a_reason_to_pause_gives_no_password_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither in the log's fields nor in what a probe shows."""
    caplog.set_level(logging.DEBUG)
    guard = LifespanGuard(hello, probes=Probes(details=True))
    async with MemoryServer(guard) as server:
        guard.pause(f"moving {SECRET}")
        shown = await server.get("/readyz?verbose")
    assert shown.json()["paused"] == "moving postgresql://app:***@db"
    assert "hunter2" not in str([record.__dict__ for record in caplog.records])
