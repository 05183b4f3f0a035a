"""Telling observers: everybody of everything, in one order, whatever they do."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from asgi_lifespan_guard import LifespanGuard, Phase
from asgi_lifespan_guard.events import (
    Event,
    Paused,
    PhaseChanged,
    ResourceOpened,
    Resumed,
)
from asgi_lifespan_guard.observers._telling import MOST_AT_ONCE, Observers
from asgi_lifespan_guard.observers.logging import Log
from tests.recorder import Recorder
from tests.support.memory_server import MemoryServer
from tests.support.resources import Tap, hello


class Outcome(BaseException):
    """Is no `Exception`, as a test's outcome or a Rust panic is none."""


def test_everybody_hears_of_events_in_the_order_in_which_they_happened(
    recorder: Recorder,
) -> None:
    """What an observer causes while it is told is told after that, to everyone."""

    def answering(event: Event) -> None:
        if event == Paused("a"):
            tell(Paused("b"))
            tell(Resumed())

    last = Recorder()
    tell = Observers(Log(), [recorder, answering, last])
    tell(Paused("a"))
    assert recorder.events == last.events == [Paused("a"), Paused("b"), Resumed()]


@pytest.mark.parametrize("error", [ValueError("no"), Outcome("no")], ids=repr)
def test_what_an_observer_raises_is_logged_and_dropped(
    error: BaseException, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Of whatever class it is; the others are told all the same."""

    def broken(event: Event) -> None:
        raise error

    tell = Observers(Log(), [broken, recorder])
    tell(Resumed())
    assert recorder.events == [Resumed()]
    assert f"failed on Resumed: {type(error).__name__}: no" in caplog.text


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), SystemExit(1), asyncio.CancelledError()],
    ids=lambda error: type(error).__name__,
)
def test_what_ends_the_process_or_the_task_is_raised(
    error: BaseException, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """But only when everybody has been told, and the next event is told as usual."""

    def ending(event: Event) -> None:
        if event == Paused("a"):
            tell(Paused("b"))
            raise error

    tell = Observers(Log(), [ending, recorder])
    with pytest.raises(type(error)) as caught:
        tell(Paused("a"))
    assert caught.value is error
    tell(Resumed())
    assert recorder.events == [Paused("a"), Paused("b"), Resumed()]
    assert "failed on" not in caplog.text


def test_observers_that_answer_one_another_for_ever_are_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They must not hold the event loop for good; the log says so."""
    caplog.set_level(logging.CRITICAL)
    told = 0

    def answering(event: Event) -> None:
        nonlocal told
        told += 1
        tell(Resumed())

    tell = Observers(Log(), [answering])
    tell(Resumed())
    assert told == MOST_AT_ONCE
    assert "answers each event with another one" in caplog.text


@pytest.mark.anyio
async def test_an_observer_that_drains_the_guard(recorder: Recorder) -> None:
    """Those after it hear that it serves before they hear that it drains."""

    def draining(event: Event) -> None:
        if isinstance(event, PhaseChanged) and event.new is Phase.SERVING:
            guard.begin_drain("by an observer")

    guard = LifespanGuard(hello, observers=[draining, recorder])
    async with MemoryServer(guard):
        pass
    phases = [event.new for event in recorder.of(PhaseChanged)]
    assert phases == [
        Phase.STARTING,
        Phase.SERVING,
        Phase.DRAINING,
        Phase.STOPPING,
        Phase.STOPPED,
    ]


@pytest.mark.anyio
async def test_a_panic_of_an_observer_while_a_resource_comes_up(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the resource nor the guard suffers from it."""

    def panicking(event: Any) -> None:
        if isinstance(event, ResourceOpened):
            raise Outcome("in an observer")

    guard = LifespanGuard(
        hello, [Tap(recorder).recipe], observers=[panicking, recorder]
    )
    async with MemoryServer(guard) as server:
        await guard.wait_ready(10)
        assert (await server.get("/")).status == 200
    assert "failed on ResourceOpened: Outcome: in an observer" in caplog.text
    assert recorder.marks == ["open db", "close db"]
