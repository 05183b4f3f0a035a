"""Litestar answers exceptions itself; a hook hears of them."""

from __future__ import annotations

from typing import Any

from . import suspect


def after_exception(exception: Exception, scope: Any) -> None:
    """Have what the request needs checked: ``Litestar(after_exception=[...])``.

    Args:
        exception: What a handler raised.
        scope: Of its request.
    """
    suspect(exception, scope)
