"""The way out: streams end, requests finish, and only then resources close."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
import uvloop
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard import (
    ConfigurationError,
    Drain,
    LifespanGuard,
    Phase,
    _drain,
)
from asgi_lifespan_guard._asgi.in_flight import InFlight
from asgi_lifespan_guard._drain import PATIENCE as BEFORE_GIVING_UP
from asgi_lifespan_guard._drain import Drainer
from asgi_lifespan_guard._tasks.backend import on_trio
from asgi_lifespan_guard.events import (
    DrainBegun,
    DrainEnded,
    Event,
    Paused,
    PhaseChanged,
    RequestCut,
    RequestStuck,
    Resumed,
    StreamEnded,
)
from tests.recorder import PATIENCE, Recorder
from tests.support.memory_server import LifespanError, MemoryServer, Request
from tests.support.resources import Tap, hello
from tests.support.virtual_time import on_virtual_time


EVENTS = (b"accept", b"text/event-stream")


class Site:
    """An app with one path for each way to be in flight."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.finish = anyio.Event()
        self.guard: LifespanGuard

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        path = scope["path"].removeprefix(scope["root_path"])
        if path == "/quick":
            await _answer(send)
            return
        self.recorder.mark(f"in {path}")
        try:
            await getattr(self, path.strip("/"))(scope, receive, send)
        finally:
            await checkpoint()
            self.recorder.mark(f"out {path}")

    async def stream(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await anyio.sleep_forever()

    async def slow(self, scope: Any, receive: Any, send: Any) -> None:
        await self.finish.wait()
        await _answer(send)

    async def cleaning(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            for _ in range(100):
                await asyncio.sleep(0)

    async def stubborn(self, scope: Any, receive: Any, send: Any) -> None:
        while not self.finish.is_set():
            with anyio.CancelScope(shield=True):
                try:
                    await self.finish.wait()
                except asyncio.CancelledError:
                    self.recorder.mark("ignored")
        await _answer(send)

    async def hook(self, scope: Any, receive: Any, send: Any) -> None:
        self.guard.begin_drain("preStop")
        await self.guard.wait_drain(scope)
        await _answer(send)

    async def declared(self, scope: Any, receive: Any, send: Any) -> None:
        LifespanGuard.endless(scope)
        await self.stream(scope, receive, send)

    async def threaded(self, scope: Any, receive: Any, send: Any) -> None:
        await anyio.to_thread.run_sync(LifespanGuard.endless, scope)
        await self.stream(scope, receive, send)

    async def late(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await self.finish.wait()
        LifespanGuard.endless(scope)
        await anyio.sleep_forever()

    async def mounted(self, scope: Any, receive: Any, send: Any) -> None:
        scope["root_path"], scope["path"] = "/mounted", "/slow"  # Starlette, Litestar
        await self.stream(scope, receive, send)

    async def queue(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await anyio.sleep_forever()

    async def spinning(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await receive()

    async def long_goodbye(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.stream(scope, receive, send)
        finally:
            await anyio.sleep(1.5)
            self.recorder.mark("said goodbye")

    async def socket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["code"] == 1012


async def _answer(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"whole"})


class Stage:
    """A guarded site that serves, with visitors."""

    def __init__(self, recorder: Recorder, **options: Any) -> None:
        self.recorder = recorder
        self.site = Site(recorder)
        options.setdefault("drain", Drain(grace=3600, endless=["/stream"]))
        self.tap = Tap(recorder, **options.pop("tap", {}))
        recipes = [self.tap.recipe] if options.pop("resources", True) else []
        self.guard = LifespanGuard(
            self.site, recipes, observers=[recorder, self._after], **options
        )
        self.site.guard = self.guard
        self.server = MemoryServer(self.guard)
        self.group: Any = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Stage]:
        async with anyio.create_task_group() as self.group, self.server:
            await self.guard.wait_ready(PATIENCE)
            yield self

    async def visit(self, path: str, *headers: tuple[bytes, bytes]) -> Request:
        """Have one more request in flight."""
        request = self.server.http(path, headers=headers)
        self.group.start_soon(request.run)
        await self.recorder.wait_for_mark(f"in {path}")
        return request

    def _after(self, event: Event) -> None:
        self.recorder.marks.append(type(event).__name__)


@pytest.mark.anyio
@pytest.mark.parametrize("resources", [True, False])
async def test_everybody_is_let_out_before_anything_is_closed(
    recorder: Recorder, resources: bool
) -> None:
    """A stop by the server's own message drains, too."""
    stage = Stage(recorder, resources=resources)
    async with stage.serving():
        stream = await stage.visit("/stream")
        slow = await stage.visit("/slow")
        socket = stage.server.websocket("/socket")
        stage.group.start_soon(socket.run)
        await recorder.wait_for_mark("in /socket")

        async def let_finish() -> None:
            await recorder.wait_until(lambda: "out /stream" in recorder.marks)
            assert "out /slow" not in recorder.marks
            stage.site.finish.set()

        stage.group.start_soon(let_finish)
    assert (stream.phase, slow.body, socket.phase) == ("answered", b"whole", "closed")
    assert recorder.of(DrainBegun) == [DrainBegun("shutdown", 3)]
    assert {event.path for event in recorder.of(StreamEnded)} == {"/stream", "/socket"}
    assert recorder.of(DrainEnded)[0].left == 0
    if resources:
        end = recorder.marks.index("close db")
        assert {"out /stream", "out /slow", "out /socket"} <= set(recorder.marks[:end])
    phases = [event.new for event in recorder.of(PhaseChanged)]
    assert phases[-3:] == [Phase.DRAINING, Phase.STOPPING, Phase.STOPPED]


@pytest.mark.anyio
@on_virtual_time
async def test_a_request_past_its_grace_is_cut(recorder: Recorder) -> None:
    """It is told apart from one that finished by what the client gets."""
    stage = Stage(recorder, drain=Drain(grace=5))
    stage.server.http("/slow")
    async with stage.serving():
        slow = await stage.visit("/slow")
        stage.guard.begin_drain("enough")
        await stage.guard.wait_drain()
        assert slow.status == 503
        assert slow.headers["connection"] == "close"
    cut = recorder.of(RequestCut)
    assert [event.path for event in cut] == ["/slow"]
    assert cut[0].after == pytest.approx(5)


@pytest.mark.anyio
@on_virtual_time
async def test_what_does_not_end_is_left_behind(recorder: Recorder) -> None:
    """It is reported by path and age; a last wait is not for it."""
    stage = Stage(recorder, drain=Drain(grace=0))
    async with stage.serving():
        await stage.visit("/stubborn")
        stage.guard.begin_drain()
        await stage.guard.wait_drain()
        (stuck,) = recorder.of(RequestStuck)
        assert stuck.path == "/stubborn"
        assert stuck.age == pytest.approx(2 * BEFORE_GIVING_UP)
        assert recorder.of(DrainEnded)[0].left == 1
        assert recorder.marks.count("ignored") == (0 if on_trio() else 2)
        stage.site.finish.set()


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_handler_may_say_that_its_answer_has_no_end(
    recorder: Recorder, method: str
) -> None:
    """It is ended as an event stream is, with a proper end of its body."""
    stage = Stage(recorder)
    async with stage.serving():
        declared = stage.server.http("/declared", method=method)
        stage.group.start_soon(declared.run)
        await recorder.wait_for_mark("in /declared")
        await anyio.wait_all_tasks_blocked()
        slow = await stage.visit("/slow")
        stage.guard.begin_drain()
        await recorder.wait_for_mark("out /declared")
        assert slow.status is None
        stage.site.finish.set()
    assert declared.phase == "answered"
    assert recorder.of(StreamEnded) == [StreamEnded("/declared")]


@pytest.mark.anyio
async def test_an_answer_that_turns_out_endless_in_the_drain(
    recorder: Recorder,
) -> None:
    """It is ended as soon as its handler says so."""
    stage = Stage(recorder)
    async with stage.serving():
        late = await stage.visit("/late")
        stage.guard.begin_drain()
        await anyio.wait_all_tasks_blocked()
        stage.site.finish.set()
    assert late.phase == "answered"


@pytest.mark.anyio
async def test_a_handler_in_a_thread_can_say_that_it_is_endless(
    recorder: Recorder,
) -> None:
    """A plain ``def`` handler of Starlette's and FastAPI's runs in one."""
    stage = Stage(recorder, drain=Drain(grace=3600))
    async with stage.serving():
        stream = await stage.visit("/threaded")
        await stream.wait_until(lambda: stream.phase == "started")
        other = await stage.visit("/slow")
        stage.guard.begin_drain()
        await recorder.wait_for_mark("out /threaded")
        stage.site.finish.set()
    assert (stream.phase, other.body) == ("answered", b"whole")
    assert recorder.of(StreamEnded) == [StreamEnded("/threaded")]


@pytest.mark.anyio
async def test_a_path_is_below_the_root_path_that_its_request_had(
    recorder: Recorder,
) -> None:
    """Root paths may differ: of a guard that is mounted twice, or behind a proxy."""
    stage = Stage(recorder, drain=Drain(grace=3600, endless=["/stream"]))
    async with stage.serving():
        streams = []
        for root_path in ("/a", "/b", "/a"):
            for path in ("/quick", "/stream"):
                request = stage.server.http(root_path + path)
                request.scope["root_path"] = root_path
                stage.group.start_soon(request.run)
                await anyio.wait_all_tasks_blocked()
            streams.append(request)
    assert {stream.phase for stream in streams} == {"answered"}
    assert recorder.of(StreamEnded) == [StreamEnded("/stream")] * 3


@pytest.mark.anyio
async def test_who_says_that_it_is_endless_where_nobody_counts(
    recorder: Recorder,
) -> None:
    """Without a drain it changes nothing; nor for a request that is none of ours."""
    stage = Stage(recorder, drain=None)
    async with stage.serving():
        await stage.visit("/declared")
        stage.group.cancel_scope.cancel()
    guard = LifespanGuard(hello, [Tap(recorder).recipe])
    async with MemoryServer(guard) as server:
        await guard.wait_ready(PATIENCE)
        state = server.http("/").scope["state"]
        LifespanGuard.endless({"type": "http", "state": dict(state)})
        assert (await server.get("/")).body == b"hello"


@pytest.mark.anyio
async def test_a_path_counts_as_it_was_when_the_request_began(
    recorder: Recorder,
) -> None:
    """Frameworks change the scope in place below their mounts."""
    stage = Stage(recorder, drain=Drain(grace=3600, endless=["/mounted"]))
    async with stage.serving():
        request = await stage.visit("/mounted")
    assert request.phase == "answered"
    assert recorder.of(StreamEnded) == [StreamEnded("/mounted")]


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/queue", "/spinning"])
async def test_a_socket_whose_handler_does_not_return_is_cancelled(
    recorder: Recorder, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its peer has its close frame at once; the handler has a second to notice."""
    monkeypatch.setattr(_drain, "GOODBYE", 0.05)
    stage = Stage(recorder)
    async with stage.serving():
        socket = stage.server.websocket(path)
        stage.group.start_soon(socket.run)
        await recorder.wait_for_mark(f"in {path}")
        await anyio.wait_all_tasks_blocked()
    assert socket.sent[-1]["code"] == 1012
    assert recorder.of(DrainEnded)[0].left == 0
    assert recorder.of(RequestCut) == []


@pytest.mark.anyio
@on_virtual_time
async def test_a_clean_up_longer_than_the_grace_is_not_interrupted(
    recorder: Recorder,
) -> None:
    """Two seconds lie between the first cancellation and the second."""
    stage = Stage(recorder, drain=Drain(grace=0.1, endless=["/long_goodbye"]))
    async with stage.serving():
        await stage.visit("/long_goodbye")
    assert "said goodbye" in recorder.marks


@pytest.mark.anyio
@on_virtual_time
async def test_a_hook_is_not_cut_with_those_it_waits_for(recorder: Recorder) -> None:
    """It outlives the grace, and answers."""
    stage = Stage(recorder, drain=Drain(grace=1))
    async with stage.serving():
        await stage.visit("/slow")
        hook = await stage.visit("/hook")
        await recorder.wait_for_mark("out /hook")
    assert hook.body == b"whole"
    assert [event.path for event in recorder.of(RequestCut)] == ["/slow"]


@pytest.mark.anyio
async def test_a_hook_waits_for_all_but_itself(recorder: Recorder) -> None:
    """Several may wait at the same time, and each is answered when all is over."""
    stage = Stage(recorder)
    async with stage.serving():
        stream = await stage.visit("/stream")
        hooks = [stage.server.http("/hook"), stage.server.http("/hook")]
        for hook in hooks:
            stage.group.start_soon(hook.run)
        await recorder.wait_for_mark("out /hook", 2)
        assert [hook.body for hook in hooks] == [b"whole"] * 2
        assert stream.phase == "answered"
        assert stage.guard.draining.is_set()
        await stage.guard.draining.wait()
        assert not stage.guard.ready
        assert recorder.of(DrainBegun) == [DrainBegun("preStop", 2)]


@pytest.mark.anyio
async def test_while_it_drains_probes_and_the_finite_are_answered(
    recorder: Recorder,
) -> None:
    """Unready but alive; a new stream is refused; connections are not kept."""
    stage = Stage(recorder)
    async with stage.serving():
        await stage.visit("/slow")
        stage.guard.begin_drain()
        stage.guard.begin_drain("again")
        await anyio.wait_all_tasks_blocked()
        ready, live = [await stage.server.get(path) for path in ("/readyz", "/livez")]
        assert (ready.status, live.status) == (503, 200)
        assert ready.headers["connection"] == live.headers["connection"] == "close"
        assert (await stage.server.get("/quick")).status == 200
        for path, *headers in (("/stream",), ("/quick", EVENTS)):
            refused = await stage.server.get(path, *headers)
            assert (refused.status, refused.headers["connection"]) == (503, "close")
        socket = await stage.server.websocket("/socket").run()
        assert socket.status == 503
        stage.site.finish.set()
    assert len(recorder.of(DrainBegun)) == 1


@pytest.mark.anyio
async def test_during_the_delay_streams_may_begin(recorder: Recorder) -> None:
    """They are ended when it is over; a shutdown cuts it short."""
    stage = Stage(recorder, drain=Drain(delay=3600, endless=["/stream"]))
    async with stage.serving():
        stage.guard.begin_drain()
        stream = await stage.visit("/stream")
        assert (await stage.server.get("/readyz")).status == 503
    assert stream.phase == "answered"


@pytest.mark.anyio
@on_virtual_time
async def test_a_shutdown_long_after_a_drain_has_its_own_time(
    recorder: Recorder,
) -> None:
    """Nobody knew when it would come, and closing is bounded from then on."""
    tap = SlowTap(recorder)
    drain = Drain(grace=0.0)
    guard = LifespanGuard(Site(recorder), [tap.recipe], drain=drain, shutdown_timeout=5)
    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
        guard.begin_drain()
        await guard.wait_drain()
        await anyio.sleep(3600)
    assert recorder.marks == ["open db", "close db", "closed"]


class SlowTap(Tap):
    """Takes some time to close."""

    async def close(self) -> None:
        await anyio.sleep(1)
        self._recorder.mark("closed")


@pytest.mark.anyio
@on_virtual_time
@pytest.mark.parametrize("by_hand", [False, True])
async def test_one_deadline_bounds_the_whole_stop(
    recorder: Recorder, by_hand: bool
) -> None:
    """What ignores being cut takes its time from that of the closing, and only half."""
    site, tap = Site(recorder), HangingTap(recorder)
    drain = Drain(grace=2)
    guard = LifespanGuard(site, [tap.recipe], drain=drain, shutdown_timeout=4)
    server = MemoryServer(guard)
    with anyio.CancelScope(shield=True) as in_time:
        async with anyio.create_task_group() as group:
            with pytest.raises(LifespanError, match="db"):
                await _stop(server, guard, group, recorder, in_time, by_hand)
            site.finish.set()
    assert not in_time.cancel_called
    assert recorder.marks.count("close db") == 1


async def _stop(
    server: MemoryServer,
    guard: LifespanGuard,
    group: Any,
    recorder: Recorder,
    in_time: anyio.CancelScope,
    by_hand: bool,
) -> None:
    async with server:
        await guard.wait_ready(PATIENCE)
        group.start_soon(server.http("/stubborn").run)
        await recorder.wait_for_mark("in /stubborn")
        in_time.deadline = anyio.current_time() + 2 + 4 + 1.5
        if by_hand:
            guard.begin_drain()
            await anyio.sleep(1)


class HangingTap(Tap):
    """Takes as long to close as it may."""

    async def close(self) -> None:
        await anyio.sleep_forever()


@pytest.mark.anyio
async def test_who_waits_for_the_drain_waits_for_the_next_one(
    recorder: Recorder,
) -> None:
    """Not for one that is over; and a start that fails does not end the waiting."""
    tap = Tap(recorder, errors=[OSError("no")], startup="blocking")
    guard = LifespanGuard(hello, [tap.recipe], observers=[recorder])

    async def wait(name: str) -> None:
        await guard.wait_drain()
        recorder.mark(name)

    async with anyio.create_task_group() as group:
        group.start_soon(wait, "first")
        with pytest.raises(LifespanError):
            async with MemoryServer(guard):
                pytest.fail("it started")
        for name in ("first", "second"):
            await anyio.wait_all_tasks_blocked()
            assert name not in recorder.marks
            async with MemoryServer(guard):
                guard.begin_drain()
                await recorder.wait_for_mark(name)
                await guard.wait_drain()
            group.start_soon(wait, "second" if name == "first" else "third")
        await anyio.wait_all_tasks_blocked()
        assert "third" not in recorder.marks
        group.cancel_scope.cancel()


@pytest.mark.anyio
@on_virtual_time
async def test_who_came_after_the_drain_is_waited_for_a_little(
    recorder: Recorder,
) -> None:
    """A server may have cancelled it a moment ago, and not waited for its clean-up."""
    stage = Stage(recorder)
    async with anyio.create_task_group() as late, stage.serving():
        stage.guard.begin_drain()
        await stage.guard.wait_drain()
        late.start_soon(stage.server.http("/slow").run)
        await recorder.wait_for_mark("in /slow")
        late.start_soon(_finish_when_stopping, stage)
    assert recorder.marks.index("out /slow") < recorder.marks.index("close db")


async def _finish_when_stopping(stage: Stage) -> None:
    await anyio.wait_all_tasks_blocked()
    stage.site.finish.set()


@pytest.mark.anyio
async def test_a_cancelled_lifespan_still_waits_for_requests(
    recorder: Recorder,
) -> None:
    """Every task of the loop may be cancelled at once; what is left of the drain is."""
    stage = Stage(recorder, drain=Drain(grace=3600))
    guard, server = stage.guard, stage.server
    async with (
        anyio.create_task_group() as stage.group,
        anyio.create_task_group() as lifespan,
    ):
        lifespan.start_soon(server.lifespan.run)
        server.lifespan.feed({"type": "lifespan.startup"})
        await recorder.wait_for_mark("open db")
        await stage.visit("/slow")
        guard.begin_drain()
        await anyio.wait_all_tasks_blocked()
        _cancel_the_walker()
        lifespan.cancel_scope.cancel()
        stage.site.finish.set()
    assert guard.phase is Phase.STOPPED
    assert recorder.of(DrainEnded)[0].left == 0
    assert recorder.marks.index("out /slow") < recorder.marks.index("close db")


def _cancel_the_walker() -> None:
    """Cancel the task that drains, as `asyncio.run` does when it is left."""
    tasks = [] if on_trio() else asyncio.all_tasks()
    for task in tasks:
        if "Drainer.run" in str(task.get_coro()):
            task.cancel()


@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop])
def test_at_the_end_of_the_loop_requests_clean_up_before_anything_is_closed(
    recorder: Recorder, loop_factory: Any
) -> None:
    """All tasks are cancelled at once then: requests, the lifespan, and the owners."""
    site, tap = Site(recorder), Tap(recorder)
    guard = LifespanGuard(site, [tap.recipe])
    server = MemoryServer(guard)

    async def serve() -> None:
        server.lifespan.feed({"type": "lifespan.startup"})
        tasks.append(asyncio.ensure_future(server.lifespan.run()))
        await guard.wait_ready(PATIENCE)
        for number in range(1, 6):
            tasks.append(asyncio.ensure_future(server.http("/cleaning").run()))
            await recorder.wait_for_mark("in /cleaning", number)

    tasks: list[Any] = []
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve())
    end = recorder.marks.index("close db")
    assert recorder.marks[:end].count("out /cleaning") == 5
    assert guard.phase is Phase.STOPPED


@pytest.mark.anyio
async def test_another_thread_may_begin_it(recorder: Recorder) -> None:
    """An idle event loop wakes for it, and for a pause."""
    guard = LifespanGuard(hello, [Tap(recorder).recipe], observers=[recorder])

    def act() -> None:
        guard.pause("a thread says so")
        guard.resume()
        guard.retry_now()
        guard.begin_drain("a thread")

    async with MemoryServer(guard):
        await guard.wait_ready(PATIENCE)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, act)
            await recorder.wait_for(DrainBegun)
        await guard.wait_drain()
    assert recorder.of(DrainBegun) == [DrainBegun("a thread", 0)]
    assert len(recorder.of(Paused)) == len(recorder.of(Resumed)) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_where_the_loop_is_gone_nobody_is_there_to_be_told(
    recorder: Recorder, backend: str
) -> None:
    """A guard that has stopped may be asked for anything, from any thread."""
    guard = LifespanGuard(hello, observers=[recorder])

    async def live() -> None:
        async with MemoryServer(guard):
            await guard.wait_ready(PATIENCE)

    def act() -> None:
        guard.pause("later")
        guard.begin_drain()

    anyio.run(live, backend=backend)
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    act()
    assert guard.report().paused == "later"
    assert [event.reason for event in recorder.of(DrainBegun)] == ["shutdown"]


@pytest.mark.anyio
async def test_each_life_has_its_own_drain(recorder: Recorder) -> None:
    """The guard starts again, and nothing is left of the last time."""
    stage = Stage(recorder)
    for _ in range(2):
        async with stage.serving():
            assert not stage.guard.draining.is_set()
            await stage.visit("/stream")
            recorder.marks.remove("in /stream")
        stage.server = MemoryServer(stage.guard)
    assert [event.reason for event in recorder.of(DrainBegun)] == ["shutdown"] * 2


@pytest.mark.anyio
async def test_without_a_drain_requests_are_left_alone(recorder: Recorder) -> None:
    """Nobody is ended, waited for or told; `draining` is given at the shutdown."""
    stage = Stage(recorder, drain=None)
    async with stage.serving():
        stream = await stage.visit("/stream")
        assert not stage.guard.draining.is_set()
        stage.server.lifespan.phase = "stopping"
        stage.server.lifespan.feed({"type": "lifespan.shutdown"})
        await recorder.wait_for_mark("close db")
        assert stage.guard.draining.is_set()
        assert stream.phase == "started"
        stage.group.cancel_scope.cancel()
    assert recorder.of(DrainBegun) == []


@pytest.mark.anyio
async def test_by_hand_without_a_drain(recorder: Recorder) -> None:
    """`begin_drain` uses the defaults then, and has nothing in flight."""
    stage = Stage(recorder, drain=None)
    async with stage.serving():
        stage.guard.begin_drain()
        await stage.guard.wait_drain()
    assert recorder.of(DrainBegun) == [DrainBegun("begin_drain()", 0)]


@pytest.mark.anyio
@on_virtual_time
async def test_an_app_may_call_itself(recorder: Recorder) -> None:
    """A request inside another one, in the same task, is one more in flight."""
    inner: list[Request] = []
    stage = Stage(recorder, drain=Drain(grace=5))

    async def call(scope: Any, receive: Any, send: Any) -> None:
        inner.append(stage.server.http("/slow"))
        await inner[0].run()

    stage.site.calling = call  # type: ignore[attr-defined]
    async with stage.serving():
        request = await stage.visit("/calling")
        await recorder.wait_for_mark("in /slow")
        stage.guard.begin_drain()
        await stage.guard.wait_drain()
    assert request.status == 503
    assert recorder.of(DrainBegun)[0].in_flight == 2
    assert inner[0].status == 503
    assert recorder.of(DrainEnded)[0].left == 0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"delay": -1}, "Drain(delay=-1): must be a number of seconds, 0 or more"),
    ({"grace": "10"}, "Drain(grace='10'): must be a number of seconds"),
    ({"endless": "/events"}, "must be a list of path prefixes"),
    ({"endless": ["events"]}, "path that begins with '/'"),
    ({"signals": [signal.SIGKILL]}, "signals that can be caught"),
    ({"signals": 15}, "must be a list of signals"),
]


@pytest.mark.parametrize(("given", "text"), WRONG, ids=lambda arg: str(arg))
def test_a_wrong_setting_is_told_at_once(given: dict[str, Any], text: str) -> None:
    """The error names the option, what was given, and what it must be."""
    with pytest.raises(ConfigurationError) as caught:
        Drain(**given)
    assert text in str(caught.value)


def test_good_settings_are_taken() -> None:
    """No grace, no signal, and paths."""
    drain = Drain(delay=5, grace=0, endless=("/events",), signals=())
    assert (drain.delay, drain.grace, drain.signals) == (5, 0, ())


@pytest.mark.anyio
async def test_who_is_cancelled_leaves_the_rest_to_the_next(recorder: Recorder) -> None:
    """A loop that is torn down cancels every task; the drain goes on where it was."""
    in_flight, released = InFlight([], recorder), anyio.Event()
    drainer = Drainer(Drain(), 15.0, in_flight, recorder, lambda: recorder.mark("over"))
    drainer.begin("test", 3600.0, released.set, 0)
    if not on_trio():
        task = asyncio.ensure_future(drainer.finish())
        await anyio.wait_all_tasks_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not released.is_set()
    drainer.hurry()
    await drainer.finish()
    assert released.is_set()
    assert recorder.marks == ["over"]
    assert len(recorder.of(DrainEnded)) == 1
