"""An ASGI server without sockets.

It plays the server's part through plain ``receive`` and ``send``, on asyncio and on
trio, and is strict about the protocol. An app's own errors come through as they are.
What servers differ in is an argument.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Self, TypeAlias

from anyio import AsyncContextManagerMixin

from asgi_lifespan_guard._concurrency.groups import transparent_task_group

from .exchange import LIFESPAN, WEBSOCKET, App, Exchange, ProtocolError, Request


__all__ = ["LifespanError", "MemoryServer", "ProtocolError", "Request"]

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]


class LifespanError(Exception):
    """Raised when an app did not start or did not shut down, from what it raised."""


class MemoryServer(AsyncContextManagerMixin):
    """Runs an app's lifespan inside its block, and puts requests to it.

    Args:
        app: The app.
        lifespan_scope: Instead of the usual one.
        state_for_request: Makes a request's state of the lifespan's. Default: a copy,
            as uvicorn, hypercorn and granian do.
        forgets_state: Empties the lifespan's state before the shutdown, as granian.
        denies_websockets: Advertises ``websocket.http.response``; daphne does not.
        root_path: Put into every scope, but not in front of the path.
    """

    def __init__(
        self,
        app: App,
        *,
        lifespan_scope: dict[str, Any] | None = None,
        state_for_request: Callable[[Any], Any] = dict,
        forgets_state: bool = False,
        denies_websockets: bool = True,
        root_path: str = "",
    ) -> None:
        asgi = {"version": "3.0", "spec_version": "2.0"}
        usual = {"type": "lifespan", "asgi": asgi, "state": {}}
        self.lifespan = Exchange(app, lifespan_scope or usual, LIFESPAN)
        self._app = app
        self._state_for_request = state_for_request
        self._forgets_state = forgets_state
        denial: dict[str, Any] = {"websocket.http.response": {}}
        self._extensions = denial if denies_websockets else {}
        self._root_path = root_path
        self._error: Exception | None = None
        self._ended = False

    @property
    def said(self) -> list[str]:
        """The types of the messages that the app sent to its lifespan."""
        return [message["type"] for message in self.lifespan.sent]

    async def get(self, path: str, *headers: tuple[bytes, bytes]) -> Request:
        """Make a GET request, and return it when it is answered."""
        return await self.http(path, headers=headers).run()

    def http(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Headers = (),
        body: Iterable[bytes] | None = (b"",),
    ) -> Request:
        """Prepare a request; *body* comes in pieces, ``None``: the test feeds it."""
        request = Request(self._app, self._scope("http", path, headers, method=method))
        pieces = list(body or ())
        for number, piece in enumerate(pieces, 1):
            more = number < len(pieces)
            request.feed({"type": "http.request", "body": piece, "more_body": more})
        return request

    def websocket(self, path: str, *, headers: Headers = ()) -> Request:
        """Prepare a WebSocket's handshake."""
        scope = self._scope("websocket", path, headers, extensions=self._extensions)
        handshake = Request(self._app, scope, WEBSOCKET)
        handshake.feed({"type": "websocket.connect"})
        return handshake

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self, None]:
        async with transparent_task_group() as group:
            group.start_soon(self._run_lifespan)
            await self._say("startup", "starting")
            try:
                yield self
            finally:
                if self._forgets_state:
                    self.lifespan.scope["state"].clear()
                self.lifespan.phase = "stopping"
                await self._say("shutdown", "stopping")
                group.cancel_scope.cancel()

    async def _run_lifespan(self) -> None:
        try:
            await self.lifespan.run()
        except Exception as error:
            self._error = error
        finally:
            self._ended = True
            self.lifespan.feed()

    async def _say(self, what: str, phase: str) -> None:
        lifespan = self.lifespan
        lifespan.feed({"type": f"lifespan.{what}"})
        await lifespan.wait_until(lambda: lifespan.phase != phase or self._ended)
        if lifespan.phase == "serving":
            return
        await lifespan.wait_until(lambda: lifespan.receiving or self._ended)
        if lifespan.phase != "stopped" or self._error is not None:
            answer = lifespan.sent[-1] if lifespan.phase == "failed" else {}
            raise LifespanError(answer.get("message")) from self._error

    def _scope(
        self, kind: str, path: str, headers: Headers, **more: Any
    ) -> dict[str, Any]:
        path, _, query = path.partition("?")
        scope = {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "http" if kind == "http" else "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": self._root_path,
            "headers": list(headers),
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 80),
            **more,
        }
        state = self.lifespan.scope.get("state")
        if state is not None and (own := self._state_for_request(state)) is not None:
            scope["state"] = own
        return scope
