"""A synchronous context manager, entered and left in one daemon thread of its own.

One thread for both, because locks and GUI-like libraries care; a daemon, because a
thread cannot be cancelled and must not keep the process alive. Whoever stops waiting
abandons it: it goes on alone, and leaves what it entered as soon as it has entered it.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Generic, TypeVar

import anyio

from .._tasks.backend import scheduler


T = TypeVar("T")


class ThreadedContext(Generic[T]):
    """An async context manager around a sync one.

    Args:
        name: The thread's name, for debuggers.
        make: Called in the thread; returns what is entered there.
    """

    def __init__(
        self, name: str, make: Callable[[], AbstractContextManager[T]]
    ) -> None:
        self._name = name
        self._make = make
        self._leave = threading.Event()
        self._entered = anyio.Event()
        self._ended = anyio.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None

    async def __aenter__(self) -> T:
        """Start the thread and wait until it has entered.

        Raises:
            BaseException: Whatever entering raised.
        """
        self._schedule = scheduler()
        run = contextvars.copy_context().run
        thread = threading.Thread(
            target=run, args=(self._run,), name=self._name, daemon=True
        )
        try:
            thread.start()
        except BaseException:
            self._ended.set()  # There is nothing that the next attempt must wait for.
            raise
        try:
            await self._entered.wait()
        except BaseException:
            self._leave.set()
            raise
        self._raise_error()
        return self._value[0]

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the thread leave, and wait until it has.

        Raises:
            BaseException: Whatever leaving raised.
        """
        self._leave.set()
        await self._ended.wait()
        self._raise_error()

    async def wait_ended(self) -> None:
        """Wait until the thread is done with it, abandoned or not."""
        await self._ended.wait()

    def take_error(self) -> BaseException | None:
        """Return what it ended with, unless that was raised to somebody already."""
        error, self._error = self._error, None
        return error

    def _raise_error(self) -> None:
        error = self.take_error()
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            with self._make() as value:
                self._value.append(value)
                self._tell(self._entered.set)
                self._leave.wait()
        except BaseException as error:
            self._error = error
        finally:
            self._value.clear()
            self._tell(self._entered.set)
            self._tell(self._ended.set)

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            self._schedule(call)
        except RuntimeError:
            return  # The loop is gone, and with it everybody who could have waited.
