"""Quart answers exceptions itself; its signals tell of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import suspect


if TYPE_CHECKING:
    from quart import Quart


def connect(app: Quart) -> None:
    """Have what a request needs checked when its handler raises.

    Args:
        app: The Quart app; call it once for each.
    """
    from quart import got_request_exception, got_websocket_exception

    got_request_exception.connect(_suspect, app, weak=False)
    got_websocket_exception.connect(_suspect, app, weak=False)


# Async, because Quart would run plain functions in a thread without the request.
async def _suspect(_app: Any, exception: BaseException, **_more: Any) -> None:
    from quart import has_request_context, request, websocket

    suspect(exception, (request if has_request_context() else websocket).scope)
