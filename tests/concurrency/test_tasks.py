"""Which tasks another one waits for."""

from __future__ import annotations

import asyncio

import pytest

from asgi_lifespan_guard._concurrency.tasks import waited_for


pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "anyio_backend",
        [
            pytest.param(("asyncio", {}), id="asyncio"),
            pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        ],
    ),
]


async def test_children_in_a_wait_are_found_however_deep() -> None:
    """A task in `asyncio.wait` waits for its children, through every frame of it."""
    children = [asyncio.ensure_future(asyncio.sleep(3600)) for _ in range(2)]

    async def wait() -> None:
        await asyncio.wait(children, return_when=asyncio.FIRST_COMPLETED)

    async def outer() -> None:
        await wait()

    task = asyncio.ensure_future(outer())
    await asyncio.sleep(0)
    assert set(waited_for(task)) == set(children)
    for each in (task, *children):
        each.cancel()
    await asyncio.gather(task, *children, return_exceptions=True)


async def test_a_task_that_waits_for_something_else_has_none() -> None:
    """Neither a sleeping task nor one that is over waits for tasks."""
    task = asyncio.ensure_future(asyncio.sleep(3600))
    await asyncio.sleep(0)
    assert waited_for(task) == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert waited_for(task) == []


async def test_bare_futures_are_no_tasks() -> None:
    """A future that is nobody's task is left alone."""
    future = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(asyncio.wait([future]))
    await asyncio.sleep(0)
    assert waited_for(task) == []
    future.set_result(None)
    await task
