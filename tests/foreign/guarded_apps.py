"""A pytest plugin: every app that a suite hands to a client is wrapped in a guard.

Loaded by name (``-p guarded_apps``) into suites of other people, which know nothing of
it. An app is wrapped where it is handed over, as late as possible: what a test asks
the app object itself for is there as before.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from asgi_lifespan_guard import LifespanGuard


def pytest_configure() -> None:
    """Wrap wherever an app is handed over; suites lack what they do not need."""
    for wrap in (_starlette, _httpx, _asgiref, _falcon, _uvicorn):
        try:
            wrap()
        except ImportError:
            continue


def _starlette() -> None:
    def swap(client: Any) -> None:
        client.app = client._transport.app = LifespanGuard(client.app)

    _after(import_module("starlette.testclient").TestClient, "__init__", swap)


def _httpx() -> None:
    def swap(transport: Any) -> None:
        transport.app = LifespanGuard(transport.app)

    _after(import_module("httpx").ASGITransport, "__init__", swap)
    _after(import_module("httpx2").ASGITransport, "__init__", swap)


def _asgiref() -> None:
    def swap(communicator: Any) -> None:
        communicator.application = LifespanGuard(communicator.application)

    communicator = import_module("asgiref.testing").ApplicationCommunicator
    _after(communicator, "__init__", swap)


def _uvicorn() -> None:
    def swap(config: Any) -> None:
        if config.interface != "wsgi":
            config.loaded_app = LifespanGuard(config.loaded_app)

    _after(import_module("uvicorn.config").Config, "load", swap)


def _falcon() -> None:
    """Wrap what an app does when it is called: Falcon's client asks for its class."""
    kind = import_module("falcon.asgi").App
    call = kind.__call__
    guards: dict[int, tuple[Any, LifespanGuard]] = {}

    async def guarded(self: Any, scope: Any, receive: Any, send: Any) -> Any:
        if id(self) not in guards:
            guards[id(self)] = self, LifespanGuard(call.__get__(self))
        return await guards[id(self)][1](scope, receive, send)

    kind.__call__ = guarded


def _after(kind: Any, method: str, swap: Callable[[Any], None]) -> None:
    """Have *swap* done to every *kind* when it has been made or loaded."""
    original = getattr(kind, method)

    def then_swap(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        swap(self)

    setattr(kind, method, then_swap)
