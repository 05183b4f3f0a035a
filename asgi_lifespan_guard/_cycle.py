"""One start/stop cycle of a guard: the lifespan's task, from first to last message.

A second floor of the door: like `_guard`, it may speak to both wings.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

from ._asgi.hosted import hosted_lifespan, restart_obstacle
from ._asgi.state import StateBoard
from ._asgi.types import ASGIApp, Scope
from ._errors import AppCannotRestartError, CloseFailedError, StateKeyClashError
from ._events import CloseFailed, Event, LifespanUnsupported, Observer
from ._plan import starts_as_without_us
from ._redaction import describe
from ._state import APP, KEY
from ._supervision.forms import Form
from ._supervision.resource import Resource
from ._supervision.supervisor import Supervisor


class Cycle:
    """What lives from one startup to the next shutdown.

    Args:
        app: The wrapped app.
        scope: The lifespan scope that the server gave.
        recipes: The resources, the app's own lifespan among them where it is run.
        board: Where values are shown to requests.
        observe: Told of every event.
    """

    def __init__(
        self,
        app: ASGIApp,
        scope: Scope,
        recipes: Sequence[Resource[Any]],
        board: StateBoard,
        observe: Observer,
    ) -> None:
        self._app = app
        self._scope = scope
        self._board = board
        self._observe = observe
        self._transparent = all(map(starts_as_without_us, recipes))
        self._close_failures: dict[str, BaseException] = {}
        self._first_failure: BaseException | None = None
        self._merged: tuple[str, ...] = ()
        bound = [self._bound(recipe) for recipe in recipes]
        hosted = APP if any(recipe.name == APP for recipe in recipes) else None
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
        self._board.attach(None if self._transparent else shared)
        try:
            async with self.supervisor.running(timeout) as begin:
                yield begin
        finally:
            self._board.detach()
        self._raise_close_failures()

    # What the supervisor says

    def observe(self, event: Event, /) -> None:
        """Pass *event* on, and remember what was not closed."""
        if isinstance(event, CloseFailed) and self.supervisor.stopping:
            self._close_failures[event.resource] = event.error
        self._observe(event)

    def publish(self, recipe: Resource[Any], value: Any, /) -> None:
        """Show requests the value of a resource that came up."""
        if recipe.form is not Form.APP_LIFESPAN:
            self._board.publish({recipe.name: value})
        elif not self._transparent:
            self._board.publish(value)
            self._merged = tuple(value)

    def withdraw(self, recipe: Resource[Any], /) -> None:
        """Hide the value of a resource that is going down."""
        if recipe.form is not Form.APP_LIFESPAN:
            self._board.withdraw((recipe.name,))
        elif recipe.startup == "background":
            self._board.withdraw(self._merged)

    # The app's own lifespan

    def _bound(self, recipe: Resource[Any]) -> Resource[Any]:
        if recipe.form is not Form.APP_LIFESPAN:
            return recipe

        def host(*values: Any) -> AbstractAsyncContextManager[Mapping[str, Any]]:
            names = [need.name for need in recipe.needs]
            return self._hosted(recipe, dict(zip(names, values, strict=True)))

        return replace(recipe, factory=host)

    @asynccontextmanager
    async def _hosted(
        self, recipe: Resource[Any], needed: Mapping[str, Any]
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        state = self._state_for(recipe, needed)
        before = dict(state or {})
        scope = self._scope_with(state)
        lifespan = hosted_lifespan(
            self._app, scope, recipe.close_timeout, self._tell_unsupported
        )
        try:
            async with lifespan:
                yielded = self._yielded(before, state or {})
                clash = self.supervisor.names.intersection(yielded) - {APP}
                if not clash:
                    yield yielded
        except Exception as error:
            self._check_restartable(error)
            raise
        if clash:  # The app did start, and is shut down before this is raised.
            raise StateKeyClashError(tuple(clash))

    def _state_for(
        self, recipe: Resource[Any], needed: Mapping[str, Any]
    ) -> MutableMapping[str, Any] | None:
        """Return the state dict that the app's lifespan is given.

        A blocking one gets the server's own, as it would without us, so that what it
        adds later on is seen too; one that may be run again gets a fresh one.
        """
        own: MutableMapping[str, Any] | None = self._scope.get("state")
        if self._transparent or (recipe.startup == "blocking" and own is not None):
            return own
        return dict(needed)

    def _scope_with(self, state: MutableMapping[str, Any] | None) -> Scope:
        scope = {"asgi": {"version": "3.0", "spec_version": "2.0"}, **self._scope}
        scope.pop("state", None)
        return scope if state is None else {**scope, "state": state}

    @staticmethod
    def _yielded(before: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: value
            for key, value in state.items()
            if key != KEY and (key not in before or before[key] is not value)
        }

    def _tell_unsupported(self, error: BaseException | None) -> None:
        self._observe(LifespanUnsupported(APP, error))

    def _check_restartable(self, error: Exception) -> None:
        first = self._first_failure
        if first is None:
            self._first_failure = error
            return
        sign = restart_obstacle(error)
        if sign is not None:
            raise AppCannotRestartError(APP, sign, describe(first)) from error

    def _raise_close_failures(self) -> None:
        if self._close_failures:
            failed = sorted(self._close_failures)
            raise self._close_failures.get(APP) or CloseFailedError(failed)
