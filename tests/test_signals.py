"""Signals: what they do in each phase, and who handles them before and after."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from signal import SIG_DFL, SIG_IGN, SIGINT, SIGTERM, SIGURG
from typing import Any

import anyio
import pytest
from starlette.testclient import TestClient

from asgi_lifespan_guard import Drain, LifespanGuard, Phase
from asgi_lifespan_guard._signals import StopSignals
from asgi_lifespan_guard.events import (
    DrainBegun,
    DrainEnded,
    Event,
    PhaseChanged,
    RequestCut,
)
from tests.recorder import PATIENCE, Recorder
from tests.support.memory_server import LifespanError, MemoryServer
from tests.support.resources import LATER, Tap, hello
from tests.support.virtual_time import on_virtual_time


pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def server(recorder: Recorder) -> Iterator[Any]:
    """Be the server's handler, and leave this process's own as they were."""

    def handle(signum: int, frame: Any) -> None:
        recorder.mark(f"server: {signal.Signals(signum).name}")

    signums = (SIGTERM, SIGINT, SIGURG)
    before = [signal.getsignal(signum) for signum in signums]
    signal.signal(SIGTERM, handle)
    signal.signal(SIGINT, handle)
    yield handle
    for signum, handler in zip(signums, before, strict=True):
        signal.signal(signum, handler)


@asynccontextmanager
async def serving(
    recorder: Recorder, drain: Drain, **tap: Any
) -> AsyncIterator[LifespanGuard]:
    """Run a guard with one resource, whose phases are marked, too."""

    def mark(event: Event) -> None:
        if isinstance(event, PhaseChanged):
            recorder.mark(event.new.value)

    recipes = [Tap(recorder, **tap).recipe]
    guard = LifespanGuard(hello, recipes, drain=drain, observers=[recorder, mark])
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
        recorder.marks.clear()
        yield guard


END = ["draining", "stopping", "close db", "stopped"]


@pytest.mark.parametrize("signum", [SIGTERM, SIGINT])
async def test_a_signal_begins_the_drain(
    recorder: Recorder, server: Any, signum: signal.Signals
) -> None:
    """The server hears it at once, and both handlers are as before at the end."""
    async with serving(recorder, Drain()):
        assert signal.getsignal(signum) != server
        signal.raise_signal(signum)
        await recorder.wait_for(DrainBegun)
    assert recorder.marks == [f"server: {signum.name}", *END]
    assert recorder.of(DrainBegun) == [DrainBegun(signum.name, 0)]
    assert [signal.getsignal(s) for s in (SIGTERM, SIGINT)] == [server, server]


@on_virtual_time
async def test_sigterm_is_held_back_for_the_delay(recorder: Recorder) -> None:
    """The server hears it when the delay is over, once."""
    async with serving(recorder, Drain(delay=5)):
        signal.raise_signal(SIGTERM)
        await recorder.wait_for_mark("server: SIGTERM")
    assert recorder.marks == ["draining", "server: SIGTERM", *END[1:]]


async def test_ctrl_c_is_never_held_back(recorder: Recorder) -> None:
    """A person waits."""
    async with serving(recorder, Drain(delay=3600)):
        signal.raise_signal(SIGINT)
        assert recorder.marks == ["server: SIGINT"]
    assert recorder.marks == ["server: SIGINT", *END]


async def test_a_second_signal_cuts_the_delay_short(recorder: Recorder) -> None:
    """It goes to the server at once, and the first one follows."""
    async with serving(recorder, Drain(delay=3600)):
        signal.raise_signal(SIGTERM)
        await recorder.wait_for_mark("draining")
        signal.raise_signal(SIGINT)
        assert recorder.marks == ["draining", "server: SIGINT"]
        await recorder.wait_for_mark("server: SIGTERM")
    assert recorder.marks[2:] == ["server: SIGTERM", *END[1:]]


@pytest.mark.parametrize(
    ("first", "second", "is_cut"),
    [(SIGINT, SIGINT, True), (SIGTERM, SIGINT, True), (SIGINT, SIGTERM, False)],
)
@on_virtual_time
async def test_a_second_ctrl_c_cuts_what_is_in_flight(
    recorder: Recorder, first: Any, second: Any, is_cut: bool
) -> None:
    """It makes uvicorn wait for nobody; one SIGTERM more may be nobody's wish."""

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        recorder.mark("in")
        await anyio.sleep_forever()

    guard = LifespanGuard(silent, drain=Drain(grace=20), observers=[recorder])
    server = MemoryServer(guard)
    async with anyio.create_task_group() as group, server:
        group.start_soon(server.http("/").run)
        await recorder.wait_for_mark("in")
        signal.raise_signal(first)
        await recorder.wait_for(DrainBegun)
        await anyio.wait_all_tasks_blocked()
        signal.raise_signal(second)
        await recorder.wait_for(DrainEnded)
    (ended,) = recorder.of(DrainEnded)
    assert (ended.duration < 1) is is_cut
    assert len(recorder.of(RequestCut)) == 1


async def test_a_signal_in_a_drain_by_hand_is_passed_on(recorder: Recorder) -> None:
    """There is no delay for it any more, even if it comes in the same moment."""
    async with serving(recorder, Drain(delay=3600)) as guard:
        signal.raise_signal(SIGTERM)
        guard.begin_drain()
        await recorder.wait_for_mark("server: SIGTERM")
    assert recorder.marks == ["draining", "server: SIGTERM", *END[1:]]


@pytest.mark.parametrize("signum", [SIGTERM, SIGURG])
async def test_a_signal_ends_a_blocking_startup(
    recorder: Recorder, signum: signal.Signals
) -> None:
    """What was open is closed, and the server is told that the start has failed."""
    early = Tap(recorder, "early", startup="blocking")
    late = Tap(recorder, "late", startup="blocking", needs=[early.recipe], shut=True)
    guard = LifespanGuard(
        hello,
        [early.recipe, late.recipe],
        drain=Drain(signals=[SIGTERM, SIGURG]),
        observers=[recorder],
    )
    async with anyio.create_task_group() as group:

        async def stop() -> None:
            await recorder.wait_for_mark("open early")
            signal.raise_signal(signum)

        group.start_soon(stop)
        with pytest.raises(LifespanError, match=signum.name):
            async with MemoryServer(guard):
                pytest.fail("it started")
    heard = ["server: SIGTERM"] if signum is SIGTERM else []
    assert recorder.marks == ["open early", *heard, "close early"]
    assert guard.phase is Phase.FAILED


async def test_a_signal_ends_a_wait_for_the_next_attempt(recorder: Recorder) -> None:
    """Nothing is open, and nothing is waited for."""
    tap = Tap(recorder, errors=[OSError("not yet")], retry=LATER)
    guard = LifespanGuard(hello, [tap.recipe], observers=[recorder])
    with anyio.fail_after(PATIENCE):
        async with MemoryServer(guard):
            await anyio.wait_all_tasks_blocked()
            signal.raise_signal(SIGTERM)
            await recorder.wait_for(DrainBegun)
    assert recorder.marks == ["server: SIGTERM"]


# Where nobody else handles the signal. The default of this one is to do nothing, so
# that the tests survive it.


@asynccontextmanager
async def leaving(
    recorder: Recorder, drain: Drain, tap: Tap | None = None
) -> AsyncIterator[LifespanGuard]:
    """Run a guard that is going to leave by itself."""
    recipe = (tap or Tap(recorder)).recipe
    guard = LifespanGuard(hello, [recipe], drain=drain)
    lifespan = MemoryServer(guard).lifespan
    async with anyio.create_task_group() as group:
        group.start_soon(lifespan.run)
        lifespan.feed({"type": "lifespan.startup"})
        await guard.wait_ready(PATIENCE)
        lifespan.phase = "stopping"
        yield guard


@on_virtual_time
async def test_where_nobody_handles_it_all_is_closed_first(recorder: Recorder) -> None:
    """The guard leaves by itself, and then has the default done."""
    async with leaving(recorder, Drain(signals=[SIGURG])) as guard:
        signal.raise_signal(SIGURG)
        assert signal.getsignal(SIGURG) is not SIG_DFL
    assert recorder.marks == ["open db", "close db"]
    assert guard.phase is Phase.STOPPED
    assert signal.getsignal(SIGURG) is SIG_DFL


@on_virtual_time
async def test_two_guards_close_everything_before_the_default_is_done(
    recorder: Recorder,
) -> None:
    """The last one in the process has it done, whichever that is."""
    drain = Drain(signals=[SIGURG])
    slow = SlowTap(recorder, "slow")
    async with leaving(recorder, drain), leaving(recorder, drain, slow):
        signal.raise_signal(SIGURG)
        await recorder.wait_for_mark("close db")
        await anyio.sleep(1)
        assert signal.getsignal(SIGURG) is not SIG_DFL
    assert {"close db", "closed slow"} <= set(recorder.marks)
    assert signal.getsignal(SIGURG) is SIG_DFL


class SlowTap(Tap):
    """Takes some seconds to close."""

    async def close(self) -> None:
        await anyio.sleep(5)
        self._recorder.mark("closed slow")


@on_virtual_time
async def test_a_second_one_is_not_held_back(recorder: Recorder) -> None:
    """Its default is done at once; should one survive it, the delay is over."""
    async with leaving(recorder, Drain(signals=[SIGURG], delay=3600)):
        signal.raise_signal(SIGURG)
        assert signal.getsignal(SIGURG) is not SIG_DFL
        signal.raise_signal(SIGURG)
        assert signal.getsignal(SIGURG) is SIG_DFL


async def test_what_is_ignored_stays_ignored(recorder: Recorder) -> None:
    """A process that is meant to survive it does."""
    signal.signal(SIGTERM, SIG_IGN)
    async with serving(recorder, Drain()) as guard:
        signal.raise_signal(SIGTERM)
        await anyio.wait_all_tasks_blocked()
        assert guard.phase is Phase.SERVING
        assert signal.getsignal(SIGTERM) is SIG_IGN
    assert signal.getsignal(SIGTERM) is SIG_IGN


# Handlers of the app's own.


async def test_who_comes_in_front_of_us_stays(recorder: Recorder) -> None:
    """We do not know whether it could do without us, and leave it alone."""

    def own(signum: int, frame: Any) -> None:
        recorder.mark("own")

    async with serving(recorder, Drain()) as guard:
        signal.signal(SIGTERM, own)
        signal.raise_signal(SIGTERM)
        await anyio.wait_all_tasks_blocked()
        assert guard.phase is Phase.SERVING
    assert signal.getsignal(SIGTERM) is own
    assert recorder.marks == ["own", *END]


async def test_another_life_installs_and_restores_again(
    recorder: Recorder, server: Any
) -> None:
    """Nothing is left of the first one; no handler is called twice."""
    tap = Tap(recorder)
    guard = LifespanGuard(hello, [tap.recipe], observers=[recorder])
    for life in (1, 2):
        async with MemoryServer(guard):
            signal.raise_signal(SIGTERM)
            await recorder.wait_for(DrainBegun, life)
        assert recorder.marks.count("server: SIGTERM") == life
        assert signal.getsignal(SIGTERM) is server


async def test_no_signal_no_handler(recorder: Recorder, server: Any) -> None:
    """`Drain(signals=())` and `drain=None` touch none."""
    for drain in (Drain(signals=()), None):
        guard = LifespanGuard(hello, [Tap(recorder).recipe], drain=drain)
        async with MemoryServer(guard):
            assert signal.getsignal(SIGTERM) is server


def test_another_thread_touches_no_handler(recorder: Recorder, server: Any) -> None:
    """Starlette's test client runs the app in one."""
    guard = LifespanGuard(hello, [Tap(recorder).recipe])
    with TestClient(guard) as client:
        assert client.get("/").text == "hello"
        assert signal.getsignal(SIGTERM) is server


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_signal_after_the_loop_is_the_servers(
    recorder: Recorder, backend: str
) -> None:
    """There is nobody left whom we could tell."""

    async def make() -> StopSignals:
        return StopSignals(Drain(), lambda: True, lambda _: pytest.fail("told"))

    with anyio.run(make, backend=backend):
        signal.raise_signal(SIGTERM)
    assert recorder.marks == ["server: SIGTERM"]
