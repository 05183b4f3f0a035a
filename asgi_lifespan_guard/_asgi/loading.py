"""The wrapped app, which may not be there yet: an import string, a factory.

Imports of heavy apps run in a worker thread behind the open port; pure Python lets
others have the interpreter every few milliseconds, so probes are answered meanwhile.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from .._errors import AppNotLoadedError, ConfigurationError, FactoryError
from .._state import APP
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
        is_fresh: Whether each load gives another app.
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
        self._used = used
        self.has_lifespan = has_lifespan
        self.blocks = isinstance(app, str)
        self.is_late = self.blocks or factory
        self.is_fresh = factory
        _check_given(app, factory)
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
            FactoryError: When what was found is no ASGI app, or cannot make one.
        """
        if not self.is_late:
            return self.current
        found = _imported(self._given) if self.blocks else self._given
        app = _made_by(found) if self.is_fresh else found
        flaw = _flaw_of(app)
        if flaw is not None:
            raise FactoryError(APP, f"{self._given!r} gave {app!r}, which {flaw}", _SEE)
        return as_asgi3(app)


_SEE = "name the app itself, or with app_factory=True what makes it"


def is_import_string(text: str) -> bool:
    """Whether *text* is ``module:attribute``; both may have dots."""
    module, _, attribute = text.partition(":")
    names = [*module.split("."), *attribute.split(".")]
    return all(name.isidentifier() for name in names)


def as_asgi3(app: Any, owner: str = "LifespanGuard") -> ASGIApp:
    """Return *app* as an ASGI 3 app.

    An ASGI 2 app is known by being a class; but one whose instances can be awaited
    (Starlette's ``HTTPEndpoint``) is an ASGI 3 app itself, as servers see it, too.

    Raises:
        ConfigurationError: When it cannot be called as one; it names *owner*.
    """
    flaw = _flaw_of(app)
    if flaw is not None:
        raise ConfigurationError(
            f"{owner}({app!r}): {flaw}; or give the app object itself"
        )
    if inspect.isclass(app) and not hasattr(app, "__await__"):
        from asgiref.compatibility import guarantee_single_callable

        adapt: Callable[[Any], Any] = guarantee_single_callable
        return cast("ASGIApp", adapt(app))
    return cast("ASGIApp", app)


def _check_given(app: Any, factory: bool) -> None:
    if isinstance(app, str):
        if not is_import_string(app):
            raise ConfigurationError(
                f"LifespanGuard({app!r}): an import string is 'module:attribute', such"
                " as 'main:app'"
            )
    elif not factory or not callable(app):
        as_asgi3(app)


def _flaw_of(app: Any) -> str | None:
    if not callable(app):
        return "is no ASGI app"
    if inspect.isclass(app) or _takes(app, 3):
        return None
    if _takes(app, 1) and not _takes(app, 0):
        return (
            "takes one argument, as an ASGI 2 app does (is it one? then adapt it:"
            " asgiref.compatibility.guarantee_single_callable(app))"
        )
    return (
        "cannot be called with (scope, receive, send), as an ASGI app is (does it make"
        " the app? then say app_factory=True)"
    )


def _takes(app: Callable[..., Any], count: int) -> bool:
    """Whether *app* can be called with so many arguments; or nobody can tell."""
    try:
        signature = inspect.signature(app, follow_wrapped=False)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _made_by(factory: Any) -> Any:
    try:
        return factory()
    except TypeError as error:
        raise FactoryError(
            APP, f"calling {factory!r} to make the app failed: {error}", _SEE
        ) from error


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
