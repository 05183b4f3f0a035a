"""Where a resource's value is found: at ``scope["state"][name]``.

`Resource.get` and `LifespanGuard.of` both take "whatever you have at hand": a scope,
a framework's request or WebSocket (anything with ``.scope``), or a guard (which has
``.state``). How to get from there to the state is known here alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ._errors import ConfigurationError


KEY = "asgi_lifespan_guard"
"""The guard's own key in the state; reserved."""

APP = "app"
"""The name of the wrapped app's own lifespan among the resources; reserved."""


class HasScope(Protocol):
    """A framework's request or WebSocket."""

    @property
    def scope(self) -> Any: ...

    if TYPE_CHECKING:
        pass  # No type checker is to take it for one of its methods.
    else:

        @classmethod
        def __get_pydantic_core_schema__(cls, *_):
            """Be asked by FastAPI for a dependency's parameter, and name the remedy."""
            raise ConfigurationError(
                "Depends(db) and Depends(db.get): FastAPI would read the request from"
                " the query; name its type in a function of your own, `def get_db("
                "request: HTTPConnection): return db.get(request)`, and say"
                " Depends(get_db)"
            )


class HasState(Protocol):
    """A guard."""

    @property
    def state(self) -> Mapping[str, Any]: ...


Source: TypeAlias = Mapping[str, Any] | HasScope | HasState


def scope_of(source: Mapping[str, Any] | HasScope | None) -> Mapping[str, Any] | None:
    """Return the scope that *source* is, or has, if any."""
    return source if isinstance(source, Mapping) else getattr(source, "scope", None)


def state_of(source: Source) -> Mapping[str, Any]:
    """Return the state that *source* leads to; empty where it leads nowhere."""
    scope = scope_of(source)  # type: ignore[arg-type]
    found = getattr(source, "state", None) if scope is None else scope.get("state")
    return found if isinstance(found, Mapping) else {}
