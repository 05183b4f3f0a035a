"""Requests in flight: ended properly, or cut so that the client can tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard._asgi.in_flight import InFlight
from asgi_lifespan_guard._tasks.backend import on_trio
from asgi_lifespan_guard.events import RequestCut, StreamEnded
from tests.recorder import Recorder
from tests.support.memory_server import MemoryServer, ProtocolError, Request


pytestmark = pytest.mark.anyio

EVENTS = (b"accept", b"text/html, Text/Event-Stream")
PIECE = {"type": "http.response.body", "body": b"piece ", "more_body": True}
LAST = {"type": "http.response.body", "body": b"end"}
ACCEPT = {"type": "websocket.accept"}
TEXT = {"type": "websocket.send", "text": "hello"}

Handler = Callable[["House", Any, Any, Any], Awaitable[None]]


class House:
    """Puts every request to one handler as an exchange."""

    def __init__(self, recorder: Recorder, handler: Handler) -> None:
        self.recorder = recorder
        self.exchanges = InFlight(["/endless"], recorder)
        self.server = MemoryServer(self)
        self._handler = handler

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.exchanges.run(self._app, scope, receive, send)
        await checkpoint()  # A cancellation left over would show.
        self.recorder.mark(f"out of {scope['path']}")

    @asynccontextmanager
    async def visited(self, *requests: Request) -> AsyncIterator[Recorder]:
        """Have requests in flight, and nothing at the end."""
        async with anyio.create_task_group() as group:
            for request in requests:
                group.start_soon(request.run)
                await self.recorder.wait_for_mark(f"in {request.scope['path']}")
            yield self.recorder
        assert self.exchanges.left() == {}

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._handler(self, scope, receive, send)
        finally:
            await checkpoint()
            self.recorder.mark(f"clean {scope['path']}")


def started(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """Begin an answer."""
    return {"type": "http.response.start", "status": 200, "headers": headers}


async def stream(house: House, scope: Any, receive: Any, send: Any) -> None:
    """Begin an answer, and never end it."""
    await send(started())
    await send(PIECE)
    await silence(house, scope, receive, send)


async def silence(house: House, scope: Any, receive: Any, send: Any) -> None:
    """Say nothing at all."""
    house.recorder.mark(f"in {scope['path']}")
    await anyio.sleep_forever()


# What has no end.


@pytest.mark.parametrize(
    ("path", "headers"), [("/events", [EVENTS]), ("/endless/a", [])]
)
async def test_a_stream_is_ended_properly(
    recorder: Recorder, path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    """Its handler cleans up, and then the client gets a last chunk."""
    house = House(recorder, stream)
    request = house.server.http(path, headers=headers)
    async with house.visited(request):
        assert house.exchanges.watch() == 1
        await house.exchanges.end_endless()
    assert request.phase == "answered"
    assert recorder.marks == [f"in {path}", f"clean {path}", f"out of {path}"]
    assert recorder.events == [StreamEnded(path)]


async def test_a_stream_that_has_not_begun_is_refused(recorder: Recorder) -> None:
    """There is still time for a whole answer."""
    house = House(recorder, silence)
    request = house.server.http("/endless")
    async with house.visited(request):
        await house.exchanges.end_endless()
    assert (request.status, request.phase) == (503, "answered")
    assert request.headers["connection"] == "close"


async def test_a_client_that_reads_slowly_holds_nobody_up(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last chunk is tried for a second."""
    monkeypatch.setattr("asgi_lifespan_guard._asgi.responses.FAREWELL", 0.05)
    house = House(recorder, silence)

    async def send(message: Any) -> None:
        await anyio.sleep_forever()

    scope = {"type": "http", "method": "GET", "path": "/endless", "http_version": "2"}
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(house, scope, None, send)
            await recorder.wait_for_mark("in /endless")
            await house.exchanges.end_endless()
    assert house.exchanges.left() == {}


async def test_a_promised_length_is_not_belied(recorder: Recorder) -> None:
    """The server refuses the last chunk, and the client sees what is missing."""

    async def promise(house: House, scope: Any, receive: Any, send: Any) -> None:
        await send(started((b"content-length", b"1000")))
        await silence(house, scope, receive, send)

    house = House(recorder, promise)
    request = house.server.http("/endless")
    with pytest.RaisesGroup(pytest.RaisesExc(ProtocolError, match="client is started")):
        async with house.visited(request):
            await house.exchanges.end_endless()


async def test_who_takes_a_cancellation_for_a_wish_is_helped(
    recorder: Recorder,
) -> None:
    """A handler may catch it and return; its answer gets its end all the same."""

    async def obey(house: House, scope: Any, receive: Any, send: Any) -> None:
        try:
            await stream(house, scope, receive, send)
        except anyio.get_cancelled_exc_class():
            return

    house = House(recorder, obey)
    request = house.server.http("/endless")
    async with house.visited(request):
        await house.exchanges.end_endless()
    assert request.phase == "answered"


async def test_the_finite_is_not_ended(recorder: Recorder) -> None:
    """A POST may finish, whatever it accepts, and so may any other download."""

    async def wait(house: House, scope: Any, receive: Any, send: Any) -> None:
        await send(started())
        house.recorder.mark(f"in {scope['path']}")
        await go.wait()
        await send(LAST)

    go = anyio.Event()
    house = House(recorder, wait)
    post = house.server.http("/post", method="POST", headers=[EVENTS])
    download = house.server.http("/get", headers=[(b"accept", b"*/*")])
    async with house.visited(post, download):
        await house.exchanges.end_endless()
        go.set()
    assert post.body == download.body == b"end"
    assert recorder.events == []


# What is over time.


async def test_a_cut_download_gets_no_last_chunk(recorder: Recorder) -> None:
    """Its handler cleans up, and the client sees that something is missing."""
    house = House(recorder, stream)
    with pytest.RaisesGroup(pytest.RaisesExc(ProtocolError, match="client is started")):
        async with house.visited(house.server.http("/a")):
            house.exchanges.cut(1.5)
    assert recorder.marks == ["in /a", "clean /a", "out of /a"]
    assert recorder.events == [RequestCut("/a", 1.5)]


async def test_who_ignores_the_first_cancellation_gets_a_second(
    recorder: Recorder,
) -> None:
    """It is told once; an answer that has not begun is a 503."""

    async def ignore(house: House, scope: Any, receive: Any, send: Any) -> None:
        try:
            await silence(house, scope, receive, send)
        except anyio.get_cancelled_exc_class():
            recorder.mark("ignored")
        await anyio.sleep_forever()

    house = House(recorder, ignore)
    request = house.server.http("/a")
    async with house.visited(request):
        house.exchanges.cut(1.0)
        await recorder.wait_for_mark("ignored")
        house.exchanges.cut(2.0)
    assert request.status == 503
    assert recorder.events == [RequestCut("/a", 1.0)]


async def test_a_cancellation_that_comes_too_late_is_taken_back(
    recorder: Recorder,
) -> None:
    """The handler returns in that very moment, and nobody behind it is cancelled."""

    async def last_moment(house: House, scope: Any, receive: Any, send: Any) -> None:
        await send(started())
        await send(LAST)
        house.exchanges.cut(0.0)
        house.exchanges.cut(0.0)

    exchanges = InFlight([], recorder)
    house = House(recorder, last_moment)
    house.exchanges = exchanges
    house._app = lambda *args: last_moment(house, *args)  # type: ignore[method-assign]
    request = await house.server.get("/a")
    assert request.body == b"end"
    assert recorder.marks == ["out of /a"]


# What is not our doing.


async def test_an_error_comes_through(recorder: Recorder) -> None:
    """Also that of a handler whose clean-up fails."""

    async def fail(house: House, scope: Any, receive: Any, send: Any) -> None:
        try:
            await stream(house, scope, receive, send)
        finally:
            raise ValueError("clean-up")

    house = House(recorder, fail)
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="clean-up")):
        async with house.visited(house.server.http("/endless")):
            await house.exchanges.end_endless()
    assert house.exchanges.left() == {}


async def test_a_foreign_cancellation_comes_through(recorder: Recorder) -> None:
    """A server that cancels its tasks is not answered for."""
    house = House(recorder, stream)
    request = house.server.http("/a")
    async with anyio.create_task_group() as group:
        group.start_soon(request.run)
        await recorder.wait_for_mark("in /a")
        group.cancel_scope.cancel()
    assert house.exchanges.left() == {}
    assert "out of /a" not in recorder.marks


# WebSockets.


async def listen(house: House, scope: Any, receive: Any, send: Any) -> None:
    """Accept, and listen until the peer is gone."""
    await receive()
    await send(ACCEPT)
    house.recorder.mark(f"in {scope['path']}")
    while (message := await receive())["type"] != "websocket.disconnect":
        pass
    house.recorder.mark(f"gone {message['code']}")


async def talk(house: House, scope: Any, receive: Any, send: Any) -> None:
    """Accept, and never listen."""
    await receive()
    await send(ACCEPT)
    house.recorder.mark(f"in {scope['path']}")
    while True:
        await send(TEXT)
        await checkpoint()


@pytest.mark.parametrize("handler", [listen, talk])
async def test_a_socket_is_ended_by_a_close_frame(
    recorder: Recorder, handler: Handler
) -> None:
    """Whether its handler listens or not, and the error of its send goes no further."""
    house = House(recorder, handler)
    socket = house.server.websocket("/ws")
    async with house.visited(socket):
        await house.exchanges.end_endless()
    assert socket.sent[-1]["code"] == 1012
    assert socket.phase == "closed"
    assert "out of /ws" in recorder.marks
    assert ("gone 1012" in recorder.marks) is (handler is listen)


async def test_a_socket_that_nobody_looks_at_is_cut(recorder: Recorder) -> None:
    """Its peer has had the close frame; its handler is cancelled when time is up."""
    house = House(recorder, accept_and_sleep)
    socket = house.server.websocket("/ws")
    async with house.visited(socket):
        await house.exchanges.end_endless()
        assert socket.phase == "closed"
        house.exchanges.cut(1.0)
        house.exchanges.cut(2.0)
    assert recorder.events[0] == StreamEnded("/ws")
    assert RequestCut("/ws", 1.0) in recorder.events


async def accept_and_sleep(house: House, scope: Any, receive: Any, send: Any) -> None:
    """Accept, and neither listen nor talk."""
    await receive()
    await send(ACCEPT)
    await silence(house, scope, receive, send)


async def test_a_handler_that_leaves_without_a_word(recorder: Recorder) -> None:
    """If it cancels its own wait for the disconnect, the goodbye is said after it."""

    async def leave(house: House, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            house.recorder.mark(f"in {scope['path']}")
            await recorder.wait_for(StreamEnded)
            group.cancel_scope.cancel()

    house = House(recorder, leave)
    socket = house.server.websocket("/ws")
    async with house.visited(socket):
        await house.exchanges.end_endless()
    assert socket.sent[-1]["code"] == 1012


# Requests inside requests.


async def test_a_request_inside_another_ends_with_it(recorder: Recorder) -> None:
    """Both are cancelled in one task, and both are answered."""
    inner: list[Request] = []

    async def call(house: House, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/inner":
            await silence(house, scope, receive, send)
        inner.append(house.server.http("/inner"))
        house.recorder.mark("in /outer")
        await inner[0].run()
        await anyio.sleep_forever()

    house = House(recorder, call)
    request = house.server.http("/outer")
    async with house.visited(request):
        await recorder.wait_for_mark("in /inner")
        assert house.exchanges.watch() == 2
        house.exchanges.cut(1.0)
    cleaned = [mark for mark in recorder.marks if mark.startswith("clean")]
    assert cleaned == ["clean /inner", "clean /outer"]
    assert request.status == inner[0].status == 503


# Who waits for whom.


async def test_one_who_waits_is_spared(recorder: Recorder) -> None:
    """An exchange is known by its scope, by a copy of it, or by its task."""
    house = House(recorder, stream)
    one, other = house.server.http("/endless"), house.server.http("/b")
    async with house.visited(one, other):
        key = house.exchanges.key_of(dict(other.scope))
        assert key is not None
        assert key == house.exchanges.key_of(other.scope)
        assert house.exchanges.key_of({"type": "http"}) is None
        assert house.exchanges.key_of(None) is None
        await house.exchanges.end_endless()
        await house.exchanges.wait_over({key})
        assert list(house.exchanges.left()) == [key]
        async with anyio.create_task_group() as group:
            group.start_soon(house.exchanges.wait_over, set())
            await anyio.wait_all_tasks_blocked()
            house.exchanges.look_again()
            await anyio.wait_all_tasks_blocked()
            other.left = True
            house.exchanges.cut(0.0)


async def test_what_cannot_be_cancelled_is_waited_for(recorder: Recorder) -> None:
    """As in a server whose tasks the event loop does not know."""
    if on_trio():
        pytest.skip("on trio every request runs in a scope of ours")
    let = asyncio.Event()

    async def wait(house: House, scope: Any, receive: Any, send: Any) -> None:
        await send(started())
        await let.wait()
        await send(LAST)

    house = House(recorder, wait)
    house._app = lambda *args: wait(house, *args)  # type: ignore[method-assign]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    run = house({"type": "http", "method": "GET", "path": "/a"}, None, send)
    steps = StepByStep(run)
    steps.step()
    await asyncio.sleep(0)
    house.exchanges.live[None] = {"type": "http", "path": "/b", "method": "GET"}, send
    assert house.exchanges.watch() == 2
    house.exchanges.cut(0.0)
    assert await house.exchanges.conclude(None, ValueError()) is False
    let.set()
    await steps.done.wait()
    assert [message["type"] for message in sent][:2] == [
        "http.response.start",
        "http.response.body",
    ]
    assert house.exchanges.left() == {}


class StepByStep:
    """Runs a coroutine in the event loop's callbacks, in no task."""

    def __init__(self, coroutine: Any) -> None:
        self.done = asyncio.Event()
        self._coroutine = coroutine

    def step(self, future: Any = None) -> None:
        asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        try:
            waits_for = self._coroutine.send(None)
        except StopIteration:
            self.done.set()
            return
        if waits_for is None:
            self.step()
        else:
            waits_for._asyncio_future_blocking = False
            waits_for.add_done_callback(self.step)
