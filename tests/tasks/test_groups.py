"""Task groups: one that changes nothing in what goes through it, one that lasts."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard._tasks.groups import LastingTasks, transparent_task_group
from asgi_lifespan_guard._tasks.waiting import Waiters


pytestmark = pytest.mark.anyio


async def _raise(error: Exception) -> None:
    raise error


async def test_an_error_of_the_body_is_raised_as_it_is() -> None:
    """The same object, with the cause and the context that it had."""
    cause = OSError()
    with pytest.raises(KeyError) as caught:
        async with transparent_task_group():
            raise KeyError from cause
    assert caught.value.__cause__ is cause
    assert caught.value.__context__ is None
    assert caught.value.__suppress_context__


async def test_an_error_of_the_only_failing_task_is_raised_as_it_is() -> None:
    """Out of a group of one, which anyio makes, comes the one."""
    error = KeyError()
    with pytest.raises(KeyError) as caught:
        async with transparent_task_group() as group:
            group.start_soon(_raise, error)
    assert caught.value is error


async def test_a_group_that_the_body_raises_stays_one() -> None:
    """Only our own wrapping is taken off."""
    inner = ExceptionGroup("inner", [OSError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with transparent_task_group():
            raise inner
    assert caught.value.message == "inner"
    assert caught.value.exceptions == inner.exceptions


async def test_several_errors_are_raised_together() -> None:
    """Nothing is dropped."""
    errors = [KeyError(), OSError()]

    async def spoil(group: TaskGroup) -> None:
        group.start_soon(_raise, errors[0])
        raise errors[1]

    with pytest.raises(ExceptionGroup) as caught:
        async with transparent_task_group() as group:
            await spoil(group)
    assert set(caught.value.exceptions) == set(errors)


async def test_nothing_raised_is_nothing_raised() -> None:
    """It waits for its tasks and ends."""
    done = []
    async with transparent_task_group() as group:
        group.start_soon(anyio.sleep, 0)
        done.append(True)
    assert done


# Tasks that last


async def test_a_lasting_task_is_told_to_end_and_not_cancelled() -> None:
    """Whatever happens to the scope around them; each end is told."""
    may_end, ends = anyio.Event(), Waiters()
    seen: list[str] = []

    async def work() -> None:
        try:
            await may_end.wait()
            await checkpoint()
            seen.append("done")
        finally:
            seen.append("over")

    tasks = LastingTasks(ends.wake)
    with anyio.CancelScope() as scope:
        async with tasks.held():
            tasks.start(work, "work")
            assert len(tasks) == 1
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            may_end.set()
            await ends.wait_through(lambda: not tasks)
    assert seen == ["done", "over"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_lasting_task_that_was_cancelled_ends_alone() -> None:
    """Who holds it goes on: before it has begun, and after."""
    ends = Waiters()
    tasks = LastingTasks(ends.wake)
    async with tasks.held():
        for _ in range(2):
            tasks.start(anyio.sleep_forever, "work")
        first, second = (t for t in asyncio.all_tasks() if t.get_name() == "work")
        first.cancel()
        await ends.wait_until(lambda: len(tasks) == 1)
        second.cancel()
        await ends.wait_until(lambda: not tasks)


def test_what_ends_the_process_is_raised_to_who_holds_the_task() -> None:
    """A runner that lets the loop end in peace has it from there."""
    error = SystemExit(3)

    async def work() -> None:
        raise error

    async def hold() -> None:
        ends = Waiters()
        tasks = LastingTasks(ends.wake)
        async with tasks.held():
            tasks.start(work, "work")
            await ends.wait_until(lambda: not tasks)

    with asyncio.Runner() as runner:
        task = runner.get_loop().create_task(hold())
        with pytest.raises(SystemExit):
            runner.get_loop().run_until_complete(task)
        with pytest.raises(SystemExit) as caught:
            runner.get_loop().run_until_complete(task)
    assert caught.value is error
