"""One task waits for a condition over plain state; whoever changes the state rings."""

from __future__ import annotations

from collections.abc import Callable

import anyio


class Bell:
    """Wakes the one task that waits on it, which then looks for itself.

    The condition is asked again after every ring, so a ring too many is harmless and
    the state it is asked of needs no events of its own.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def ring(self) -> None:
        """Have the waiting task, if there is one, look again."""
        if self._event is not None:
            self._event.set()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once *condition* holds; at once, without a switch, if it does now."""
        while not condition():
            self._event = anyio.Event()
            try:
                await self._event.wait()
            finally:
                self._event = None
