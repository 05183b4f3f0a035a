"""Whether everything is being closed, by when, and what went wrong with it."""

from __future__ import annotations

import asyncio
from math import inf

from .._tasks.backend import is_about_to_be_cancelled, now, on_trio
from .graph import Node


RESERVE = 1.0
"""Seconds that a close leaves to those that come after it, where it can: one that
hangs for as long as it may would leave them none."""


class Closing:
    """The way out of one run of resources; made in the task that holds the run.

    Attributes:
        failures: What was not closed cleanly after it began, by name.
    """

    def __init__(self) -> None:
        self.failures: dict[str, BaseException] = {}
        self._deadline: float | None = None
        self._latest = inf
        self._cancelled_before = inf
        self._host = None if on_trio() else asyncio.current_task()

    @property
    def has_begun(self) -> bool:
        """Whether everything is being closed."""
        return self._deadline is not None

    @property
    def is_on(self) -> bool:
        """Whether everything is being closed, or is about to be.

        Nothing is closed before it has begun: requests may have to be let out first.

        ``asyncio.run`` cancels all tasks at once when it ends, and it is chance whether
        an owner or its host wakes first.
        """
        if self.has_begun:
            return True
        host = self._host
        if host is None:
            return False
        told = host.cancelling() > self._cancelled_before
        return told or is_about_to_be_cancelled(host)

    def expect(self, *, cancelled: bool) -> None:
        """Note that closing begins as soon as the last request is out.

        Args:
            cancelled: Whether it comes because the host was cancelled, and maybe
                everybody with it. What crashes otherwise has crashed by itself.
        """
        count = 0 if self._host is None else self._host.cancelling()
        self._cancelled_before = count - cancelled

    def begin(self, timeout: float) -> None:
        """Have everything closed within *timeout* seconds."""
        self._deadline = min(now() + timeout, self._latest)

    def end_by(self, deadline: float) -> None:
        """Have everything closed by *deadline*, on the event loop's clock.

        Of several the earliest counts.
        """
        self._latest = min(deadline, self._latest)

    def failed(self, name: str, error: BaseException) -> None:
        """Note what was not closed cleanly, if that is what is going on."""
        if self.is_on:
            self.failures[name] = error

    def time_for(self, node: Node) -> float:
        """Return the seconds that *node* may take to close."""
        wanted = node.recipe.close_timeout
        if self._deadline is None:
            return wanted
        left = max(0.0, self._deadline - now())
        if node.needs or node.outlived_by:
            left -= min(RESERVE, left / 4)
        return min(wanted, left)
