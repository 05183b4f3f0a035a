"""What hypercorn's main process tells its workers, found in the frame that runs one."""

from __future__ import annotations

import signal
import threading
from functools import partial
from types import ModuleType
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import Drain, LifespanGuard, Phase
from asgi_lifespan_guard._main_process import stop_question
from asgi_lifespan_guard._signals import StopSignal, StopSignals
from asgi_lifespan_guard.events import DrainBegun
from tests.recorder import PATIENCE, Recorder
from tests.support.memory_server import LifespanError, MemoryServer
from tests.support.resources import Tap, hello


WORKER = """
def look(do, shutdown_event):
    return do()
"""


def server(name: str = "hypercorn.asyncio.run") -> Any:
    """Make a module of a server, with functions that run a worker."""
    module = ModuleType(name)
    exec(WORKER, module.__dict__)
    return module


def work(run: Any, event: threading.Event, backend: Any) -> None:
    """Run an event loop as a worker does."""
    name, options = backend
    loop = partial(anyio.run, run, backend=name, backend_options=options)
    server().look(loop, event)


def test_the_event_is_found_in_a_frame_of_the_server() -> None:
    """It is asked each time, and never set."""
    event = threading.Event()
    is_told = server().look(stop_question, event)
    assert not is_told()
    event.set()
    assert is_told()


@pytest.mark.parametrize(
    ("name", "event"), [("hypercorn.run", None), ("shop.run", threading.Event())]
)
def test_elsewhere_there_is_none(name: str, event: Any) -> None:
    """Neither where the app runs in the main process itself nor in another program."""
    assert server(name).look(stop_question, event) is None
    assert stop_question() is None


def test_the_drain_begins_when_the_worker_is_told(
    recorder: Recorder, anyio_backend: Any
) -> None:
    """No signal comes, and the server itself waits for the last connection."""
    guard = LifespanGuard(hello, [Tap(recorder).recipe], observers=[recorder])
    event = threading.Event()

    async def run() -> None:
        async with MemoryServer(guard):
            await guard.wait_ready(PATIENCE)
            event.set()
            await recorder.wait_for(DrainBegun)
            assert guard.phase is Phase.DRAINING

    work(run, event, anyio_backend)
    assert recorder.of(DrainBegun)[0].reason == "the server's main process"


def test_a_startup_that_is_on_ends_then(recorder: Recorder, anyio_backend: Any) -> None:
    """The server would wait for it."""
    tap = Tap(recorder, startup="blocking", shut=True)
    guard = LifespanGuard(hello, [tap.recipe], observers=[recorder])
    event = threading.Event()
    event.set()

    async def run() -> None:
        async with MemoryServer(guard):
            pytest.fail("it started")

    with pytest.raises(LifespanError, match="the server's main process"):
        work(run, event, anyio_backend)


def test_without_a_drain_nobody_asks(recorder: Recorder, anyio_backend: Any) -> None:
    """`drain=None` leaves everything as it would be without the guard."""
    event = threading.Event()
    event.set()
    guard = LifespanGuard(hello, [Tap(recorder).recipe], drain=None)

    async def run() -> None:
        async with MemoryServer(guard):
            await guard.wait_ready(PATIENCE)
            await anyio.wait_all_tasks_blocked()
            assert guard.phase is Phase.SERVING

    work(run, event, anyio_backend)


@pytest.mark.anyio
async def test_a_main_process_may_repeat_itself() -> None:
    """SIGTERM comes twice from hypercorn's, and everything is closed all the same."""
    told: list[StopSignal] = []
    both = anyio.Event()

    def stop(stop_signal: StopSignal) -> None:
        told.append(stop_signal)
        if len(told) == 2:
            both.set()

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with StopSignals(Drain(), lambda: True, stop, has_main=True):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            await both.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [each.ends_the_process for each in told] == [True, True]
