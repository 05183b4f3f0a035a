"""Our handlers in front of others: told first, passed on, put back."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from signal import SIG_DFL, SIG_IGN, SIGURG, SIGUSR1, SIGUSR2
from typing import Any

import pytest

from asgi_lifespan_guard._signals import SignalChain


class Heard:
    """Hears signals: as the handler that was there, and as who is told by a chain."""

    def __init__(self, *, hold: bool = False) -> None:
        self.all: list[tuple[str, int]] = []
        self.hold = hold

    def handle(self, signum: int, frame: Any) -> None:
        self.all.append(("server", signum))

    def notice(self, signum: int) -> bool:
        self.all.append(("guard", signum))
        return self.hold


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Leave this process's handlers as they were."""
    signums = (SIGUSR1, SIGUSR2, SIGURG)
    before = [signal.getsignal(signum) for signum in signums]
    yield
    for signum, handler in zip(signums, before, strict=True):
        signal.signal(signum, handler)


def test_it_hears_first_and_passes_on() -> None:
    """The server's handler is called after us, and again alone once we are gone."""
    heard = Heard()
    signal.signal(SIGUSR1, heard.handle)
    chain = SignalChain([SIGUSR1], heard.notice)
    chain.install()
    signal.raise_signal(SIGUSR1)
    assert heard.all == [("guard", SIGUSR1), ("server", SIGUSR1)]
    chain.restore()
    assert signal.getsignal(SIGUSR1) == heard.handle


def test_what_is_held_back_is_passed_on_later() -> None:
    """By whoever held it, whenever they like."""
    heard = Heard(hold=True)
    signal.signal(SIGUSR1, heard.handle)
    chain = SignalChain([SIGUSR1], heard.notice)
    chain.install()
    assert chain.can_hold(SIGUSR1)
    signal.raise_signal(SIGUSR1)
    assert heard.all == [("guard", SIGUSR1)]
    chain.pass_on(SIGUSR1)
    assert heard.all[1:] == [("server", SIGUSR1)]
    chain.restore()


def test_who_shares_a_handler_passes_it_on_together() -> None:
    """The server hears it once, when the last of them lets it go."""
    heard = Heard(hold=True)
    signal.signal(SIGUSR1, heard.handle)
    chains = [SignalChain([SIGUSR1], heard.notice) for _ in range(2)]
    for chain in chains:
        chain.install()
    signal.raise_signal(SIGUSR1)
    assert heard.all == [("guard", SIGUSR1)] * 2
    chains[0].pass_on(SIGUSR1)
    chains[0].pass_on(SIGUSR1)
    chains[0].restore()
    assert signal.getsignal(SIGUSR1) != heard.handle
    assert heard.all[2:] == []
    chains[1].restore()
    chains[1].pass_on(SIGUSR1)
    assert heard.all[2:] == [("server", SIGUSR1)]
    assert signal.getsignal(SIGUSR1) == heard.handle


def test_what_is_ignored_stays_so() -> None:
    """Nobody is told of it."""
    signal.signal(SIGUSR1, SIG_IGN)
    heard = Heard()
    chain = SignalChain([SIGUSR1], heard.notice)
    chain.install()
    signal.raise_signal(SIGUSR1)
    assert signal.getsignal(SIGUSR1) is SIG_IGN
    assert not chain.ends_the_process(SIGUSR1)
    assert not chain.can_hold(SIGUSR1)
    chain.pass_on(SIGUSR1)
    chain.restore()
    assert signal.getsignal(SIGUSR1) is SIG_IGN
    assert heard.all == []


def test_the_default_is_done_when_it_is_passed_on() -> None:
    """It is put back first: this signal's default is to do nothing, luckily."""
    heard = Heard(hold=True)
    chain = SignalChain([SIGURG], heard.notice)
    chain.install()
    assert chain.ends_the_process(SIGURG)
    signal.raise_signal(SIGURG)
    assert heard.all == [("guard", SIGURG)]
    chain.pass_on(SIGURG)
    assert signal.getsignal(SIGURG) is SIG_DFL
    chain.restore()
    assert heard.all == [("guard", SIGURG)]


def test_who_came_in_front_of_us_stays() -> None:
    """It may go on calling us, and through us the server, when we are gone."""
    heard = Heard()
    signal.signal(SIGUSR1, heard.handle)
    signal.signal(SIGUSR2, heard.handle)
    chain = SignalChain([SIGUSR1, SIGUSR2], heard.notice)
    chain.install()
    ours: Any = signal.getsignal(SIGUSR1)

    def in_front(signum: int, frame: Any) -> None:
        heard.all.append(("in front", signum))
        ours(signum, frame)

    signal.signal(SIGUSR1, in_front)
    chain.restore()
    assert signal.getsignal(SIGUSR1) is in_front
    assert signal.getsignal(SIGUSR2) == heard.handle
    signal.raise_signal(SIGUSR1)
    assert heard.all == [("in front", SIGUSR1), ("server", SIGUSR1)]


def test_a_second_restore_does_nothing() -> None:
    """What was installed since then is not ours to remove."""
    heard = Heard()
    chain = SignalChain([SIGUSR1], heard.notice)
    chain.install()
    ours = signal.getsignal(SIGUSR1)
    chain.restore()
    signal.signal(SIGUSR1, ours)
    chain.restore()
    assert signal.getsignal(SIGUSR1) == ours


def test_another_thread_touches_nothing() -> None:
    """Python would not let it."""
    before = signal.getsignal(SIGUSR1)
    chain = SignalChain([SIGUSR1], Heard().notice)
    thread = threading.Thread(target=chain.install)
    thread.start()
    thread.join()
    assert signal.getsignal(SIGUSR1) is before
    assert not chain.ends_the_process(SIGUSR1)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_handler_of_a_loop_cannot_be_held_back(loop: str) -> None:
    """The loop reads the signal elsewhere, and its handler is a dummy."""
    heard = Heard(hold=True)
    served = asyncio.Event()

    async def serve() -> None:
        asyncio.get_running_loop().add_signal_handler(SIGUSR1, served.set)
        chain = SignalChain([SIGUSR1], heard.notice)
        chain.install()
        assert not chain.can_hold(SIGUSR1)
        signal.raise_signal(SIGUSR1)
        async with asyncio.timeout(10):
            await served.wait()
        chain.restore()

    with asyncio.Runner(loop_factory=_factory(loop)) as runner:
        runner.run(serve())
    assert heard.all == [("guard", SIGUSR1)]


def _factory(loop: str) -> Any:
    if loop == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
