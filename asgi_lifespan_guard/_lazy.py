"""Starts a guard on its first request, where no server ever sends it a lifespan.

The lifespan is held by a task of its own, which belongs to nobody: it ends when the
event loop cancels what is left (``asyncio.run``, ``trio.run``), and closes then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from ._asgi.types import Message, Receive, Scope, Send
from ._concurrency.backend import on_trio
from ._concurrency.notice import Notice


Run = Callable[[Scope, Receive, Send], Awaitable[None]]


class LazyStart:
    """Plays the server to a guard, once for each event loop.

    Args:
        run: Holds the guard's lifespan conversation.
        is_needed: Whether the guard is not running.
    """

    def __init__(self, run: Run, is_needed: Callable[[], bool]) -> None:
        self._run = run
        self._is_needed = is_needed
        self._begun = False
        self._decided = Notice()
        self._task: Any = None

    def kick(self) -> None:
        """Start it, if it does not run and nobody has."""
        if self._begun and self._is_over():
            self._begun = False
        if not self._begun and self._is_needed():
            self._begun = True
            self._decided.clear()
            self._task = _spawn(self._live)

    async def wait(self) -> None:
        """Start it, and return when its startup is decided."""
        self.kick()
        if self._begun:
            await self._decided.wait()

    def _is_over(self) -> bool:
        return self._is_needed() and self._decided.is_set()

    async def _live(self) -> None:
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        started = False

        async def receive() -> Message:
            nonlocal started
            if started:
                await anyio.sleep_forever()
            started = True
            return {"type": "lifespan.startup"}

        async def send(_message: Message) -> None:
            self._decided.set()

        try:
            await self._run(scope, receive, send)
        except Exception:
            return  # It was logged, and the gate refuses what comes.
        finally:
            self._decided.set()


def _spawn(call: Callable[[], Awaitable[None]]) -> Any:
    if on_trio():
        import trio

        return trio.lowlevel.spawn_system_task(call)
    return asyncio.ensure_future(call())
