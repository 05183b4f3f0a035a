"""A recipe for an ASGI app's own lifespan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ._asgi.loading import as_asgi3
from ._errors import ConfigurationError
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
from ._state import APP


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
