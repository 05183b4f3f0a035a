"""What differs between the event loops, without loading the other one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import get_ident
from typing import Any, TypeAlias


# `asyncio.current_task` is written in Python before 3.12, and takes as long as the rest
# of what the pass-through path does; this is what it looks into there.
current_task: Callable[[asyncio.AbstractEventLoop | None], Any] = (
    asyncio.current_task
    if sys.version_info >= (3, 12)
    else asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]
)

Schedule: TypeAlias = Callable[..., Any]


def on_trio() -> bool:
    """Whether the caller runs inside a trio task; does not load trio."""
    trio = sys.modules.get("trio")
    if trio is None:
        return False
    lowlevel = getattr(trio, "lowlevel", None)
    in_trio_task = getattr(lowlevel, "in_trio_task", None)
    return bool(in_trio_task()) if in_trio_task else _has_task(lowlevel)


def _has_task(lowlevel: Any) -> bool:
    """Ask a trio before 0.23; one that another thread is importing has no task yet."""
    try:
        lowlevel.current_task()
    except (AttributeError, RuntimeError):
        return False
    return True


def scheduler() -> Schedule:
    """Return what runs a callable on the current loop soon, from anywhere.

    It takes no lock and wakes a loop that sleeps, so a signal handler may call it. It
    raises `RuntimeError` once the loop is gone.
    """
    if on_trio():
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
    return asyncio.get_running_loop().call_soon_threadsafe


class HomeThread:
    """Knows the thread of the event loop on which it was made."""

    def __init__(self) -> None:
        self._thread = get_ident()
        self._schedule = scheduler()

    def call(self, function: Callable[[], object]) -> None:
        """Call *function* now, if this is that thread or its loop is gone.

        Else it is called there, soon.
        """
        with suppress(RuntimeError):
            if get_ident() != self._thread:
                self._schedule(function)
                return
            self._schedule(int)  # A handler of a signal may be all that runs: wake it.
        function()


def now() -> float:
    """Return the time on the event loop's clock, in seconds, at a tenth of the cost."""
    if on_trio():
        import trio

        return trio.current_time()
    return asyncio.get_running_loop().time()


def new_wait() -> tuple[Awaitable[object], Callable[[], None]]:
    """Return what is to be awaited, once, and what ends that, from the same thread."""
    if on_trio():
        import trio

        event = trio.Event()
        return event.wait(), event.set
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end() -> None:
        if not future.done():
            future.set_result(None)

    return future, end


def is_about_to_be_cancelled(task: asyncio.Task[Any]) -> bool:
    """Whether somebody has cancelled *task*, and it has not been told yet."""
    waiting: Any = task._fut_waiter  # type: ignore[attr-defined]
    if isinstance(waiting, asyncio.Task):
        return is_about_to_be_cancelled(waiting)
    return bool(task._must_cancel or (waiting and waiting.cancelled()))  # type: ignore[attr-defined]


_ENDS_MORE_THAN_ITS_WORK = (GeneratorExit, KeyboardInterrupt, SystemExit)


def must_pass(error: BaseException) -> bool:
    """Whether *error* is not about what raised it, and may not be kept from others.

    A cancellation, the end of a generator or of the process, alone or in a group. Any
    other `BaseException` (a Rust panic, a test's outcome) is a failure of what raised
    it, however grave.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(_passes_in_a_group) is not None
    return isinstance(error, asyncio.CancelledError) or _passes_in_a_group(error)


def _passes_in_a_group(error: BaseException) -> bool:
    """Whether *error* passes; in a group asyncio's cancellation is somebody's past."""
    trio = sys.modules.get("trio")
    cancelled = trio is not None and isinstance(error, trio.Cancelled)
    return cancelled or isinstance(error, _ENDS_MORE_THAN_ITS_WORK)
