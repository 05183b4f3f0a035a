"""Which tasks another one waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from asgi_lifespan_guard._asgi import exchange
from asgi_lifespan_guard._asgi.exchange import views_of


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


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this module for a framework's."""
    monkeypatch.setattr(exchange, "FRAMEWORKS", {__name__.partition(".")[0]})


async def test_children_in_a_wait_are_found_however_deep() -> None:
    """A task in `asyncio.wait` waits for its children, through every frame of it."""
    children = [asyncio.ensure_future(asyncio.sleep(3600)) for _ in range(2)]

    async def wait() -> None:
        await asyncio.wait(children, return_when=asyncio.FIRST_COMPLETED)

    async def outer() -> None:
        await wait()

    task = asyncio.ensure_future(outer())
    await asyncio.sleep(0)
    assert set(views_of(task)) == set(children)
    for each in (task, *children):
        each.cancel()
    await asyncio.gather(task, *children, return_exceptions=True)


async def test_a_task_that_waits_for_something_else_has_none() -> None:
    """Neither a sleeping task nor one that is over waits for tasks."""
    task = asyncio.ensure_future(asyncio.sleep(3600))
    await asyncio.sleep(0)
    assert views_of(task) == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert views_of(task) == []


async def test_bare_futures_are_no_tasks() -> None:
    """A future that is nobody's task is left alone."""
    future = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(asyncio.wait([future]))
    await asyncio.sleep(0)
    assert views_of(task) == []
    future.set_result(None)
    await task


async def test_what_others_wait_for_may_be_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only frameworks that are known to run views so are looked into."""
    monkeypatch.setattr(exchange, "FRAMEWORKS", {"quart"})
    shared = asyncio.ensure_future(asyncio.sleep(3600))

    async def outer() -> None:
        await asyncio.wait([shared])

    waiting = [asyncio.ensure_future(outer()), asyncio.ensure_future(_wait(shared))]
    await asyncio.sleep(0)
    assert [views_of(task) for task in waiting] == [[], []]
    for each in (*waiting, shared):
        each.cancel()
    await asyncio.gather(*waiting, shared, return_exceptions=True)


def _wait(shared: asyncio.Task[None]) -> Coroutine[Any, Any, object]:
    return asyncio.wait([shared])
