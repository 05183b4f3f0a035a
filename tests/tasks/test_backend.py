"""Which event loop runs the current task."""

from __future__ import annotations

import asyncio
import sys
import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from asgi_lifespan_guard._tasks.backend import (
    HomeThread,
    must_pass,
    on_trio,
    scheduler,
)


@pytest.mark.anyio
async def test_a_task_knows_its_event_loop(anyio_backend_name: str) -> None:
    """Trio's tasks are told from asyncio's, though both are loaded here."""
    assert on_trio() is (anyio_backend_name == "trio")


def test_trio_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who never loaded trio does not run on it, and it is not loaded to find out."""
    monkeypatch.delitem(sys.modules, "trio", raising=False)
    assert not on_trio()
    assert "trio" not in sys.modules


def _no_task() -> None:
    raise RuntimeError("must be called from async context")


@pytest.mark.parametrize(
    ("trio", "expected"),
    [
        pytest.param({"lowlevel": {"current_task": object}}, True, id="old-running"),
        pytest.param({"lowlevel": {"current_task": _no_task}}, False, id="old-idle"),
        pytest.param({"lowlevel": {}}, False, id="half-imported"),
        pytest.param({}, False, id="hardly-imported"),
    ],
)
def test_any_trio_may_be_loaded(
    trio: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that cannot say it outright is asked for its task; one half imported, not."""
    parts = {name: SimpleNamespace(**part) for name, part in trio.items()}
    monkeypatch.setitem(sys.modules, "trio", SimpleNamespace(**parts))
    assert on_trio() is expected


@pytest.mark.anyio
async def test_a_call_is_scheduled_from_a_thread() -> None:
    """It is made on the event loop's own thread, which may be idle until then."""
    done = anyio.Event()
    threads = []

    def call() -> None:
        threads.append(threading.get_ident())
        done.set()

    thread = threading.Thread(target=scheduler(), args=(call,))
    thread.start()
    await done.wait()
    thread.join()
    assert threads == [threading.get_ident()]


def test_a_loop_that_is_gone_says_so(anyio_backend: Any) -> None:
    """With a RuntimeError, whichever loop it was."""

    async def main() -> Any:
        return scheduler()

    backend, options = anyio_backend
    schedule = anyio.run(main, backend=backend, backend_options=options)
    with pytest.raises(RuntimeError):
        schedule(print)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_is_for_a_loop_that_is_gone_is_called_at_once(
    anyio_backend: Any, elsewhere: bool
) -> None:
    """There is nobody else to do it, whichever thread it is."""

    async def main() -> HomeThread:
        return HomeThread()

    backend, options = anyio_backend
    home = anyio.run(main, backend=backend, backend_options=options)
    called: list[bool] = []
    call = partial(home.call, partial(called.append, True))
    if elsewhere:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    else:
        call()
    assert called == [True]


def test_a_cancellation_in_a_group_is_somebodys_past() -> None:
    """On asyncio only a bare one is on its way; trio's pass in groups, too."""
    cancelled = asyncio.CancelledError()
    assert must_pass(cancelled)
    assert not must_pass(BaseExceptionGroup("group", [cancelled, OSError()]))
    assert must_pass(BaseExceptionGroup("group", [SystemExit(1), OSError()]))
