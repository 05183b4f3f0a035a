"""Our signal handlers, in front of those that the server installed.

A handler here takes no lock and sets no event (an idle loop would sleep on): it tells
`notice`, which schedules onto the loop, and passes the signal on. Handlers can only be
installed from the main thread; in any other nothing is touched.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any


class SignalChain:
    """One set of handlers, from `install` to `restore`.

    Args:
        signals: Which ones.
        notice: Called in the handler with the signal's number; returns whether it is
            to be held back, to be passed on later with `pass_on`.
    """

    def __init__(
        self, signals: Iterable[signal.Signals], notice: Callable[[int], bool]
    ) -> None:
        self._signals = tuple(signals)
        self._notice = notice
        self._previous: dict[int, Any] = {}
        self._active = False

    def install(self) -> None:
        """Put ours in front, where there is something to be put in front of.

        A signal that is ignored stays so, and one whose handler Python cannot see
        (``None``) is left alone.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._active = True
        for signum in self._signals:
            previous = signal.getsignal(signum)
            if previous not in (None, signal.SIG_IGN):
                self._previous[signum] = previous
                signal.signal(signum, self._handle)
                signal.siginterrupt(signum, False)

    def restore(self) -> None:
        """Put back what was there, where ours is still the installed one."""
        if not self._active:
            return
        self._active = False
        for signum, previous in self._previous.items():
            if signal.getsignal(signum) == self._handle:
                signal.signal(signum, previous)

    def ends_the_process(self, signum: int) -> bool:
        """Whether nobody but us would do anything before *signum* kills the process."""
        return self._previous.get(signum) is signal.SIG_DFL

    def can_hold(self, signum: int) -> bool:
        """Whether holding *signum* back keeps the server from stopping.

        An event loop's own handler is a dummy: the loop reads the signal from a file
        descriptor, whatever stands in front.
        """
        return signum in self._previous and not _is_a_loops(self._previous[signum])

    def pass_on(self, signum: int, frame: FrameType | None = None) -> None:
        """Do what would have been done without us."""
        previous = self._previous.get(signum)
        if previous is signal.SIG_DFL:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        elif callable(previous):
            previous(signum, frame)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not (self._active and self._notice(signum)):
            self.pass_on(signum, frame)


def _is_a_loops(handler: object) -> bool:
    owner = type(getattr(handler, "__self__", None)).__module__
    module = getattr(handler, "__module__", None) or owner
    return (
        str(module).startswith("asyncio.unix_events")
        or str(module).startswith("uvloop")
        or owner.startswith("uvloop")
    )
