"""Holds a resource that is up, and asks it now and then how it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from .._phases import ResourceTrigger
from .._tasks.bell import Bell
from ..events import CheckFailed, ResourceDown, ResourceRecovered
from .checks import Asker, Change, Then, Watch
from .place import Crew
from .record import Record
from .resource import Resource


class Watcher:
    """Puts a resource's checks, in the task that owns it.

    Args:
        recipe: The resource's.
        record: Where a failing check is noted.
        bell: Rung when the owner is told something.
        crew: Told what the checks say.
        recovered: Called when the resource may be relied upon again.

    Attributes:
        verdict: Why the resource is to be closed and opened again, once it is.
    """

    def __init__(
        self,
        recipe: Resource[Any],
        record: Record,
        bell: Bell,
        crew: Crew,
        recovered: Callable[[], None],
    ) -> None:
        self.verdict: Exception | None = None
        self._name = recipe.name
        self._check = recipe.check
        self._asker = Asker(recipe.name, recipe.check) if recipe.check else None
        self._record = record
        self._bell = bell
        self._crew = crew
        self._recovered = recovered
        self._told = False

    def renew(self) -> None:
        """Make ready for another attempt."""
        self.verdict = None
        self._told = False

    def release(self) -> None:
        """Have `hold` return, and interrupt a check that is on."""
        self._told = True
        if self._asker is not None:
            self._asker.interrupt()
        self._bell.ring()

    async def ask_first(self, value: Any, *, threaded: bool) -> None:
        """Put the first check, which belongs to the attempt.

        Raises:
            Exception: Why it failed.
        """
        if self._asker is None or self._told:
            return
        error = await self._asker.ask(value, threaded=threaded)
        if error is not None:
            raise error

    async def hold(self, value: Any, *, threaded: bool) -> None:
        """Return when the resource is to be closed; ask it now and then until then."""
        if self._check is None or self._asker is None:
            await self._bell.wait_until(self._is_told)
            return
        watch = Watch(self._check)
        while not self._is_told():
            with anyio.move_on_after(self._check.wait()):
                await self._bell.wait_until(self._is_told)
            if not self._is_told():
                error = await self._asker.ask(value, threaded=threaded)
                self._judge(watch, error, self._check.then)

    def _is_told(self) -> bool:
        return self._told or self.verdict is not None

    def _judge(self, watch: Watch, error: Exception | None, then: Then) -> None:
        if self._told:
            return
        change = watch.count(passed=error is None)
        if error is not None:
            self._crew.observe(CheckFailed(self._name, error, watch.in_a_row))
            if change is Change.DOWN:
                self._record.error = error
                self._record.handle(ResourceTrigger.CHECK_FAILED)
                self._crew.observe(ResourceDown(self._name, error))
                self.verdict = error if then == "reopen" else None
        elif change is Change.RECOVERED:
            self._record.error = None
            self._record.handle(ResourceTrigger.RECOVERED)
            self._crew.observe(ResourceRecovered(self._name))
            self._recovered()
