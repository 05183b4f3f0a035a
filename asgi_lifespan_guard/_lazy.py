"""Starts a guard on its first request, where no server ever sends it a lifespan.

The lifespan is held by a task of its own, which belongs to nobody: it ends when the
event loop cancels what is left (``asyncio.run``, ``trio.run``), and closes then. Where
nobody cancels anything (daphne, Mangum), it is ended with the process.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any

import anyio

from ._asgi.types import Message, Receive, Scope, Send
from ._tasks.backend import on_trio
from ._tasks.waiting import Waiters


Run = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


class LazyStart:
    """Plays the server to a guard, once for each event loop.

    Once means once: a startup that failed is not repeated by the next request.

    Args:
        run: Holds the guard's lifespan conversation.
        is_needed: Whether the guard is not running.
    """

    def __init__(self, run: Run, is_needed: Callable[[], bool]) -> None:
        self._run = run
        self._is_needed = is_needed
        self._loop: object = None
        self._decided_on: object = None
        self._waiters = Waiters()
        self._task: Any = None

    def kick(self) -> None:
        """Start it, if it does not run and nobody has."""
        loop = _current_loop()
        if loop is not self._loop and self._is_needed():
            self._loop = loop
            self._decided_on = None
            self._task = _spawn(self._live)

    async def wait(self) -> None:
        """Start it, and return when its startup is decided."""
        self.kick()
        loop = _current_loop()
        if self._loop is loop:
            await self._waiters.wait_until(lambda: self._decided_on is loop)

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
            self._decide()

        try:
            await self._run(scope, receive, send)
        except Exception:
            return  # It was logged, and the gate refuses what comes.
        finally:
            self._decide()

    def _decide(self) -> None:
        self._decided_on = self._loop
        self._waiters.wake()


def _current_loop() -> object:
    """Return what is the same object for as long as the event loop runs."""
    if on_trio():
        import trio

        return trio.lowlevel.current_trio_token()
    return asyncio.get_running_loop()


def _spawn(call: Callable[[], Coroutine[Any, Any, None]]) -> Any:
    if on_trio():
        import trio

        return trio.lowlevel.spawn_system_task(call)
    loop = asyncio.get_running_loop()
    # Not in the first request's context: its request id would be in every later log.
    task = loop.create_task(call(), context=Context())
    end = partial(_end_with_the_process, loop, task)
    atexit.register(end)
    task.add_done_callback(lambda _: atexit.unregister(end))
    return task


def _end_with_the_process(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]
) -> None:
    """Close what is open still, on a loop that was left standing where it stopped."""
    if not (loop.is_closed() or loop.is_running()):
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
