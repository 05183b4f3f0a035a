"""What frameworks have to be told, or can tell: a few lines each, imported by hand."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from .._errors import GuardNotFoundError
from .._guard import LifespanGuard
from .._state import HasScope


__all__ = ["suspect"]


def suspect(error: BaseException, request: HasScope | Mapping[str, Any]) -> None:
    """Have what *request* needs checked, as if *error* had left the app.

    For hooks of frameworks that answer exceptions themselves. Nothing happens where no
    guard let the request in.

    Args:
        error: The exception; asked is what it is about (``Check(on=...)``).
        request: The request that failed, or its scope.
    """
    with suppress(GuardNotFoundError):
        LifespanGuard.of(request).suspect(request=request, error=error)
