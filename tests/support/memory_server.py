"""The server in memory, where tests look for it; it is public."""

from __future__ import annotations

from asgi_lifespan_guard.testing import (
    LifespanError,
    MemoryServer,
    ProtocolError,
    Request,
)


__all__ = ["LifespanError", "MemoryServer", "ProtocolError", "Request"]
