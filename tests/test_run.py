"""The guard's life when the server's messages and a stop of its own meet."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from signal import SIG_DFL, SIGURG
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import (
    Drain,
    LifespanGuard,
    Phase,
    ResourcePhase,
    Retry,
    lifespan_of,
    resource,
)
from asgi_lifespan_guard.events import (
    CloseFailed,
    DrainBegun,
    Event,
    GuardFailed,
    PhaseChanged,
    ResourceGaveUp,
    ResourceOpened,
)
from tests.recorder import PATIENCE, Recorder
from tests.support.memory_server import LifespanError, MemoryServer
from tests.support.resources import Tap, hello
from tests.support.virtual_time import on_virtual_time


pytestmark = pytest.mark.anyio

OVER = "lifespan.shutdown.complete"


@on_virtual_time
async def test_it_leaves_while_the_server_waits(recorder: Recorder) -> None:
    """The server is told what it will ask for, and may ask nevertheless."""
    guard = LifespanGuard(
        hello,
        [Tap(recorder).recipe],
        drain=Drain(signals=[SIGURG]),
        observers=[recorder],
    )
    lifespan = MemoryServer(guard).lifespan
    async with anyio.create_task_group() as group:
        group.start_soon(lifespan.run)
        lifespan.feed({"type": "lifespan.startup"})
        await guard.wait_ready(PATIENCE)
        lifespan.phase = "stopping"
        signal.raise_signal(SIGURG)
    assert lifespan.sent[-1]["type"] == OVER
    assert recorder.marks == ["open db", "close db"]
    assert guard.phase is Phase.STOPPED
    assert signal.getsignal(SIGURG) is SIG_DFL


@on_virtual_time
async def test_it_leaves_when_the_startup_is_barely_over(recorder: Recorder) -> None:
    """A signal before the server waits for its shutdown is not forgotten."""
    guard = LifespanGuard(hello, drain=Drain(signals=[SIGURG]), observers=[recorder])
    lifespan = MemoryServer(guard).lifespan
    send = lifespan.send

    async def send_slowly(message: object) -> None:
        await send(message)  # type: ignore[arg-type]
        if lifespan.phase == "serving":
            lifespan.phase = "stopping"
            signal.raise_signal(SIGURG)
            await recorder.wait_for(DrainBegun)
            await anyio.wait_all_tasks_blocked()

    lifespan.send = send_slowly  # type: ignore[method-assign]
    with anyio.fail_after(PATIENCE):
        lifespan.feed({"type": "lifespan.startup"})
        await lifespan.run()
    assert guard.phase is Phase.STOPPED


async def test_a_signal_while_it_closes_changes_nothing(recorder: Recorder) -> None:
    """Everything is closed, and then the signal has its way."""
    tap = Slow(recorder)
    guard = LifespanGuard(
        hello, [tap.recipe], drain=Drain(signals=[SIGURG]), observers=[recorder]
    )
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
    assert recorder.marks == ["open db", "close db", "closed"]
    assert signal.getsignal(SIGURG) is SIG_DFL


class Slow(Tap):
    """Is interrupted by a signal while it closes."""

    async def close(self) -> None:
        signal.raise_signal(SIGURG)
        await anyio.wait_all_tasks_blocked()
        self._recorder.mark("closed")


@on_virtual_time
async def test_an_app_that_hangs_at_its_shutdown_leaves_time_for_others(
    recorder: Recorder,
) -> None:
    """It is cut at its deadline, once; the database is closed before the last one."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await anyio.sleep_forever()
        finally:
            recorder.mark("app is cut")
            await anyio.sleep_forever()

    guard = LifespanGuard(
        app, [Tap(recorder).recipe], shutdown_timeout=8, observers=[recorder]
    )
    server = MemoryServer(guard)
    with (
        anyio.fail_after(PATIENCE),
        pytest.raises(LifespanError, match="was not closed"),
    ):
        async with server:
            await guard.wait_ready(PATIENCE)
    assert recorder.marks == ["open db", "app is cut", "close db"]
    assert [event.resource for event in recorder.of(CloseFailed)] == ["app"]


async def test_a_panic_at_startup_is_a_failed_startup(recorder: Recorder) -> None:
    """The server is told, and what the app raised comes out, as without us."""

    class Panic(BaseException):
        pass

    panic = Panic("gone")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise panic

    server = MemoryServer(LifespanGuard(app, observers=[recorder]))
    with pytest.raises(Panic):
        async with server:
            pytest.fail("it started")
    assert server.said == ["lifespan.startup.failed"]


async def test_an_exit_just_after_the_startup_comes_through(
    recorder: Recorder,
) -> None:
    """An observer may end the process; the guard is stopped then, and no mistake."""

    def leave(event: Event) -> None:
        if isinstance(event, PhaseChanged) and event.new is Phase.SERVING:
            raise SystemExit(3)

    guard = LifespanGuard(hello, [Tap(recorder).recipe], observers=[leave, recorder])
    lifespan = MemoryServer(guard).lifespan

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    with pytest.raises(SystemExit):
        await guard(lifespan.scope, receive, lifespan.send)
    assert guard.phase is Phase.STOPPED


async def test_what_nobody_else_tells_of_is_told(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that ends the guard while it serves does so with a traceback."""
    db = Tap(recorder)
    guard = LifespanGuard(hello, [db.recipe], observers=[recorder])
    lifespan = MemoryServer(guard).lifespan
    broken = RuntimeError("the server is broken")

    async def receive() -> Any:
        if lifespan.phase == "starting":
            return {"type": "lifespan.startup"}
        await recorder.wait_for_mark("open db")
        raise broken

    with pytest.raises(RuntimeError, match="the server is broken"):
        await guard(lifespan.scope, receive, lifespan.send)
    assert recorder.of(GuardFailed) == [GuardFailed(broken)]
    (record,) = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert "the server is broken" in record.getMessage()
    assert recorder.marks == ["open db", "close db"]
    assert guard.phase is Phase.STOPPED


@pytest.mark.parametrize("ticks", range(5))
def test_a_loop_that_is_torn_down_just_after_the_startup(
    recorder: Recorder, ticks: int
) -> None:
    """It ends, though tasks that were to own a resource are cancelled unbegun."""

    async def open_it() -> AsyncGenerator[None, None]:
        recorder.mark("open")
        try:
            yield
        finally:
            recorder.mark("close")

    recipes = [
        resource(open_it, name="model", startup="blocking"),
        resource(open_it, name="db"),
    ]
    guard = LifespanGuard(hello, recipes, drain=None)

    async def main() -> None:
        started = asyncio.Event()
        messages = [{"type": "lifespan.startup"}]

        async def receive() -> dict[str, str]:
            return messages.pop() if messages else await asyncio.Future()

        async def send(_message: object) -> None:
            started.set()

        lifespan = asyncio.ensure_future(guard({"type": "lifespan"}, receive, send))
        await started.wait()
        for _ in range(ticks):
            await asyncio.sleep(0)
        assert not lifespan.done()

    asyncio.run(main())
    assert guard.phase is Phase.STOPPED
    assert {r.phase for r in guard.report().resources[:2]} == {ResourcePhase.CLOSED}
    assert recorder.marks.count("open") == recorder.marks.count("close")


@on_virtual_time
async def test_a_stop_bounds_an_app_that_cleans_up_after_a_late_startup(
    recorder: Recorder,
) -> None:
    """It had all the time it wanted before; now it has what the stop has."""

    async def sub(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await anyio.sleep_forever()
        finally:
            recorder.mark("cleaning up")
            await anyio.sleep(3600)

    recipe = lifespan_of(sub, name="sub", timeout=1, close_timeout=3000)
    guard = LifespanGuard(hello, [recipe], drain=None, shutdown_timeout=5)
    with anyio.fail_after(60):
        async with MemoryServer(guard):
            await recorder.wait_for_mark("cleaning up")
    assert guard.phase is Phase.STOPPED


async def test_a_blocking_app_that_is_reopened_may_yield_its_keys_again(
    recorder: Recorder,
) -> None:
    """They are its own, also where they have stayed in the server's state."""
    crash = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["state"]["client"] = object()
        await send({"type": "lifespan.startup.complete"})
        if not crash.is_set():
            await crash.wait()
            raise RuntimeError("crash")
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    lifespan = lifespan_of(startup="blocking", retry=Retry(wait=lambda _: 0))
    guard = LifespanGuard(
        app, [Tap(recorder).recipe], app_lifespan=lifespan, observers=[recorder]
    )
    async with MemoryServer(guard):
        await guard.wait_ready(30)
        crash.set()
        await recorder.wait_until(
            lambda: [e.resource for e in recorder.of(ResourceOpened)].count("app") == 2
        )
    assert recorder.of(ResourceGaveUp) == []


async def test_a_guard_that_stopped_keeps_nothing_alive(recorder: Recorder) -> None:
    """Its report stays, and neither values nor errors with their frames."""

    class Pool:
        pass

    pools: list[weakref.ref[Pool]] = []

    @resource
    async def db() -> AsyncGenerator[Pool, None]:
        pool = Pool()
        pools.append(weakref.ref(pool))
        yield pool
        raise OSError("close failed")

    guard = LifespanGuard(hello, [db], drain=None)
    server = MemoryServer(guard)
    with suppress(LifespanError):
        async with server:
            await guard.wait_ready(30)
    del server
    gc.collect()
    assert pools[0]() is None
    assert guard.report().resources[0].last_error == "OSError: close failed"
