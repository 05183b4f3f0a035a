"""What tests look at: every event, and marks in the order in which they were made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio

from asgi_lifespan_guard.events import Event


E = TypeVar("E", bound=Event)

PATIENCE = 30.0
"""Seconds after which a test is told that what it waits for does not come."""


class Recorder:
    """An observer that keeps what it is told; its marks are a transcript.

    Attributes:
        events: Everything observed, in order.
        marks: What the test's own resources and apps said with `mark`.
        also: Called with every event, too, if there is one.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.marks: list[str] = []
        self.also: Callable[[Event], None] | None = None
        self._news: anyio.Event | None = None

    def __call__(self, event: Event, /) -> None:
        self.events.append(event)
        if self.also is not None:
            self.also(event)
        self._tell()

    def mark(self, text: str) -> None:
        """Add *text* to the transcript."""
        self.marks.append(text)
        self._tell()

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Return once *condition* is true; asked again after each event and mark."""
        with anyio.fail_after(PATIENCE):
            while not condition():
                self._news = anyio.Event()
                await self._news.wait()

    async def wait_for(self, kind: type[E], count: int = 1) -> E:
        """Return the *count*th event of one kind, as soon as there is one."""
        await self.wait_until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)[count - 1]

    async def wait_for_mark(self, text: str, count: int = 1) -> None:
        """Return once *text* was marked *count* times."""
        await self.wait_until(lambda: self.marks.count(text) >= count)

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
