"""A recipe for an ASGI app's own lifespan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ._state import APP
from ._supervision.forms import Form
from ._supervision.resource import (
    DEFAULT,
    Default,
    OnGiveUp,
    Resource,
    Startup,
    build,
)
from ._supervision.retry import Retry


def lifespan_of(
    *,
    needs: Sequence[Resource[Any]] = (),
    startup: Startup = "background",
    enabled: bool | Callable[[], bool] = True,
    timeout: float | None = None,
    retry: Retry | Default | None = DEFAULT,
    close_timeout: float = 10.0,
    on_give_up: OnGiveUp = "unready",
) -> Resource[Mapping[str, Any]]:
    """Make a resource of the wrapped app's lifespan, for ``app_lifespan=``.

    What the lifespan yields is merged into the state that requests see.

    Args:
        needs: Opened before the app's startup, and in the state that it is given.
            The app waits for them before its first start only; it is not restarted
            when one of them is opened again.
        startup: ``"background"``: behind the open port, with retry; ``"blocking"``:
            before it.
        enabled: As in `resource`.
        timeout: Seconds for one startup; ``None``: no limit.
        retry: Default: `Retry()`; for a blocking one ``None``, one attempt.
        close_timeout: Seconds for its shutdown.
        on_give_up: As in `resource`.

    Raises:
        ConfigurationError: When an option is wrong.
    """
    return build(
        name=APP,
        factory=_unbound,
        form=Form.APP_LIFESPAN,
        needs=needs,
        startup=startup,
        required=True,
        enabled=enabled,
        timeout=timeout,
        retry=retry,
        close_timeout=close_timeout,
        on_give_up=on_give_up,
    )


def _unbound(*_values: object) -> None:
    """Stand in until a guard puts its app in."""
