"""Clients of a real server, all in one event loop: HTTP by httpx, and WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Self, TypeVar

import httpx
from anyio import AsyncContextManagerMixin
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from examples.demo import wait_until
from examples.demo.servers import ServerProcess


EVENTS = {"accept": "text/event-stream"}
PATIENCE = 30.0
"""Seconds after which a test is told that what it waits for does not come."""

T = TypeVar("T")


class Download(NamedTuple):
    """What a client got: `complete` is whether the body came to a proper end."""

    status: int | None
    complete: bool
    body: bytes


class Address(NamedTuple):
    """A server that is no process of ours to look at."""

    port: int

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"


class Visitors(AsyncContextManagerMixin):
    """Visits one server from many clients; who visits is a task.

    Attributes:
        arrived: How many have got the first piece of what has no end.
    """

    def __init__(self, server: ServerProcess | Address) -> None:
        self.arrived = 0
        self._url = server.url
        self._came = asyncio.Event()

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self, None]:
        limits = httpx.Limits(max_connections=None)
        async with (
            httpx.AsyncClient(limits=limits, timeout=PATIENCE, trust_env=False) as http,
            asyncio.TaskGroup() as self._tasks,
        ):
            self._http = http
            yield self

    def send(self, visit: Coroutine[Any, Any, T], count: int = 1) -> asyncio.Task[T]:
        """Begin one visit."""
        return self._tasks.create_task(visit)

    async def download(
        self, path: str, method: str = "GET", **headers: str
    ) -> Download:
        """Read an answer to its end, proper or not."""
        status, body = None, b""
        url = self._url(path)
        try:
            async with self._http.stream(method, url, headers=headers) as response:
                status = response.status_code
                async for piece in response.aiter_raw():
                    if not body:
                        self._arrive()
                    body += piece
        except httpx.RemoteProtocolError:
            return Download(status, complete=False, body=body)
        return Download(status, complete=True, body=body)

    async def status(self, path: str) -> int:
        """Return the status of an answer, on a connection of its own."""
        url, headers = self._url(path), {"connection": "close"}
        return (await self._http.get(url, headers=headers)).status_code

    async def websocket(self, path: str) -> int | None:
        """Say one thing, listen to the end, and return the code of the close frame."""
        url = self._url(path).replace("http", "ws", 1)
        async with connect(url, proxy=None, ping_interval=None) as peer:
            await peer.send("hello")
            await peer.recv()
            self._arrive()
            try:
                while True:
                    await peer.recv()
            except ConnectionClosed as closed:
                return None if closed.rcvd is None else closed.rcvd.code

    async def wait_arrived(self, count: int) -> None:
        """Wait until *count* have got their first piece."""
        async with asyncio.timeout(PATIENCE):
            while self.arrived < count:
                self._came.clear()
                await self._came.wait()

    def _arrive(self) -> None:
        self.arrived += 1
        self._came.set()


async def wait_begun(server: ServerProcess, count: int) -> None:
    """Wait until *count* handlers have begun."""

    def begun() -> bool:
        return server.output.count("MARK begin") >= count

    assert await asyncio.to_thread(wait_until, begun, PATIENCE), server.output


async def wait_answered(server: ServerProcess) -> None:
    """Wait until a probe has had its answer: the server listens before it serves."""

    def answered() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(server.url("/livez"), trust_env=False).is_success
        return False

    assert await asyncio.to_thread(wait_until, answered, PATIENCE), server.output


async def wait_mark(server: ServerProcess, text: str) -> None:
    """Wait until the app has marked *text*."""
    await asyncio.to_thread(server.wait_output, f"^MARK {text}", PATIENCE)


async def wait_end(server: ServerProcess) -> int:
    """Wait until the server is gone, and return its exit status."""
    return await asyncio.to_thread(server.wait, PATIENCE)


async def in_time(awaitable: Awaitable[T]) -> T:
    """Return what is awaited, if it comes in time."""
    async with asyncio.timeout(PATIENCE):
        return await awaitable
