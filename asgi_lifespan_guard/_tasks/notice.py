"""A flag that tasks can wait for, made before there is any event loop."""

from __future__ import annotations

import anyio


class Notice:
    """Like an event that survives many event loops; set from the loop's thread."""

    __slots__ = ("_events", "_set")

    def __init__(self) -> None:
        self._set = False
        self._events: set[anyio.Event] = set()

    def is_set(self) -> bool:
        """Whether it was given."""
        return self._set

    def set(self) -> int:
        """Give it, wake whoever waits, and say how many they were."""
        self._set = True
        for event in self._events:
            event.set()
        return len(self._events)

    def clear(self) -> None:
        """Take it back."""
        self._set = False

    async def wait(self) -> None:
        """Return once it was given."""
        if self._set:
            return
        event = anyio.Event()
        self._events.add(event)
        try:
            await event.wait()
        finally:
            self._events.discard(event)
