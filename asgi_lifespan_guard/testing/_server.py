"""An ASGI server without sockets.

It plays the server's part through plain ``receive`` and ``send``, on asyncio and on
trio, and is strict about the protocol. It does not know what it serves, so an app's
own errors come through as they are. What servers differ in is an argument.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal, Self, TypeAlias

import anyio
from anyio import AsyncContextManagerMixin

from .._tasks.backend import on_trio
from .._tasks.groups import transparent_task_group
from ._exchange import LIFESPAN, WEBSOCKET, Exchange, Request


Headers: TypeAlias = Iterable[tuple[bytes, bytes]]


class LifespanError(Exception):
    """Raised when an app did not start or did not shut down, from what it raised."""


class MemoryServer(AsyncContextManagerMixin):
    """Runs an app's lifespan inside its block, and puts requests to it.

    Requests can be put to it without a block, too: then nothing was started, as with
    ``httpx.ASGITransport``. Nothing here takes time, so nothing has a timeout.

    Args:
        app: Any ASGI app.
        lifespan: ``"on"``: an app without a lifespan is an error; ``"auto"``: one
            that ends or raises before it first receives has none.
        lifespan_scope: Instead of the usual one.
        state_for_request: Makes a request's state of the lifespan's. Default: a copy,
            as uvicorn, hypercorn and granian do.
        forgets_state: Empties the lifespan's state before the shutdown, as granian.
        denies_websockets: Advertises ``websocket.http.response``; daphne does not.
        root_path: Put into every scope, but not in front of the path.

    Attributes:
        lifespan: The conversation about the lifespan.

    Raises:
        LifespanError: On entering, when the app did not start; on leaving, when it did
            not shut down. From what it raised (a `ProtocolError`, perhaps), if it did.
    """

    def __init__(
        self,
        app: Any,
        *,
        lifespan: Literal["on", "auto"] = "on",
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
        self._may_do_without = lifespan == "auto"
        self._state_for_request = state_for_request
        self._forgets_state = forgets_state
        denial: dict[str, Any] = {"websocket.http.response": {}}
        self._extensions = denial if denies_websockets else {}
        self._root_path = root_path
        self._error: BaseException | None = None
        self._ended = False

    @property
    def said(self) -> list[str]:
        """The types of the messages that the app sent to its lifespan."""
        return [message["type"] for message in self.lifespan.sent]

    async def get(self, path: str, *headers: tuple[bytes, bytes]) -> Request:
        """Make a GET request, and return it when it is answered.

        Raises:
            ProtocolError: When the app left the client without an answer.
            Exception: Whatever the app raises, as it is.
        """
        return await self.http(path, headers=headers).run()

    def http(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Headers = (),
        body: Iterable[bytes] | None = (b"",),
    ) -> Request:
        """Prepare a request, to be made with ``await request.run()``.

        Args:
            path: May have a query.
            method: In capitals.
            headers: Pairs of bytes, the names in lower case.
            body: Comes in pieces; ``None``: the test feeds it.
        """
        request = Request(self._app, self._scope("http", path, headers, method=method))
        pieces = list(body or ())
        for number, piece in enumerate(pieces, 1):
            more = number < len(pieces)
            request.feed({"type": "http.request", "body": piece, "more_body": more})
        return request

    def websocket(self, path: str, *, headers: Headers = ()) -> Request:
        """Prepare a WebSocket's handshake, to be made with ``await request.run()``.

        What the client says afterwards is fed; what the app says is in ``sent``.
        """
        scope = self._scope("websocket", path, headers, extensions=self._extensions)
        handshake = Request(self._app, scope, WEBSOCKET)
        handshake.feed({"type": "websocket.connect"})
        return handshake

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self, None]:
        async with _beside(self._run_lifespan):
            has_lifespan = await self._start()
            try:
                yield self
            finally:
                if has_lifespan:
                    await self._shut_down()

    async def _run_lifespan(self) -> None:
        try:
            await self.lifespan.run()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            self._error = error
        finally:
            self._ended = True
            self.lifespan.feed()

    async def _start(self) -> bool:
        await self._say("startup")
        if self.lifespan.phase == "serving":
            return True
        if self._may_do_without and self._ended and not self.lifespan.reads:
            return False
        raise await self._failure("startup")

    async def _shut_down(self) -> None:
        if self._forgets_state:
            self.lifespan.scope["state"].clear()
        self.lifespan.phase = "stopping"
        await self._say("shutdown")
        failure = await self._failure("shutdown")
        if self.lifespan.phase != "stopped" or self._error is not None:
            raise failure

    async def _say(self, what: str) -> None:
        before = self.lifespan.phase
        self.lifespan.feed({"type": f"lifespan.{what}"})
        await self.lifespan.wait_until(
            lambda: self.lifespan.phase != before or self._ended
        )

    async def _failure(self, during: str) -> LifespanError:
        """Return what went wrong, once the app is done with it."""
        await self.lifespan.wait_until(lambda: self.lifespan.receiving or self._ended)
        if self._error is not None and not isinstance(self._error, Exception):
            raise self._error  # pytest.fail(), Ctrl-C
        answer = self.lifespan.sent[-1] if self.lifespan.phase == "failed" else {}
        text = f"the app returned without an answer to lifespan.{during}"
        failure = LifespanError(answer.get("message", text))
        failure.__cause__ = self._error
        return failure

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


@asynccontextmanager
async def _beside(
    call: Callable[[], Coroutine[Any, Any, None]],
) -> AsyncGenerator[None, None]:
    """Run *call* beside the body, and cancel it when that is left.

    On asyncio no scope is held over the ``yield``: pytest-asyncio leaves a fixture in
    another task than the one that has entered it.
    """
    if on_trio():
        async with transparent_task_group() as group:
            group.start_soon(call)
            yield
            group.cancel_scope.cancel()
        return
    task = asyncio.ensure_future(call())
    try:
        yield
    finally:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
