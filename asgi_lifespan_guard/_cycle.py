"""One start/stop cycle of a guard: the lifespan's task, from first to last message.

A second floor of the door: like `_guard`, it may speak to both wings.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from ._asgi.loading import LoadedApp
from ._asgi.state import StateBoard
from ._asgi.types import Scope
from ._errors import CloseFailedError
from ._hosting import Hosting
from ._phases import ResourcePhase
from ._plan import Plan
from ._resources.factories import Form
from ._resources.overrides import to_open
from ._resources.resource import Resource
from ._resources.supervisor import Supervisor
from ._state import APP
from .events import CloseFailed, Event, Observer


class Cycle:
    """What lives from one startup to the next shutdown.

    Args:
        app: The wrapped app.
        scope: The lifespan scope that the server gave.
        plan: What to open.
        board: Where values are shown to requests.
        observe: Told of every event.
    """

    def __init__(
        self,
        app: LoadedApp,
        scope: Scope,
        plan: Plan,
        board: StateBoard,
        observe: Observer,
    ) -> None:
        self._app = app
        self._scope = scope
        self._board = board
        self._observe = observe
        self._plan = plan
        self._close_failures: dict[str, BaseException] = {}
        self._merged: dict[str, tuple[str, ...]] = {}
        recipes = to_open(plan.recipes)
        self._lifespans = {r.name for r in plan.recipes if r.form is Form.APP_LIFESPAN}
        self._overridden = {r.name for r in set(recipes).difference(plan.recipes)}
        bound = [self._bound(recipe) for recipe in recipes]
        hosted = APP if APP in plan.names else None
        self.supervisor = Supervisor(bound, self, hosted)

    @asynccontextmanager
    async def running(self, timeout: float) -> AsyncGenerator[Callable[[], None], None]:
        """Hold everything open.

        Args:
            timeout: Seconds for closing everything.

        Yields:
            What lets the background resources begin.

        Raises:
            StartupFailedError: When a blocking resource gave up.
            AppLifespanError: When the app's own shutdown failed.
            CloseFailedError: When something else was not closed cleanly.
        """
        shared = self._scope.get("state")
        self._board.attach(None if self._plan.transparent else shared)
        try:
            async with self.supervisor.running(timeout) as begin:
                yield begin
        finally:
            self._board.detach()
        self._raise_close_failures()

    def exits(self, name: str) -> bool:
        """Whether the process is to end when the resource called *name* gives up."""
        return self._plan.exits(name) and name not in self._overridden

    def is_hopeless(self) -> bool:
        """Whether something required has given up, so that only a restart helps."""
        reports = self.supervisor.report()
        return any(r.required and r.phase is ResourcePhase.FAILED for r in reports)

    # What the supervisor says

    def observe(self, event: Event, /) -> None:
        """Pass *event* on, and remember what was not closed."""
        if isinstance(event, CloseFailed) and self.supervisor.stopping:
            self._close_failures[event.resource] = event.error
        self._observe(event)

    def publish(self, recipe: Resource[Any], value: Any, /) -> None:
        """Show requests the value of a resource that came up."""
        if recipe.name not in self._lifespans:
            self._board.publish({recipe.name: value})
        elif not self._plan.transparent:
            self._board.publish(value)
            self._merged[recipe.name] = tuple(value)

    def withdraw(self, recipe: Resource[Any], /) -> None:
        """Hide the value of a resource that is going down."""
        if recipe.name not in self._lifespans:
            self._board.withdraw((recipe.name,))
        elif recipe.name != APP or recipe.startup == "background":
            self._board.withdraw(self._merged.pop(recipe.name, ()))

    def _bound(self, recipe: Resource[Any]) -> Resource[Any]:
        if recipe.form is not Form.APP_LIFESPAN:
            return recipe
        own = recipe.name == APP
        blocking = recipe.startup == "blocking" and self._scope.get("state") is not None
        hosting = Hosting(
            recipe,
            self._app if own else LoadedApp(recipe.factory),
            self._scope,
            keeps_state=own and (self._plan.transparent or blocking),
            names=lambda: self.supervisor.names,
            observe=self._observe,
        )
        return hosting.bound()

    def _raise_close_failures(self) -> None:
        if self._close_failures:
            failed = sorted(self._close_failures)
            raise self._close_failures.get(APP) or CloseFailedError(failed)
