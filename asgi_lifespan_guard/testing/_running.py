"""An app whose lifespan runs, for clients that run none themselves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from .._asgi.state import Version
from .._asgi.types import ASGIApp, Receive, Scope, Send
from .._errors import NotReadyError
from .._guard import LifespanGuard
from .._state import KEY
from ._server import MemoryServer


@asynccontextmanager
async def running(
    app: Any, *, ready: bool = True, timeout: float = 10.0
) -> AsyncGenerator[ASGIApp, None]:
    """Run an app's lifespan, and give what serves its requests.

    An app without a lifespan is served as well. The block may be entered in one task
    and left in another, as pytest-asyncio does with a fixture (on trio it may not).

    Args:
        app: Any ASGI app: a guard, or an app that has one as its middleware.
        ready: Whether to wait until ``/readyz`` would say yes, where there is a guard.
            Without it requests are held at the gate, or refused, as they would be.
        timeout: Seconds for becoming ready, from the end of the startup.

    Yields:
        An app for ``httpx.ASGITransport(app=...)``: each request gets a copy of its
        own of the lifespan's state, as from a server.

    Raises:
        LifespanError: When the app did not start or did not shut down, from what it
            raised.
        NotReadyError: When it is not ready in time, or a required resource has given
            up; its notes tell why.
    """
    server = MemoryServer(app, lifespan="auto")
    async with server:
        state: Mapping[str, Any] = server.lifespan.scope["state"]
        version = state.get(KEY)
        if (
            ready
            and isinstance(version, Version)
            and isinstance(version.guard, LifespanGuard)
        ):
            await _wait_ready(version.guard, timeout)
        yield _served(app, state)


def _served(app: Any, state: Mapping[str, Any]) -> ASGIApp:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await app(
            {**scope, "state": {**state, **scope.get("state", {})}}, receive, send
        )

    return serve


async def _wait_ready(guard: LifespanGuard, timeout: float) -> None:
    try:
        await guard.wait_ready(timeout)
    except NotReadyError as error:
        for resource in guard.report().resources:
            if resource.name in error.missing:
                why = resource.last_error or "no attempt has failed"
                error.add_note(f"{resource.name} is {resource.phase.value}: {why}")
        raise
