"""A guard that starts on its first request: who starts it, how often, who ends it."""

from __future__ import annotations

import asyncio
import contextvars
import signal
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from signal import SIGTERM
from typing import Any

import anyio
import pytest
import uvloop
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard import Gate, LifespanGuard, Phase, lifespan_of, resource
from asgi_lifespan_guard.events import (
    LifespanMissing,
    PhaseChanged,
    RequestRefused,
    ResourceCrashed,
    StartupFailed,
)
from tests.recorder import Recorder
from tests.support.memory_server import MemoryServer
from tests.support.resources import LivedIn, Tap, Watcher, hello


BACKENDS: list[Any] = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]


def lazy(app: Any, *resources: Any, **options: Any) -> LifespanGuard:
    """Make a guard that starts by itself."""
    return LifespanGuard(app, resources, lazy_start=True, **options)


def client_of(guard: Any) -> MemoryServer:
    """Return a server that sends no lifespan, and knows no state, as daphne."""
    return MemoryServer(guard, state_for_request=lambda _: None)


@pytest.mark.anyio
async def test_the_first_request_starts_it(recorder: Recorder) -> None:
    """It is held until what it needs is up, and finds it in its state."""
    app = Watcher()
    guard = lazy(app, Tap(recorder).recipe)
    assert guard.phase is Phase.IDLE
    request = await client_of(guard).get("/")
    assert (request.body, app.state) == (b"hello", {"db": "db 1"})
    assert guard.ready


@pytest.mark.anyio
async def test_many_first_requests_start_it_once(recorder: Recorder) -> None:
    """However many come at the same time, everything is opened once."""
    guard = lazy(LivedIn(recorder), Tap(recorder).recipe)
    client = client_of(guard)
    answers = []

    async def visit(make: Callable[[], Any]) -> None:
        answers.append((await make().run()).status)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(visit, lambda: client.http("/"))
            group.start_soon(visit, lambda: client.http("/livez"))
    assert answers == [200] * 100
    assert recorder.marks == ["app starts", "open db"]


@pytest.mark.anyio
async def test_the_first_request_lends_nothing_to_it(recorder: Recorder) -> None:
    """What is bound in the context of a request is not bound in the resources."""
    bound = contextvars.ContextVar("bound", default="none")

    @resource
    async def db() -> AsyncGenerator[None, None]:
        recorder.mark(f"bound: {bound.get()}")
        yield

    bound.set("the first")
    assert (await client_of(lazy(hello, db)).get("/")).status == 200
    assert recorder.marks == ["bound: none"]


@pytest.mark.anyio
async def test_the_first_websocket_starts_it(recorder: Recorder) -> None:
    """A handshake counts as a request."""
    guard = lazy(hello, Tap(recorder).recipe)
    handshake = await client_of(guard).websocket("/ws").run()
    assert handshake.sent[0]["type"] == "websocket.accept"


@pytest.mark.anyio
async def test_a_probe_starts_it_and_does_not_wait(recorder: Recorder) -> None:
    """A probe is answered at once; what it has begun goes on behind it."""
    model = Tap(recorder, "model", shut=True, startup="blocking")
    guard = lazy(hello, model.recipe, observers=[recorder])
    client = client_of(guard)
    assert (await client.get("/livez")).status == 200
    assert (await client.get("/readyz")).status == 503
    model.let()
    await recorder.wait_until(lambda: guard.ready)
    assert (await client.get("/readyz")).status == 200


@pytest.mark.anyio
async def test_requests_wait_for_a_blocking_startup(recorder: Recorder) -> None:
    """As behind a server, nothing reaches the app before its startup is complete."""
    app = LivedIn(recorder)
    model = Tap(recorder, "model", shut=True, startup="blocking", required=False)
    client = client_of(lazy(app, model.recipe))
    async with anyio.create_task_group() as group:
        group.start_soon(client.get, "/")
        await anyio.wait_all_tasks_blocked()
        assert "http" not in [scope["type"] for scope in app.scopes]
        model.let()
    assert [scope["type"] for scope in app.scopes] == ["lifespan", "http"]


@pytest.mark.anyio
@pytest.mark.parametrize("who", ["resource", "app"])
async def test_a_startup_that_fails_refuses_requests(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, who: str
) -> None:
    """All are refused, open paths too; the cause is logged, and nothing tried again."""
    error = OSError("no such model")
    model = Tap(recorder, "model", startup="blocking", errors=[error])
    app = LivedIn(recorder, errors=[error])
    guard = lazy(
        *((hello, model.recipe) if who == "resource" else (app,)),
        gate=Gate(needs={"/open": ()}),
        observers=[recorder],
    )
    client = client_of(guard)
    for path in ("/", "/open", "/"):
        assert (await client.get(path)).status == 503
    assert (await client.get("/livez")).status == 200
    assert (await client.get("/readyz")).status == 503
    assert guard.phase is Phase.FAILED
    assert len(recorder.of(StartupFailed)) == 1
    assert len(recorder.of(RequestRefused)) == 3
    assert [r.exc_text for r in caplog.records if r.exc_text] != []
    assert sum("no such model" in (r.exc_text or "") for r in caplog.records) == 1


@pytest.fixture
def heard(recorder: Recorder) -> Iterator[None]:
    """Be the server's handler of SIGTERM."""
    before = signal.signal(SIGTERM, lambda *_: recorder.mark("server: SIGTERM"))
    yield
    signal.signal(SIGTERM, before)


@pytest.mark.anyio
@pytest.mark.usefixtures("heard")
async def test_a_signal_is_its_stop(recorder: Recorder) -> None:
    """Nobody else would tell it; the server hears it when everything is closed."""
    guard = lazy(hello, Tap(recorder).recipe)
    assert (await client_of(guard).get("/")).status == 200
    signal.raise_signal(SIGTERM)
    await recorder.wait_for_mark("server: SIGTERM")
    assert recorder.marks == ["open db", "close db", "server: SIGTERM"]
    assert guard.phase is Phase.STOPPED
    assert (await client_of(guard).get("/")).status == 503


@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop])
def test_a_signal_that_the_loop_handles_is_its_stop(
    recorder: Recorder, loop_factory: Any
) -> None:
    """The server hears it at once, and everything is closed as soon as may be."""

    async def serve() -> None:
        stop = partial(recorder.mark, "server: SIGTERM")
        asyncio.get_running_loop().add_signal_handler(SIGTERM, stop)
        guard = lazy(hello, Tap(recorder).recipe)
        assert (await client_of(guard).get("/")).status == 200
        signal.raise_signal(SIGTERM)
        await recorder.wait_for_mark("close db")

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve())
    assert sorted(recorder.marks) == ["close db", "open db", "server: SIGTERM"]


@pytest.mark.anyio
async def test_a_lifespan_that_does_not_come_is_told_of(recorder: Recorder) -> None:
    """At the first request that is refused for it, and once."""
    guard = LifespanGuard(hello, [Tap(recorder).recipe], observers=[recorder])
    for path in ("/a", "/b"):
        assert (await client_of(guard).get(path)).status == 503
    assert recorder.of(LifespanMissing) == [LifespanMissing("/a")]


@pytest.mark.anyio
async def test_an_app_without_a_lifespan_is_fine(recorder: Recorder) -> None:
    """It needs no resource either; paths that are declared open are."""
    db = Tap(recorder, shut=True)
    guard = lazy(hello, db.recipe, gate=Gate(wait=0, needs={"/open": ()}))
    client = client_of(guard)
    assert (await client.get("/open")).status == 200
    assert (await client.get("/")).status == 503


@pytest.mark.anyio
async def test_a_server_that_does_send_a_lifespan(recorder: Recorder) -> None:
    """Where a lifespan comes, it is the one; and after it the guard stays stopped."""
    guard = lazy(hello, Tap(recorder).recipe, observers=[recorder])
    async with MemoryServer(guard) as server:
        assert (await server.get("/")).status == 200
    assert recorder.marks == ["open db", "close db"]
    assert [e.new for e in recorder.of(PhaseChanged)].count(Phase.STARTING) == 1


@pytest.mark.parametrize("anyio_backend", BACKENDS)
def test_two_event_loops_after_one_another(
    recorder: Recorder, anyio_backend: Any
) -> None:
    """Each loop starts it anew, and closes everything when it ends."""
    pool = resource(_pool(recorder), name="db")
    guard = lazy(_living(recorder), pool, observers=[recorder])

    async def visit() -> None:
        client = client_of(guard)
        for _ in range(2):
            assert (await client.get("/")).status == 200

    name, options = anyio_backend
    for _ in range(2):
        anyio.run(visit, backend=name, backend_options=options)
        assert guard.phase is Phase.STOPPED
    assert recorder.marks == ["app starts", "open", "app shuts down", "close"] * 2


@pytest.mark.parametrize("anyio_backend", BACKENDS)
def test_a_startup_that_failed_in_another_loop(
    recorder: Recorder, anyio_backend: Any
) -> None:
    """A new loop is a new start."""
    app = LivedIn(recorder, errors=[OSError("refused")])
    guard = lazy(app)

    async def visit() -> None:
        statuses.append((await client_of(guard).get("/")).status)

    statuses: list[Any] = []
    name, options = anyio_backend
    for _ in range(2):
        anyio.run(visit, backend=name, backend_options=options)
    assert statuses == [503, 200]


def _living(recorder: Recorder) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await hello(scope, receive, send)
            return
        await receive()
        recorder.mark("app starts")
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        finally:  # asyncio.run cancels every task that is left, this one too
            recorder.mark("app shuts down")
        await send({"type": "lifespan.shutdown.complete"})

    return app


def _pool(recorder: Recorder) -> Callable[[], AsyncGenerator[str, None]]:
    async def open_pool() -> AsyncGenerator[str, None]:
        recorder.mark("open")
        try:
            yield "pool"
        finally:
            with anyio.CancelScope(shield=True):
                await checkpoint()
            recorder.mark("close")

    return open_pool


# The end of the process, where nobody cancels anything.


@pytest.fixture
def at_exit(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Return what is to be called at the end of the process."""
    calls: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", calls.append)
    monkeypatch.setattr("atexit.unregister", calls.remove)
    return calls


@pytest.fixture
def standing_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return a loop that is run now and then, as Mangum does."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_closed_at_the_end_of_the_process(
    recorder: Recorder,
    at_exit: list[Callable[[], None]],
    standing_loop: asyncio.AbstractEventLoop,
) -> None:
    """On a loop that stands still, everything is closed in order; then it is done."""
    pool = resource(_pool(recorder), name="db")
    guard = lazy(_living(recorder), pool, observers=[recorder])
    for _ in range(2):
        request = standing_loop.run_until_complete(client_of(guard).get("/"))
        assert request.status == 200
    (end,) = at_exit
    end()
    assert recorder.marks == ["app starts", "open", "app shuts down", "close"]
    assert guard.phase is Phase.STOPPED
    assert recorder.of(ResourceCrashed) == []
    assert at_exit == []


def test_nothing_to_do_at_the_end_of_the_process(
    at_exit: list[Callable[[], None]],
) -> None:
    """What its loop has closed is not closed again."""
    guard = lazy(hello)
    asyncio.run(_visited(guard))
    assert at_exit == []


async def _visited(guard: LifespanGuard) -> None:
    assert (await client_of(guard).get("/")).status == 200


def test_a_loop_that_runs_or_is_closed_is_left_alone(
    at_exit: list[Callable[[], None]],
    standing_loop: asyncio.AbstractEventLoop,
) -> None:
    """A loop that is still run by another thread cannot be run, nor a closed one."""
    guard = lazy(hello)

    async def visit() -> Callable[[], None]:
        await _visited(guard)
        (end,) = at_exit
        end()
        return end

    end = standing_loop.run_until_complete(visit())
    assert guard.ready
    standing_loop.run_until_complete(standing_loop.create_task(_cancel_others()))
    standing_loop.close()
    end()
    assert guard.phase is Phase.STOPPED


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.mark.anyio
async def test_a_lifespan_that_is_off(recorder: Recorder) -> None:
    """An app whose lifespan is not run is called for requests only."""
    app = LivedIn(recorder)
    guard = lazy(app, Tap(recorder).recipe, app_lifespan="off")
    assert (await client_of(guard).get("/")).status == 200
    assert recorder.marks == ["open db"]


@pytest.mark.anyio
async def test_a_recipe_behind_a_lazy_start(recorder: Recorder) -> None:
    """The app's lifespan as a resource with needs works as behind a server."""
    app = LivedIn(recorder, own=1)
    db = Tap(recorder)
    guard = lazy(app, db.recipe, app_lifespan=lifespan_of(needs=[db.recipe]))
    assert (await client_of(guard).get("/")).status == 200
    assert app.states == [{"db": "db 1"}]
    assert app.scopes[-1]["state"]["own"] == 1
