"""The smallest apps, for a real server; ``uvicorn --factory benchmarks.hello:plain``.

Nothing is imported before the factory that needs it is called.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"5")]


async def hello(
    scope: Any,
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    """Answer every request; have a lifespan in which nothing happens."""
    if scope["type"] == "lifespan":
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b"hello"})


def plain() -> Any:
    """Return the app itself."""
    return hello


def guarded() -> Any:
    """Return it with a guard around it."""
    from asgi_lifespan_guard import LifespanGuard

    return LifespanGuard(hello)


def plain_with_backend() -> Any:
    """Return the app, in a process that uses anyio anyway."""
    _load_backend()
    return hello


def guarded_with_backend() -> Any:
    """Return it with a guard around it, in a process that uses anyio anyway."""
    _load_backend()
    return guarded()


def _load_backend() -> None:
    import importlib

    importlib.import_module("anyio._backends._asyncio")
