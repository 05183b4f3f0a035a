"""Exceptions that are no `Exception`: a Rust panic, a test's outcome, an exit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard import Check, ResourcePhase, Retry, resource
from asgi_lifespan_guard.events import (
    CloseFailed,
    ResourceClosed,
    ResourceCrashed,
    ResourceGaveUp,
)
from tests.resources.stage import Stage


pytestmark = pytest.mark.anyio
AT_ONCE = Retry(wait=lambda _: 0)


class Panic(BaseException):
    """What pyo3 makes of a panic in Rust."""


PANICS: list[Callable[[], BaseException]] = [
    lambda: Panic("index out of bounds"),
    lambda: BaseExceptionGroup("group", [Panic("index out of bounds"), OSError()]),
]


@pytest.mark.parametrize("make", PANICS, ids=["alone", "in-a-group"])
@pytest.mark.parametrize("where", ["enabled", "open", "check"])
async def test_it_is_a_permanent_failure_of_its_resource(
    stage: Stage, make: Callable[[], BaseException], where: str
) -> None:
    """All others stay, and what needs nothing of it does not notice."""
    error = make()

    def panic(*_: Any) -> Any:
        raise error

    option: dict[str, Any] = {{"open": "on_open"}.get(where, where): panic}
    broken = stage.make("broken", required=False, retry=AT_ONCE, **option)
    async with stage.running(stage.make("db"), broken):
        await stage.until_up("db")
        await stage.until_phase("broken", ResourcePhase.FAILED)
        assert stage.values == {"db": "db"}
        assert stage.phase("db") is ResourcePhase.UP
    (gave_up,) = stage.recorder.of(ResourceGaveUp)
    assert (gave_up.error, gave_up.permanent) == (error, True)
    assert gave_up.attempts == (0 if where == "enabled" else 1)


async def test_one_while_it_is_up_is_a_crash(stage: Stage) -> None:
    """It is told with its cause, and never reopened."""
    crash = anyio.Event()

    async def fail() -> None:
        await crash.wait()
        raise Panic("gone")

    @resource(retry=AT_ONCE, required=False)
    async def consumer() -> AsyncGenerator[None, None]:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            yield
            group.cancel_scope.cancel()

    async with stage.running(stage.make("db"), consumer):
        await stage.until_up("db", "consumer")
        crash.set()
        await stage.until_phase("consumer", ResourcePhase.FAILED)
        assert stage.phase("db") is ResourcePhase.UP
    (crashed,) = stage.recorder.of(ResourceCrashed)
    assert isinstance(crashed.error, BaseExceptionGroup)
    assert isinstance(crashed.error.exceptions[0], Panic)


async def test_one_while_closing_stops_no_other(stage: Stage) -> None:
    """It is told as any close that failed."""
    error = Panic("gone")

    def panic() -> None:
        raise error

    broken = stage.make("broken", on_close=panic)
    async with stage.running(stage.make("db"), broken):
        await stage.until_up("db", "broken")
    assert stage.recorder.of(CloseFailed) == [CloseFailed("broken", error)]
    assert [event.resource for event in stage.recorder.of(ResourceClosed)] == ["db"]


@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
async def test_what_ends_the_process_is_let_through(
    stage: Stage, error: BaseException
) -> None:
    """Everything is closed on the way, and it is told as what it is."""
    ending = anyio.Event()

    async def end(_: str) -> None:
        if ending.is_set():
            raise error

    async def run() -> None:
        check = Check(end, every=0.001)
        async with stage.running(stage.make("db"), stage.make("api", check=check)):
            await stage.until_up("db", "api")
            ending.set()
            await anyio.sleep_forever()

    with pytest.raises(type(error)):
        await run()
    assert {"close db", "close api"} <= set(stage.marks)
    (crashed,) = stage.recorder.of(ResourceCrashed)
    assert crashed.error is error


EXITS = """
import asyncio, sys
from asgi_lifespan_guard import Check, resource
from asgi_lifespan_guard._resources.upcalls import Upcalls
from asgi_lifespan_guard._resources.supervisor import Supervisor
from asgi_lifespan_guard._tasks.waiting import Waiters
from asgi_lifespan_guard.events import ResourceCrashed

def show(event):
    if isinstance(event, ResourceCrashed):
        print("crashed:", repr(event.error))

async def main():
    asked = 0

    def end(value):
        nonlocal asked
        asked += 1
        if asked == 2:
            sys.exit(3)

    @resource(check=Check(end, every=0.001))
    async def db():
        yield
        print("closed")

    def ignore(*_):
        pass

    news = Waiters()
    calls = dict.fromkeys(("publish", "withdraw", "gave_up"), ignore)
    upcalls = Upcalls(observe=show, changed=news.wake, **calls)
    supervisor = Supervisor([db], upcalls, news)
    async with supervisor.running(1) as begin:
        begin()
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_an_exit_in_a_check_ends_asyncio() -> None:
    """Its task raises it out of the event loop; it is told as what it is."""
    run = subprocess.run([sys.executable, "-c", EXITS], capture_output=True, text=True)
    assert run.returncode == 3
    assert "crashed: SystemExit(3)" in run.stdout


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_ctrl_c_while_it_is_asked_whether_is_let_through(stage: Stage) -> None:
    """It is no answer."""

    def interrupt() -> bool:
        raise KeyboardInterrupt

    async def run() -> None:
        async with stage.running(stage.make("db", enabled=interrupt)):
            await anyio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        await run()
    assert stage.recorder.of(ResourceGaveUp) == []


async def test_one_in_a_strategy_gives_its_resource_up(stage: Stage) -> None:
    """It is told with what the strategy was asked about."""

    def panic(_: object) -> float:
        raise Panic("gone")

    def fail() -> None:
        raise OSError("refused")

    db = stage.make("db", on_open=fail, retry=Retry(wait=panic))
    async with stage.running(db, stage.make("other")):
        await stage.until_phase("db", ResourcePhase.FAILED)
        await stage.until_up("other")
    (gave_up,) = stage.recorder.of(ResourceGaveUp)
    assert isinstance(gave_up.error, Panic)
    assert str(gave_up.error.__context__) == "refused"


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_ctrl_c_in_a_strategy_is_let_through(stage: Stage) -> None:
    """It says nothing about the wait."""

    def interrupt(_: object) -> float:
        raise KeyboardInterrupt

    def fail() -> None:
        raise OSError("refused")

    async def run() -> None:
        db = stage.make("db", on_open=fail, retry=Retry(wait=interrupt))
        async with stage.running(db):
            await anyio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        await run()
    assert stage.recorder.of(ResourceGaveUp) == []
