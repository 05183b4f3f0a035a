"""The wrapped app, which may not be there yet: an import string, a factory.

Imports of heavy apps run in a worker thread behind the open port; pure Python lets
others have the interpreter every few milliseconds, so probes are answered meanwhile.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from .._errors import AppNotLoadedError, ConfigurationError
from .types import ASGIApp


class LoadedApp:
    """An app and how to come by it.

    Args:
        app: An ASGI 3 app, an ASGI 2 class, or ``"module:attribute"``; with *factory*,
            what is called to make one of them.
        factory: Whether it is called, once for each load.
        has_lifespan: Whether its own lifespan is to be run.
        used: Called with the app that requests are to reach from now on.

    Attributes:
        current: The app as it is now; raises before the first load.
        has_lifespan: As given.
        is_late: Whether it has to be imported or made first.
        blocks: Whether loading may take long, and belongs into a worker thread.

    Raises:
        ConfigurationError: When *app* is neither callable nor an import string.
    """

    def __init__(
        self,
        app: Any,
        *,
        factory: bool = False,
        has_lifespan: bool = True,
        used: Callable[[ASGIApp], None] | None = None,
    ) -> None:
        self._given = app
        self._factory = factory
        self._used = used
        self.has_lifespan = has_lifespan
        self.blocks = isinstance(app, str)
        self.is_late = self.blocks or factory
        _check_given(app)
        self.current: ASGIApp = _not_loaded if self.is_late else as_asgi3(app)

    def use(self, app: ASGIApp) -> ASGIApp:
        """Let *app* be the one that requests reach."""
        self.current = app
        if self._used is not None:
            self._used(app)
        return app

    def load(self) -> ASGIApp:
        """Import or make the app, and return it; a fresh one where there is a factory.

        Raises:
            Exception: Whatever importing or making it raises.
            ConfigurationError: When what was found is no ASGI app.
        """
        if not self.is_late:
            return self.current
        found = _imported(self._given) if self.blocks else self._given
        return as_asgi3(found() if self._factory else found)


def as_asgi3(app: Any) -> ASGIApp:
    """Return *app* as an ASGI 3 app; an ASGI 2 app is known by being a class.

    Raises:
        ConfigurationError: When it cannot be called.
    """
    if not callable(app):
        raise ConfigurationError(
            f"LifespanGuard({app!r}): is no ASGI app; give the app object itself, or"
            " 'module:attribute'"
        )
    if inspect.isclass(app):
        from asgiref.compatibility import guarantee_single_callable

        adapt: Callable[[Any], Any] = guarantee_single_callable
        return cast("ASGIApp", adapt(app))
    return cast("ASGIApp", app)


def _check_given(app: Any) -> None:
    if isinstance(app, str):
        module, colon, attribute = app.partition(":")
        names = [*module.split("."), *attribute.split(".")]
        if not colon or not all(name.isidentifier() for name in names):
            raise ConfigurationError(
                f"LifespanGuard({app!r}): an import string is 'module:attribute', such"
                " as 'main:app'"
            )
    elif not callable(app):
        as_asgi3(app)


def _imported(given: str) -> Any:
    module, _, attribute = given.partition(":")
    found: Any = import_module(module)
    try:
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError as error:
        raise ImportError(f"{given!r} names nothing: {error}") from error
    return found


async def _not_loaded(*_: object) -> None:
    raise AppNotLoadedError
