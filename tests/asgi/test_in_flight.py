"""Requests in flight: ended properly, or cut so that the client can tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard._asgi import in_flight
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

Handler = Callable[["Site", Any, Any, Any], Awaitable[None]]


class Site:
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


async def stream(site: Site, scope: Any, receive: Any, send: Any) -> None:
    """Begin an answer, and never end it."""
    await send(started())
    await send(PIECE)
    await silence(site, scope, receive, send)


async def silence(site: Site, scope: Any, receive: Any, send: Any) -> None:
    """Say nothing at all."""
    site.recorder.mark(f"in {scope['path']}")
    await anyio.sleep_forever()


# What has no end.


@pytest.mark.parametrize(
    ("path", "headers"), [("/events", [EVENTS]), ("/endless/a", [])]
)
async def test_a_stream_is_ended_properly(
    recorder: Recorder, path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    """Its handler cleans up, and then the client gets a last chunk."""
    site = Site(recorder, stream)
    request = site.server.http(path, headers=headers)
    async with site.visited(request):
        assert site.exchanges.watch() == 1
        await site.exchanges.end_endless()
    assert request.phase == "answered"
    assert recorder.marks == [f"in {path}", f"clean {path}", f"out of {path}"]
    assert recorder.events == [StreamEnded(path)]


async def test_a_stream_that_has_not_begun_is_refused(recorder: Recorder) -> None:
    """There is still time for a whole answer."""
    site = Site(recorder, silence)
    request = site.server.http("/endless")
    async with site.visited(request):
        await site.exchanges.end_endless()
    assert (request.status, request.phase) == (503, "answered")
    assert request.headers["connection"] == "close"


async def test_a_client_that_reads_slowly_holds_nobody_up(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last chunk is tried for a second."""
    monkeypatch.setattr("asgi_lifespan_guard._asgi.responses.FAREWELL", 0.05)
    site = Site(recorder, silence)

    async def send(message: Any) -> None:
        await anyio.sleep_forever()

    scope = {"type": "http", "method": "GET", "path": "/endless", "http_version": "2"}
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(site, scope, None, send)
            await recorder.wait_for_mark("in /endless")
            await site.exchanges.end_endless()
    assert site.exchanges.left() == {}


async def test_a_promised_length_is_not_belied(recorder: Recorder) -> None:
    """The server refuses the last chunk, and the client sees what is missing."""

    async def promise(site: Site, scope: Any, receive: Any, send: Any) -> None:
        await send(started((b"content-length", b"1000")))
        await silence(site, scope, receive, send)

    site = Site(recorder, promise)
    request = site.server.http("/endless")
    with pytest.RaisesGroup(pytest.RaisesExc(ProtocolError, match="client is started")):
        async with site.visited(request):
            await site.exchanges.end_endless()


async def test_who_takes_a_cancellation_for_a_wish_is_helped(
    recorder: Recorder,
) -> None:
    """A handler may catch it and return; its answer gets its end all the same."""

    async def obey(site: Site, scope: Any, receive: Any, send: Any) -> None:
        try:
            await stream(site, scope, receive, send)
        except anyio.get_cancelled_exc_class():
            return

    site = Site(recorder, obey)
    request = site.server.http("/endless")
    async with site.visited(request):
        await site.exchanges.end_endless()
    assert request.phase == "answered"


async def test_the_finite_is_not_ended(recorder: Recorder) -> None:
    """A POST may finish, whatever it accepts, and so may any other download."""

    async def wait(site: Site, scope: Any, receive: Any, send: Any) -> None:
        await send(started())
        site.recorder.mark(f"in {scope['path']}")
        await go.wait()
        await send(LAST)

    go = anyio.Event()
    site = Site(recorder, wait)
    post = site.server.http("/post", method="POST", headers=[EVENTS])
    download = site.server.http("/get", headers=[(b"accept", b"*/*")])
    async with site.visited(post, download):
        await site.exchanges.end_endless()
        go.set()
    assert post.body == download.body == b"end"
    assert recorder.events == []


class State(Enum):
    """How far a response is, as hypercorn says it."""

    RESPONSE = 1
    CLOSED = 2


class Cycle:
    """Has *send*, and knows whether the response is complete, as uvicorn's does."""

    def __init__(self, scope: Any, state: State | None) -> None:
        self.scope = scope
        self.response_complete = False
        self.state = state
        self.sent: list[Any] = []

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if self.state is None:
            self.response_complete = not message.get("more_body", True)


@pytest.mark.parametrize("state", [None, State.CLOSED, State.RESPONSE])
async def test_an_answer_that_is_complete_needs_no_end(
    recorder: Recorder, state: State | None
) -> None:
    """What its handler does in the background then goes on, where servers tell."""
    go = anyio.Event()

    async def work(site: Site, scope: Any, receive: Any, send: Any) -> None:
        await send(started())
        await send({**LAST, "more_body": False})
        site.recorder.mark(f"in {scope['path']}")
        await go.wait()
        site.recorder.mark("done")

    site = Site(recorder, work)
    cycle = Cycle(site.server.http("/endless").scope, state)
    async with anyio.create_task_group() as group:
        group.start_soon(site, cycle.scope, None, cycle.send)
        await recorder.wait_for_mark("in /endless")
        await site.exchanges.end_endless()
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert ("done" in recorder.marks) is (state is not State.RESPONSE)


async def test_many_streams_are_told_a_few_at_a_time(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first have their end before the last are told; nobody is told twice."""
    monkeypatch.setattr(in_flight, "BATCH", 1)
    site = Site(recorder, stream)
    requests = [site.server.http(f"/endless/{number}") for number in range(20)]
    async with site.visited(*requests), anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(site.exchanges.end_endless)
    assert all(request.phase == "answered" for request in requests)
    assert len(recorder.of(StreamEnded)) == 20


# What is over time.


async def test_a_cut_download_gets_no_last_chunk(recorder: Recorder) -> None:
    """Its handler cleans up, and the client sees that something is missing."""
    site = Site(recorder, stream)
    with pytest.RaisesGroup(pytest.RaisesExc(ProtocolError, match="client is started")):
        async with site.visited(site.server.http("/a")):
            site.exchanges.cut(1.5)
    assert recorder.marks == ["in /a", "clean /a", "out of /a"]
    assert recorder.events == [RequestCut("/a", 1.5)]


async def test_who_ignores_the_first_cancellation_gets_a_second(
    recorder: Recorder,
) -> None:
    """It is told once; an answer that has not begun is a 503."""

    async def ignore(site: Site, scope: Any, receive: Any, send: Any) -> None:
        try:
            await silence(site, scope, receive, send)
        except anyio.get_cancelled_exc_class():
            recorder.mark("ignored")
        await anyio.sleep_forever()

    site = Site(recorder, ignore)
    request = site.server.http("/a")
    async with site.visited(request):
        site.exchanges.cut(1.0)
        await recorder.wait_for_mark("ignored")
        site.exchanges.cut(2.0, again=True)
    assert request.status == 503
    assert recorder.events == [RequestCut("/a", 1.0)]


async def test_a_cancellation_that_comes_too_late_is_taken_back(
    recorder: Recorder,
) -> None:
    """The handler returns in that very moment, and nobody behind it is cancelled."""

    async def last_moment(site: Site, scope: Any, receive: Any, send: Any) -> None:
        await send(started())
        await send(LAST)
        site.exchanges.cut(0.0)
        site.exchanges.cut(0.0, again=True)

    exchanges = InFlight([], recorder)
    site = Site(recorder, last_moment)
    site.exchanges = exchanges
    site._app = lambda *args: last_moment(site, *args)  # type: ignore[method-assign]
    request = await site.server.get("/a")
    assert request.body == b"end"
    assert recorder.marks == ["out of /a"]


# What is not our doing.


async def test_an_error_comes_through(recorder: Recorder) -> None:
    """Also that of a handler whose clean-up fails."""

    async def fail(site: Site, scope: Any, receive: Any, send: Any) -> None:
        try:
            await stream(site, scope, receive, send)
        finally:
            raise ValueError("clean-up")

    site = Site(recorder, fail)
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="clean-up")):
        async with site.visited(site.server.http("/endless")):
            await site.exchanges.end_endless()
    assert site.exchanges.left() == {}


async def test_a_foreign_cancellation_comes_through(recorder: Recorder) -> None:
    """A server that cancels its tasks is not answered for."""
    site = Site(recorder, stream)
    request = site.server.http("/a")
    async with anyio.create_task_group() as group:
        group.start_soon(request.run)
        await recorder.wait_for_mark("in /a")
        group.cancel_scope.cancel()
    assert site.exchanges.left() == {}
    assert "out of /a" not in recorder.marks


# WebSockets.


async def listen(site: Site, scope: Any, receive: Any, send: Any) -> None:
    """Accept, and listen until the peer is gone."""
    await receive()
    await send(ACCEPT)
    site.recorder.mark(f"in {scope['path']}")
    while (message := await receive())["type"] != "websocket.disconnect":
        pass
    site.recorder.mark(f"gone {message['code']}")


async def talk(site: Site, scope: Any, receive: Any, send: Any) -> None:
    """Accept, and never listen."""
    await receive()
    await send(ACCEPT)
    site.recorder.mark(f"in {scope['path']}")
    while True:
        await send(TEXT)
        await checkpoint()


@pytest.mark.parametrize("handler", [listen, talk])
async def test_a_socket_is_ended_by_a_close_frame(
    recorder: Recorder, handler: Handler
) -> None:
    """Whether its handler listens or not, and the error of its send goes no further."""
    site = Site(recorder, handler)
    socket = site.server.websocket("/ws")
    async with site.visited(socket):
        await site.exchanges.end_endless()
    assert socket.sent[-1]["code"] == 1012
    assert socket.phase == "closed"
    assert "out of /ws" in recorder.marks
    assert ("gone 1012" in recorder.marks) is (handler is listen)


async def test_a_socket_that_nobody_looks_at_is_cut(recorder: Recorder) -> None:
    """Its peer has had the close frame; its handler is cancelled when time is up."""
    site = Site(recorder, accept_and_sleep)
    socket = site.server.websocket("/ws")
    async with site.visited(socket):
        await site.exchanges.end_endless()
        assert socket.phase == "closed"
        site.exchanges.cut(1.0)
        site.exchanges.cut(2.0, again=True)
    assert recorder.events[0] == StreamEnded("/ws")
    assert RequestCut("/ws", 1.0) in recorder.events


async def accept_and_sleep(site: Site, scope: Any, receive: Any, send: Any) -> None:
    """Accept, and neither listen nor talk."""
    await receive()
    await send(ACCEPT)
    await silence(site, scope, receive, send)


async def test_a_handler_that_leaves_without_a_word(recorder: Recorder) -> None:
    """If it cancels its own wait for the disconnect, the goodbye is said after it."""

    async def leave(site: Site, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            site.recorder.mark(f"in {scope['path']}")
            await recorder.wait_for(StreamEnded)
            group.cancel_scope.cancel()

    site = Site(recorder, leave)
    socket = site.server.websocket("/ws")
    async with site.visited(socket):
        await site.exchanges.end_endless()
    assert socket.sent[-1]["code"] == 1012


# Requests inside requests.


async def test_a_request_inside_another_ends_with_it(recorder: Recorder) -> None:
    """Both are cancelled in one task, and both are answered."""
    inner: list[Request] = []

    async def call(site: Site, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/inner":
            await silence(site, scope, receive, send)
        inner.append(site.server.http("/inner"))
        site.recorder.mark("in /outer")
        await inner[0].run()
        await anyio.sleep_forever()

    site = Site(recorder, call)
    request = site.server.http("/outer")
    async with site.visited(request):
        await recorder.wait_for_mark("in /inner")
        assert site.exchanges.watch() == 2
        site.exchanges.cut(1.0)
    cleaned = [mark for mark in recorder.marks if mark.startswith("clean")]
    assert cleaned == ["clean /inner", "clean /outer"]
    assert request.status == inner[0].status == 503


# Who waits for whom.


async def test_one_who_waits_is_spared(recorder: Recorder) -> None:
    """An exchange is known by its scope, by a copy of it, or by its task."""
    site = Site(recorder, stream)
    one, other = site.server.http("/endless"), site.server.http("/b")
    async with site.visited(one, other):
        key = site.exchanges.key_of(dict(other.scope))
        assert key is not None
        assert key == site.exchanges.key_of(other.scope)
        assert site.exchanges.key_of({"type": "http"}) is None
        assert site.exchanges.key_of(None) is None
        await site.exchanges.end_endless()
        await site.exchanges.wait_until(lambda: site.exchanges.is_over({key}))
        assert list(site.exchanges.left()) == [key]
        assert not site.exchanges.is_over()
        async with anyio.create_task_group() as group:
            group.start_soon(site.exchanges.wait_until, site.exchanges.is_over)
            await anyio.wait_all_tasks_blocked()
            site.exchanges.look_again()
            await anyio.wait_all_tasks_blocked()
            other.left = True
            site.exchanges.cut(0.0)


async def test_what_cannot_be_cancelled_is_waited_for(recorder: Recorder) -> None:
    """As in a server whose tasks the event loop does not know."""
    if on_trio():
        pytest.skip("on trio every request runs in a scope of ours")
    let = asyncio.Event()

    async def wait(site: Site, scope: Any, receive: Any, send: Any) -> None:
        await send(started())
        await let.wait()
        await send(LAST)

    site = Site(recorder, wait)
    site._app = lambda *args: wait(site, *args)  # type: ignore[method-assign]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    run = site({"type": "http", "method": "GET", "path": "/a"}, None, send)
    steps = StepByStep(run)
    steps.step()
    await asyncio.sleep(0)
    site.exchanges.live[None] = {"type": "http", "method": "GET"}, send, "/b"
    assert site.exchanges.watch() == 2
    site.exchanges.cut(0.0)
    assert await site.exchanges.conclude(None, ValueError()) is False
    let.set()
    await steps.done.wait()
    assert [message["type"] for message in sent][:2] == [
        "http.response.start",
        "http.response.body",
    ]
    assert site.exchanges.left() == {}


async def test_what_a_server_of_its_own_cancels_is_answered(
    recorder: Recorder,
) -> None:
    """It ends as cancelled, though we could not do it, and its client is told."""
    if on_trio():
        pytest.skip("on trio every request runs in a scope of ours")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    exchanges, key = InFlight([], recorder), object()
    exchanges.live[key] = {"type": "http", "method": "GET"}, send, "/a"
    exchanges.watch()
    exchanges.cut(0.0)
    assert await exchanges.conclude(key, asyncio.CancelledError())
    assert sent[0]["status"] == 503


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
