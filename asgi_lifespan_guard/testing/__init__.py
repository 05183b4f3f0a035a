"""For tests of apps that have a guard, on asyncio and on trio.

- `running` runs an app's lifespan, and gives an app for ``httpx.ASGITransport``.
- `override` has a fake opened instead of a resource, whoever opens it.
- `Flaky` is a resource that fails, crashes and recovers when the test says so.
- `MemoryServer` is an ASGI server without sockets, which puts up with nothing.
"""

from __future__ import annotations

from ._exchange import Exchange, ProtocolError, Request
from ._flaky import Flaky
from ._override import Override, override
from ._running import running
from ._server import LifespanError, MemoryServer


__all__ = [
    "Exchange",
    "Flaky",
    "LifespanError",
    "MemoryServer",
    "Override",
    "ProtocolError",
    "Request",
    "override",
    "running",
]
