"""Work that is done to its end."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard._tasks.shielding import to_its_end


class Work:
    """Waits until it may go on.

    Attributes:
        done: Whether it came to its end.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = anyio.Event()
        self.go = anyio.Event()
        self.done = False
        self._error = error

    async def __call__(self) -> None:
        self.begun.set()
        await self.go.wait()
        self.done = True
        if self._error is not None:
            raise self._error


@pytest.mark.anyio
async def test_a_cancelled_scope_waits() -> None:
    """A scope further out is left when the work is done."""
    work = Work()
    async with anyio.create_task_group() as group:
        group.start_soon(to_its_end, work)
        await work.begun.wait()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
            assert not work.done
            work.go.set()
    assert work.done


@pytest.mark.anyio
async def test_what_it_raises_is_raised() -> None:
    """Its error is its caller's."""
    work = Work(OSError("refused"))
    work.go.set()
    with pytest.raises(OSError, match="refused"):
        await to_its_end(work)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_a_cancelled_task_waits(anyio_backend: Any) -> None:
    """``task.cancel()``, however often, is raised when the work is done."""
    work = Work()
    task = asyncio.ensure_future(to_its_end(work))
    await work.begun.wait()
    for _ in range(2):
        task.cancel()
        await anyio.wait_all_tasks_blocked()
    assert not task.done()
    work.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.done
