"""What a signal to stop does, in each phase and for each kind of server.

A server that handles the signal itself is told at once, or after the drain's delay
where it can be held back. Where nobody handles it (``SIG_DFL``: hypercorn's trio
worker) the guard drains, closes everything, and lets the signal do its work then.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from typing import Protocol

from ._drain import Drainer
from ._process.signals import SignalChain
from ._settings import Drain
from ._tasks.backend import Schedule, scheduler


class Stoppable(Protocol):
    """A guard, as signals see it."""

    def is_starting(self) -> bool: ...
    def is_serving(self) -> bool: ...
    def abort_startup(self, reason: str, /) -> None: ...
    def drain(
        self, reason: str, delay: float, release: Callable[[], None] | None, /
    ) -> None: ...
    def leave(self) -> None: ...


class StopSignals:
    """The signals of one start/stop cycle; made on the event loop.

    Args:
        settings: Which signals, and how long the delay is.
        guard: Told what to do.
        drainer: Whose end is waited for where nobody else handles a signal.
    """

    def __init__(self, settings: Drain, guard: Stoppable, drainer: Drainer) -> None:
        self._settings = settings
        self._guard = guard
        self._drainer = drainer
        self._schedule: Schedule = scheduler()
        self._seen = False
        self._fatal: int | None = None
        self._chain = SignalChain(settings.signals, self._notice)

    def __enter__(self) -> None:
        """Stand in front of the server's handlers."""
        self._chain.install()

    def __exit__(self, *exc_info: object) -> None:
        """Stand back, where we still stand in front."""
        self._chain.restore()

    def let_through(self) -> None:
        """Let a signal that would have ended the process end it now."""
        if self._fatal is not None:
            self._chain.pass_on(self._fatal)

    def _notice(self, signum: int) -> bool:
        """Decide, inside the handler, whether to hold *signum* back."""
        first, self._seen = not self._seen, True
        fatal = self._chain.ends_the_process(signum)
        held = first and (fatal or self._is_delayed(signum))
        try:
            if first:
                self._schedule(self._act, signum, fatal, held)
            else:
                self._schedule(self._drainer.hurry)
        except RuntimeError:
            return False  # The loop is gone.
        return held

    def _is_delayed(self, signum: int) -> bool:
        wanted = self._settings.delay > 0 and signum == signal.SIGTERM  # not Ctrl-C
        return wanted and self._guard.is_serving() and self._chain.can_hold(signum)

    def _act(self, signum: int, fatal: bool, held: bool) -> None:
        self._fatal = signum if fatal else None
        name = signal.Signals(signum).name
        if self._guard.is_starting():
            self._guard.abort_startup(name)
        if fatal:
            self._guard.drain(name, self._delay_of(signum), None)
            self._drainer.then(self._guard.leave)
        elif held and self._guard.is_serving():
            release = partial(self._chain.pass_on, signum)
            self._guard.drain(name, self._settings.delay, release)
        else:
            self._guard.drain(name, 0.0, None)
            if held:
                self._chain.pass_on(signum)

    def _delay_of(self, signum: int) -> float:
        return self._settings.delay if signum == signal.SIGTERM else 0.0
