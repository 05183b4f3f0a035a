"""An ASGI app's own lifespan as a resource: loaded, started, merged into the state.

`lifespan_of` makes a recipe of it; `Hosting` is what that recipe opens in one run: the
app is loaded and played to by `_asgi`, retried and closed by `_resources`.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any

from ._asgi.app_lifespan import (
    SILENT,
    hosted_lifespan,
    is_refusal,
    restart_obstacle,
)
from ._asgi.loading import LoadedApp, as_asgi3
from ._asgi.types import ASGIApp, Scope
from ._errors import AppCannotRestartError, ConfigurationError, StateKeyClashError
from ._redaction import describe
from ._resources.factories import Form
from ._resources.resource import (
    DEFAULT,
    Default,
    OnGiveUp,
    Resource,
    Startup,
    build,
)
from ._resources.retry import Retry
from ._resources.threads import ThreadedContext
from ._state import APP, KEY
from .events import LifespanUnsupported, Observer


def lifespan_of(
    app: Any = None,
    /,
    *,
    name: str = APP,
    needs: Sequence[Resource[Any]] = (),
    startup: Startup = "background",
    required: bool = True,
    enabled: bool | Callable[[], bool] = True,
    timeout: float | None = None,
    retry: Retry | Default | None = DEFAULT,
    close_timeout: float = 10.0,
    on_give_up: OnGiveUp = "unready",
) -> Resource[Mapping[str, Any]]:
    """Make a resource of an ASGI app's lifespan.

    What the lifespan yields is merged into the state that requests see.

    Args:
        app: An app whose lifespan nobody runs (a mounted FastMCP, a sub-app), for
            ``resources=``. Without one the wrapped app is meant, for
            ``app_lifespan=``.
        name: As in `resource`; the wrapped app's is ``"app"``, any other needs one.
        needs: Opened before the app's startup, and in the state that it is given.
            The app waits for them before its first start only; it is not restarted
            when one of them is opened again.
        startup: ``"background"``: behind the open port, with retry; ``"blocking"``:
            before it.
        required: As in `resource`.
        enabled: As in `resource`.
        timeout: Seconds for one startup; ``None``: no limit.
        retry: Default: `Retry()`; for a blocking one ``None``, one attempt.
        close_timeout: Seconds for its shutdown.
        on_give_up: As in `resource`.

    Raises:
        ConfigurationError: When an option is wrong.
    """
    _check_name(app, name)
    return build(
        name=name,
        factory=_unbound if app is None else as_asgi3(app, "lifespan_of"),
        form=Form.APP_LIFESPAN,
        needs=needs,
        startup=startup,
        required=required,
        enabled=enabled,
        timeout=timeout,
        retry=retry,
        close_timeout=close_timeout,
        on_give_up=on_give_up,
        outlasts_needs=True,
        merges=True,
        closes_first=app is None,
    )


def _check_name(app: Any, name: str) -> None:
    if app is None and name != APP:
        raise ConfigurationError(
            f"lifespan_of(name={name!r}) without an app means the wrapped app, whose"
            f" lifespan is called {APP!r}; give the other app: lifespan_of(sub_app,"
            f" name={name!r})"
        )
    if app is not None and name == APP:
        raise ConfigurationError(
            "lifespan_of(sub_app) needs a name of its own: lifespan_of(sub_app,"
            " name='mcp')"
        )


def _unbound(*_values: object) -> None:
    """Stand in until a guard puts its app in."""


class Hosting:
    """One app in one start/stop cycle.

    Args:
        recipe: Made by `lifespan_of`.
        app: What is loaded and played to.
        scope: The lifespan scope that the server gave.
        keeps_state: Whether a blocking lifespan gets the server's own state dict, as
            it would without us, so that what it adds later on is seen too. One that
            may be run again gets a fresh one.
        names: Of all resources, which it must not yield.
        others: Returns what requests see of other resources now, by key.
        time_left: Seconds that it may take to end, asked when that begins.
        observe: Told where the app has no lifespan.
    """

    def __init__(
        self,
        recipe: Resource[Any],
        app: LoadedApp,
        scope: Scope,
        *,
        keeps_state: bool,
        names: AbstractSet[str],
        others: Callable[[], Mapping[str, Any]],
        time_left: Callable[[], float],
        observe: Observer,
    ) -> None:
        self._recipe = recipe
        self._app = app
        self._scope = scope
        self._keeps_state = keeps_state
        self._names = names
        self._others = others
        self._time_left = time_left
        self._observe = observe
        self._first_failure: BaseException | None = None
        self._importing: ThreadedContext[ASGIApp] | None = None

    def bound(self) -> Resource[Any]:
        """Return the recipe with a factory that runs this app."""
        return replace(self._recipe, factory=self._opened)

    def _opened(self, *values: Any) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        names = [need.name for need in self._recipe.needs]
        return self._hosted(dict(zip(names, values, strict=True)))

    @asynccontextmanager
    async def _hosted(
        self, needed: Mapping[str, Any]
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        state = self._state_for(needed)
        before = dict(state or {})
        app = await self._loaded()
        try:
            async with self._lifespan(app, state):
                yielded = self._yielded(before, state or {})
                clash = yielded.keys() & (self._names | self._others().keys())
                if not clash:
                    yield yielded
        except Exception as error:
            self._check_restartable(error)
            raise
        if clash:  # The app did start, and is shut down before this is raised.
            raise StateKeyClashError(tuple(clash))

    async def _loaded(self) -> ASGIApp:
        if not self._app.blocks:
            return self._app.use(self._app.load())
        if self._importing is not None:
            await self._importing.wait_ended()  # It cannot be cancelled.
        load = self._app.load
        self._importing = ThreadedContext("import", lambda: nullcontext(load()))
        async with self._importing as app:
            return self._app.use(app)

    def _lifespan(
        self, app: ASGIApp, state: MutableMapping[str, Any] | None
    ) -> AbstractAsyncContextManager[None]:
        if not self._app.has_lifespan:
            return nullcontext()
        scope = self._scope_with(state)
        return hosted_lifespan(
            self._recipe.name, app, scope, self._time_left, self._tell_unsupported
        )

    def _state_for(self, needed: Mapping[str, Any]) -> MutableMapping[str, Any] | None:
        own: MutableMapping[str, Any] | None = self._scope.get("state")
        if self._keeps_state:
            return own
        # With the guard's own entry, by which it is found, and another one around it.
        known = {} if own is None or KEY not in own else {KEY: own[KEY]}
        return {**known, **needed}

    def _scope_with(self, state: MutableMapping[str, Any] | None) -> Scope:
        scope = {"asgi": {"version": "3.0", "spec_version": "2.0"}, **self._scope}
        scope.pop("state", None)
        if self._recipe.name != APP:
            scope.pop("app", None)  # The wrapped one's, which another must not see.
        return scope if state is None else {**scope, "state": state}

    def _yielded(
        self, before: Mapping[str, Any], state: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what the app put into *state*, where others may have put theirs."""
        nothing, others = object(), self._others()
        return {
            key: value
            for key, value in state.items()
            if key != KEY
            and before.get(key, nothing) is not value
            and others.get(key, nothing) is not value
        }

    def _tell_unsupported(self, error: BaseException | None) -> None:
        odd = error is not None and not is_refusal(error)
        self._observe(LifespanUnsupported(self._recipe.name, error, odd))

    def _check_restartable(self, error: Exception) -> None:
        first = self._first_failure
        if first is None:
            self._first_failure = error
            return
        sign = restart_obstacle(error)
        if sign is None or (sign == SILENT and not self._is_telling(first)):
            return
        name = self._recipe.name
        raise AppCannotRestartError(name, sign, describe(first)) from error

    def _is_telling(self, first: BaseException) -> bool:
        """Whether silence means something: not where the app is another one by now.

        Nor where it was silent from the beginning: an ``asyncio.timeout()`` in Quart's
        ``before_serving`` has no text of its own.
        """
        return not self._app.is_fresh and restart_obstacle(first) != SILENT
