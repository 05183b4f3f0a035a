"""Passwords that come a guard's way by odd paths: into no log, and before no eyes."""

from __future__ import annotations

import logging
import traceback
from contextlib import nullcontext

import pytest

from asgi_lifespan_guard import LifespanGuard, Probes, Retry
from asgi_lifespan_guard.events import AttemptFailed, Event, ResourceGaveUp
from asgi_lifespan_guard.testing import LifespanError
from tests.recorder import Recorder
from tests.support.memory_server import MemoryServer
from tests.support.resources import Tap, hello
from tests.support.texts import SECRET as PASSWORD
from tests.support.texts import SECRETS


pytestmark = pytest.mark.anyio

SECRET = "postgresql://app:hunter2@db"
LATER = Retry(wait=lambda _state: 600.0)


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


def failing_with(text: str) -> OSError:
    """Make an error that has *text* in its cause's cause, and in its own words."""
    error, why, root = OSError(f"a {text}"), OSError("b"), OSError(f"c {text}")
    error.__cause__, why.__cause__ = why, root
    return error


def written(caplog: pytest.LogCaptureFixture) -> str:
    """Return all that any handler could make of the log, by now."""
    records = [vars(record) for record in caplog.records]
    return f"{caplog.text} {records}"


@pytest.mark.parametrize("name", SECRETS)
async def test_a_secret_is_shown_nowhere(
    name: str, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in a log, an event, the report, a probe nor the page for people."""
    caplog.set_level(logging.DEBUG)
    db = Tap(recorder, errors=[failing_with(SECRETS[name])] * 9, retry=LATER)
    probes = Probes(details=True)
    guard = LifespanGuard(hello, [db.recipe], probes=probes, observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(AttemptFailed)
        told = [
            (await server.get(path, (b"accept", b"text/html"))).body
            for path in ("/readyz?verbose", "/readyz/db", "/livez?verbose", "/")
        ]
    shown = f"{recorder.events} {guard.report()} {told} {written(caplog)}"
    assert "attempt 1 failed" in shown
    assert PASSWORD not in shown


@pytest.mark.parametrize("name", SECRETS)
async def test_a_secret_is_not_told_to_the_server(
    name: str, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in `startup.failed`, nor in what is raised afterwards, nor in a log."""
    caplog.set_level(logging.DEBUG)
    error = failing_with(SECRETS[name])
    db = Tap(recorder, errors=[error], startup="blocking", retry=None)
    guard = LifespanGuard(hello, [db.recipe], observers=[recorder])
    server = MemoryServer(guard)
    with pytest.raises(LifespanError) as caught:
        async with server:
            pytest.fail("it started")
    raised = "".join(traceback.format_exception(caught.value))
    shown = f"{server.lifespan.sent} {raised} {guard.report()} {recorder.events}"
    assert "did not open" in shown
    assert PASSWORD not in shown + written(caplog)


async def test_a_path_forges_no_line(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a stranger asks for, it stays a part of its own line."""
    caplog.set_level(logging.DEBUG)
    away = Tap(recorder, errors=[OSError()] * 9, retry=LATER)
    path = "/a\r\nCRITICAL db: down\x1b[2K"
    guard = LifespanGuard(hello, [away.recipe], observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_for(AttemptFailed)
        assert (await server.get(path)).status == 503
    (line,) = [text for text in caplog.messages if text.startswith("/a")]
    assert line.startswith(r"/a\r\nCRITICAL db: down\x1b[2K: refused")


class SilentError(OSError):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise LookupError

    __repr__ = __str__


@pytest.mark.parametrize("startup", ["blocking", "background"])
async def test_an_error_that_cannot_be_shown_breaks_nothing(
    startup: str, recorder: Recorder
) -> None:
    """Probes answer, the report can be had, observers are told, and the guard stops."""
    db = Tap(recorder, errors=[SilentError()] * 9, startup=startup, retry=None)
    probes = Probes(details=True)
    guard = LifespanGuard(hello, [db.recipe], probes=probes, observers=[recorder])
    text = "<SilentError whose text cannot be shown: LookupError>"
    server = MemoryServer(guard)
    with nullcontext() if startup == "background" else pytest.raises(LifespanError):
        async with server:
            await recorder.wait_for(ResourceGaveUp)
            assert (await server.get("/livez")).status == 200
            shown = (await server.get("/readyz?verbose")).json()
            assert shown["resources"]["db"]["lastError"] == text
    report = guard.report().resource("db")
    assert report is not None
    assert report.last_error == text
    assert "cannot be shown" in repr(recorder.of(ResourceGaveUp))
