"""Holds a resource that is up, and asks it now and then how it is."""

from __future__ import annotations

from typing import Any

import anyio

from .._concurrency.bell import Bell
from .._concurrency.interruption import Interruption
from .._events import CheckFailed, ResourceDown, ResourceRecovered
from .._phases import ResourceTrigger
from .checks import Change, Check, Watch, ask
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

    Attributes:
        verdict: Why the resource is to be closed and opened again, once it is.
    """

    def __init__(
        self, recipe: Resource[Any], record: Record, bell: Bell, crew: Crew
    ) -> None:
        self.verdict: Exception | None = None
        self._recipe = recipe
        self._record = record
        self._bell = bell
        self._crew = crew
        self._told = False
        self._asking: Interruption | None = None

    def release(self) -> None:
        """Have `hold` return, and interrupt a check that is on."""
        self._told = True
        if self._asking is not None:
            self._asking.interrupt()
        self._bell.ring()

    async def ask_first(self, value: Any, *, threaded: bool) -> None:
        """Put the first check, which belongs to the attempt.

        Raises:
            Exception: Why it failed.
        """
        if self._recipe.check is not None:
            error = await self._ask(self._recipe.check, value, threaded=threaded)
            if error is not None:
                raise error

    async def hold(self, value: Any, *, threaded: bool) -> None:
        """Return when the resource is to be closed; ask it now and then until then."""
        check = self._recipe.check
        if check is None:
            await self._bell.wait_until(self._is_told)
            return
        watch = Watch(check)
        while not self._is_told():
            with anyio.move_on_after(check.wait()):
                await self._bell.wait_until(self._is_told)
            if not self._is_told():
                error = await self._ask(check, value, threaded=threaded)
                self._judge(check, watch, error)

    def _is_told(self) -> bool:
        return self._told or self.verdict is not None

    async def _ask(
        self, check: Check, value: Any, *, threaded: bool
    ) -> Exception | None:
        try:
            return await ask(
                self._recipe.name,
                check,
                value,
                threaded=threaded,
                started=self._note_question,
            )
        finally:
            self._asking = None

    def _note_question(self, asking: Interruption) -> None:
        self._asking = asking

    def _judge(self, check: Check, watch: Watch, error: Exception | None) -> None:
        if self._told:
            return
        change = watch.count(passed=error is None)
        name = self._recipe.name
        if error is not None:
            self._crew.observe(CheckFailed(name, error, watch.in_a_row))
        if change is Change.DOWN and error is not None:
            self._record.error = error
            self._record.handle(ResourceTrigger.CHECK_FAILED)
            self._crew.observe(ResourceDown(name, error))
            self.verdict = error if check.then == "reopen" else None
        elif change is Change.RECOVERED:
            self._record.error = None
            self._record.handle(ResourceTrigger.RECOVERED)
            self._crew.observe(ResourceRecovered(name))
