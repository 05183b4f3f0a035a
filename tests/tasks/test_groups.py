"""A task group that does not change what is raised through it."""

from __future__ import annotations

import anyio
import pytest
from anyio.abc import TaskGroup

from asgi_lifespan_guard._tasks.groups import transparent_task_group


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
