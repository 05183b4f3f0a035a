"""Django answers exceptions itself; its signal tells of them."""

from __future__ import annotations

import sys
from typing import Any

from . import suspect


def connect() -> None:
    """Have what a request needs checked when its view raises; once for a process."""
    from django.core.signals import got_request_exception

    got_request_exception.connect(
        _of_request, weak=False, dispatch_uid="asgi_lifespan_guard"
    )


def _of_request(request: Any = None, **_more: Any) -> None:
    error = sys.exc_info()[1]
    scope = getattr(request, "scope", None)
    if error is not None and scope is not None:
        suspect(error, scope)
