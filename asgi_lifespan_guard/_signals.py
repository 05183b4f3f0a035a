"""What a signal to stop does, and how the process is ended by ourselves.

Our handlers stand in front of those that the server installed. A handler here takes no
lock and sets no event (an idle loop would sleep on): it schedules onto the loop, and
passes the signal on. Handlers can only be installed from the main thread; in any other
nothing is touched.

A server that handles the signal itself is told at once, or after the drain's delay
where it can be held back. Where nobody handles it (``SIG_DFL``: hypercorn's trio
worker) the guard drains, closes everything, and lets the signal do its work then.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

from ._frozen import Frozen
from ._settings import Drain
from ._tasks.backend import Schedule, scheduler


class StopSignal(Frozen):
    """A signal to stop, as the guard is told of it on the event loop.

    Attributes:
        name: Such as ``"SIGTERM"``.
        delay: Seconds to go on serving.
        pass_on: Lets it do what it would have done without us; ``None``: it has.
        ends_the_process: Whether that is to end the process at once, or to have a
            server stop that tells nobody, so that it must not be passed on before
            everything is closed.
        is_impatient: Whether it is Ctrl-C, and not the first signal: what makes uvicorn
            wait for nobody. One SIGTERM may well come twice, from a process manager
            and from its workers' main process.
    """

    name: str
    delay: float
    pass_on: Callable[[], None] | None
    ends_the_process: bool
    is_impatient: bool = False


class StopSignals:
    """The signals of one start/stop cycle; made on the event loop.

    Args:
        settings: Which signals, and how long the delay is.
        serves: Asked in the handler whether there is something to be drained.
        stop: Called on the event loop.
        alone: Whether the server will not say when it stops.
        has_main: Whether a main process sends signals here: hypercorn's sends SIGTERM
            when the first of its workers has ended, and once more when it ends itself.
    """

    def __init__(
        self,
        settings: Drain,
        serves: Callable[[], bool],
        stop: Callable[[StopSignal], None],
        *,
        alone: bool = False,
        has_main: bool = False,
    ) -> None:
        self._settings = settings
        self._serves = serves
        self._stop = stop
        self._alone = alone
        self._has_main = has_main
        self._schedule: Schedule = scheduler()
        self._fatal: int | None = None
        self._heard = 0
        self._chain = SignalChain(settings.signals, self._notice)

    def __enter__(self) -> None:
        """Stand in front of the server's handlers."""
        self._chain.install()

    def __exit__(self, *exc_info: object) -> None:
        """Stand back, where we still stand in front."""
        self._chain.restore()

    def _notice(self, signum: int) -> bool:
        """Decide, inside the handler, whether to hold *signum* back."""
        fatal = self._alone or self._chain.ends_the_process(signum)
        held = self._is_held(signum, fatal)
        with suppress(RuntimeError):  # The loop is gone.
            self._schedule(self._act, signum, fatal, held)
            if fatal and held:
                self._fatal = signum
            return held
        return False

    def _is_held(self, signum: int, fatal: bool) -> bool:
        if fatal:
            # The second one is not waited with, if it is somebody's wish.
            repeats = self._has_main and signum == signal.SIGTERM
            return self._chain.can_hold(signum) and (self._fatal is None or repeats)
        delayed = self._delay_of(signum) > 0 and self._chain.can_hold(signum)
        return delayed and self._serves()

    def _act(self, signum: int, fatal: bool, held: bool) -> None:
        pass_on = partial(self._chain.pass_on, signum) if held else None
        delay = self._delay_of(signum) if held else 0.0
        name = signal.Signals(signum).name
        impatient = signum == signal.SIGINT and self._heard > 0
        self._heard += 1
        self._stop(StopSignal(name, delay, pass_on, fatal, impatient))

    def _delay_of(self, signum: int) -> float:
        return self._settings.delay if signum == signal.SIGTERM else 0.0  # not Ctrl-C


class SignalChain:
    """One guard's part in the handlers, from `install` to `restore`.

    Args:
        signals: Which ones.
        notice: Called in the handler with the signal's number; returns whether it is
            to be held back, to be passed on later with `pass_on`.
    """

    def __init__(
        self, signals: Iterable[signal.Signals], notice: Callable[[int], bool]
    ) -> None:
        self.notice = notice
        self._signals = tuple(signals)
        self._handlers: dict[int, _Handler] = {}

    def install(self) -> None:
        """Put ours in front, where there is something to be put in front of.

        A signal that is ignored stays so, and one whose handler Python cannot see
        (``None``) is left alone.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in self._signals:
            current = signal.getsignal(signum)
            if current not in (None, signal.SIG_IGN):
                self._handlers[signum] = _Handler.on(signum, current)
                self._handlers[signum].members.append(self)

    def restore(self) -> None:
        """Put back what was there, where ours is still the installed one."""
        for handler in self._handlers.values():
            handler.leave(self)

    def ends_the_process(self, signum: int) -> bool:
        """Whether nobody but us would do anything before *signum* kills the process."""
        handler = self._handlers.get(signum)
        return handler is not None and handler.previous is signal.SIG_DFL

    def can_hold(self, signum: int) -> bool:
        """Whether holding *signum* back keeps the server from stopping.

        An event loop's own handler is a dummy: the loop reads the signal from a file
        descriptor, whatever stands in front.
        """
        handler = self._handlers.get(signum)
        return handler is not None and not _is_a_loops(handler.previous)

    def pass_on(self, signum: int) -> None:
        """Do what would have been done without us, when nobody else holds it back."""
        if signum in self._handlers:
            self._handlers[signum].release(self)


class _Handler:
    """A handler of ours for one signal, which all guards share that stand there.

    Each is told, and the last of those who hold the signal back passes it on: what
    ends the process has to wait for all of them.
    """

    def __init__(self, signum: int, previous: Any) -> None:
        self.members: list[SignalChain] = []
        self.previous = previous
        self._signum = signum
        self._held_by: list[SignalChain] = []

    @classmethod
    def on(cls, signum: int, current: Any) -> _Handler:
        """Return the handler that is installed, if it is ours; else install one."""
        ours = getattr(current, "__self__", None)
        if isinstance(ours, cls):
            return ours
        handler = cls(signum, current)
        signal.signal(signum, handler.handle)
        signal.siginterrupt(signum, False)
        return handler

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Tell everybody, and pass it on unless somebody holds it back."""
        holding = [member for member in self.members if member.notice(signum)]
        self._held_by += [member for member in holding if member not in self._held_by]
        if not holding:
            self._pass_on(frame)

    def release(self, member: SignalChain) -> None:
        """Let *member* hold it back no longer."""
        if member in self._held_by:
            self._held_by.remove(member)
            if not self._held_by:
                self._pass_on(None)

    def leave(self, member: SignalChain) -> None:
        """Tell *member* no more; what it holds back it may still pass on."""
        if member in self.members:
            self.members.remove(member)
            installed = signal.getsignal(self._signum) == self.handle
            if installed and not self.members:
                signal.signal(self._signum, self.previous)

    def _pass_on(self, frame: FrameType | None) -> None:
        if self.previous is signal.SIG_DFL:
            signal.signal(self._signum, signal.SIG_DFL)
            signal.raise_signal(self._signum)
        else:
            self.previous(self._signum, frame)


def _is_a_loops(handler: object) -> bool:
    owner = type(getattr(handler, "__self__", None)).__module__
    module = getattr(handler, "__module__", None) or owner
    return (
        str(module).startswith("asyncio.unix_events")
        or str(module).startswith("uvloop")
        or owner.startswith("uvloop")
    )


def end_process(status: int) -> None:
    """End the process now, after what was written has been flushed.

    Servers swallow `SystemExit` and give statuses of their own, so nothing is raised.
    Under a process manager it is the worker that ends.
    """
    for handler in _handlers():
        with suppress(Exception):
            handler.flush()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)


def _handlers() -> Iterator[logging.Handler]:
    """Yield those of every logger; servers have loggers of their own."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        yield from getattr(logger, "handlers", ())
