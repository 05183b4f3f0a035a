"""A scenario that is played: the guard, its server, and what happens to them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import trio
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard import (
    Drain,
    Gate,
    IllegalTransitionError,
    LifespanGuard,
    LifespanGuardError,
    Phase,
    Probes,
    ResourcePhase,
)
from asgi_lifespan_guard.events import Event
from asgi_lifespan_guard.testing import Exchange, MemoryServer
from tests.chaos import loops
from tests.chaos.actors import (
    Actor,
    Panic,
    leave_a_cancellation,
)
from tests.chaos.scenario import Happening, Scenario
from tests.chaos.witness import SLACK, Witness, culprits_of


PATIENCE = 5.0
"""Seconds that a drain gives to what does not end when it is cancelled."""
LATE = 60.0
"""Seconds after which a stop that is late is not waited for any more."""
SWALLOWED = (Exception, Panic, BaseExceptionGroup, asyncio.CancelledError)


class World(Witness):
    """Plays one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        turn = partial(loops.after_a_turn, scenario.backend)
        super().__init__(scenario, turn)
        self.on_asyncio = scenario.backend == "asyncio"
        self._all: list[Actor] = []
        self._app: Actor | None = None
        self._seen: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._requests = 0
        self._turns = loops.Turns()
        self._host_task: asyncio.Task[Any] | None = None
        self._host_scope: anyio.CancelScope

    def play(self) -> World:
        """Play it, and return with what was seen."""
        threads = threading.active_count()
        self.now = lambda: 0.0
        try:
            scenario = self.scenario
            loops.run(
                self._main,
                scenario.backend,
                scenario.luck,
                self._turns,
                self._thread_is_on,
            )
        except loops.StuckError as error:
            self._stand_still()
            self.complain("goes on", str(error))
        except Exception as error:
            self._stand_still()
            self.complain("goes on", f"out of the event loop came {error!r}")
        if threading.active_count() > threads:
            self._stand_still()
            self._wait_for_threads(threads)
        return self

    def _thread_is_on(self) -> bool:
        turning = (ResourcePhase.OPENING, ResourcePhase.CLOSING)
        return any(
            actor.node.kind == "thread" and self.lives[name].phase in turning
            for name, actor in self.actors.items()
        )

    def _stand_still(self) -> None:
        last = self.lines[-1][0] if self.lines else 0.0
        self.now = lambda: last

    def _wait_for_threads(self, before: int) -> None:
        for thread in threading.enumerate():
            if thread.daemon and thread is not threading.current_thread():
                thread.join(1.0)
        if threading.active_count() > before:
            self.complain("nothing is left", f"{threading.enumerate()}")
        for actor in self._all:
            if actor.busy:
                self.complain("opens once", f"{actor.name} is not closed")

    # The whole

    async def _main(self) -> None:
        self.now = loops.clock(self.scenario.backend)
        if self.on_asyncio:
            asyncio.get_running_loop().set_exception_handler(self._hear_of_unhandled)
        self._make()
        at_rest = len(anyio.get_running_tasks())
        async with anyio.create_task_group() as self._group:
            for stop in self.scenario.stops:
                await self._cycle(stop)
                if any(a.node.kind == "thread" and a.busy for a in self._all):
                    break  # One that a stop abandoned would be there in the next, too.
            await self._end_requests()
            self._group.cancel_scope.cancel()
        await anyio.sleep(1.0)
        left = anyio.get_running_tasks()
        if len(left) > at_rest:
            self.complain("nothing is left", f"{[task.name for task in left]}")

    def _hear_of_unhandled(self, loop: Any, context: dict[str, Any]) -> None:
        self.complain("goes on", f"{context['message']}: {context.get('exception')!r}")

    def _make(self) -> None:
        scenario = self.scenario
        for number, node in enumerate(scenario.nodes):
            needs = [self._all[need] for need in node.needs]
            self._all.append(Actor(self, number, node, needs))
        recipes = [actor.recipe for actor in self._all]
        app_lifespan: Any = "off"
        if scenario.app is not None:
            needs = [self._all[need] for need in scenario.app.needs]
            self._app = Actor(self, -1, scenario.app, needs)
            app_lifespan = self._app.recipe
        drain = scenario.drain
        self.guard = LifespanGuard(
            self._serve,
            recipes,
            app_lifespan=app_lifespan,
            gate=Gate(needs={"/first": recipes[:1]}),
            probes=Probes(details=True),
            drain=drain
            if drain is None
            else Drain(grace=drain, signals=(signal.SIGTERM,)),
            shutdown_timeout=scenario.shutdown_timeout,
            observers=[self._observe],
        )

    # One start/stop cycle

    async def _cycle(self, stop: float) -> None:
        self.note("--- the server starts it")
        everyone = [*self._all, self._app] if self._app else self._all
        self.enter(everyone)
        self._seen.clear()
        self._wanted, self._ended = anyio.Event(), anyio.Event()
        self._server = MemoryServer(self.guard)
        exchange = self._server.lifespan
        exchange.feed({"type": "lifespan.startup"})
        before = self._be_a_server()
        self._host_scope = anyio.CancelScope()
        self._group.start_soon(self._host, exchange)
        timeline = anyio.CancelScope()
        self._group.start_soon(self._timeline, timeline)
        with anyio.move_on_after(stop):
            await self._wanted.wait()
        await self._stop(exchange)
        timeline.cancel()
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        self.look_back(complete="lifespan.startup.complete" in self._server.said)

    def _be_a_server(self) -> Any:
        if self.scenario.drain is None:
            return None
        return signal.signal(signal.SIGTERM, lambda *_: self._wanted.set())

    async def _host(self, exchange: Exchange) -> None:
        self._host_task = asyncio.current_task() if self.on_asyncio else None
        try:
            with self._host_scope:
                if self.scenario.leftover:
                    await leave_a_cancellation()
                await self._converse(exchange)
        finally:
            self._host_task = None
            self._ended.set()
            self._wanted.set()

    async def _converse(self, exchange: Exchange) -> None:
        error: BaseException | None = None
        try:
            await exchange.run()
        except SWALLOWED as raised:
            error = raised
            if self._host_task is not None:
                while self._host_task.cancelling():
                    self._host_task.uncancel()
        except BaseException:
            self.note("--- the lifespan is cancelled")
            raise
        said = [message["type"] for message in exchange.sent]
        self.note(f"--- the lifespan is over: {said}, {error!r}")
        self._check_conversation(said, error)

    def _check_conversation(self, said: list[str], error: BaseException | None) -> None:
        cancelled = self.cancelled > float("-inf")
        if error is not None and not self._may_leave(error):
            text = f"out of the lifespan came {error!r} from {_cause(error)!r}"
            self.complain("protocol", text)
        complete = said[:1] == ["lifespan.startup.complete"]
        if not complete and said != ["lifespan.startup.failed"] and not cancelled:
            self.complain("protocol", f"the server is told {said}")
        if complete and not cancelled and len(said) != 2:
            self.complain("protocol", f"the server is told {said}, and {error!r}")

    def _may_leave(self, error: BaseException) -> bool:
        """Whether a server may see it: as its own, as ours, or as the app's."""
        if isinstance(error, asyncio.CancelledError | trio.Cancelled):
            return self.cancelled > float("-inf")
        if isinstance(error, BaseExceptionGroup) and self.scenario.backend == "trio":
            return all(map(self._may_leave, error.exceptions))
        if isinstance(error, LifespanGuardError):
            return not isinstance(error, IllegalTransitionError)
        apps = (i for i in self.injections if i.actor.node.kind == "lifespan")
        raised = {id(injection.error) for injection in apps}
        return all(id(leaf) in raised for leaf in culprits_of(error))

    async def _stop(self, exchange: Exchange) -> None:
        self.look_before_the_stop()
        began = self.now()
        starting = exchange.phase == "starting"
        if not self._ended.is_set():
            cancels = starting or not self.scenario.polite
            self.begin_stop(cancelled=cancels)
            self.note(f"--- the server {'cancels' if cancels else 'stops'} it")
            if cancels:
                self._cancel_host()
            else:
                exchange.phase = "stopping"
                exchange.feed({"type": "lifespan.shutdown"})
        await self._wait_ended(began)

    async def _wait_ended(self, began: float) -> None:
        limit = self.scenario.shutdown_timeout + SLACK
        if self.scenario.drain is not None:
            limit += self.scenario.drain + PATIENCE
        with anyio.move_on_after(limit + LATE):
            await self._ended.wait()
        if self.now() > began + limit:
            text = f"after {self.now() - began:.3f} s: {self._still_busy()}"
            self.complain("stop in time", text)
        tries = 0
        while not self._ended.is_set():
            tries += 1
            self._cancel_host()
            await anyio.sleep(10)
            if tries > 5:
                self._turns.broken = True
                raise loops.StuckError("the lifespan does not end")

    def _still_busy(self) -> str:
        return ", ".join(a.name for a in self.actors.values() if a.busy) or "nothing"

    def _cancel_host(self) -> None:
        if self._host_task is not None:
            self._host_task.cancel()
        else:
            self._host_scope.cancel()

    # What happens

    def mark(self, what: str, actor: Actor) -> None:
        self._line(f"{what} {actor.name}")

    def begins(self, actor: Actor, values: Sequence[Any] | None) -> bool:
        hot = super().begins(actor, values)
        if not hot:
            self._line(f"attempt {actor.name}")
        return hot

    def comes_up(self, actor: Actor) -> None:
        super().comes_up(actor)
        self._line(f"opened {actor.name}")

    def goes_down(self, actor: Actor) -> None:
        self._line(f"closing {actor.name}")
        super().goes_down(actor)

    def is_down(self, actor: Actor) -> None:
        super().is_down(actor)
        self._line(f"closed {actor.name}")

    def _observe(self, event: Event) -> None:
        name = getattr(event, "resource", "")
        self.note(f"    {type(event).__name__} {name}", event)
        try:
            self.hear(event)
        except Exception as error:
            self.complain("goes on", f"the witness failed: {error!r}")
        self._fire(f"{type(event).__name__} {name}")

    def _line(self, line: str) -> None:
        self.note(line)
        self._fire(line)

    def _fire(self, line: str) -> None:
        self._seen[line] += 1
        for happening in self.scenario.happenings:
            if happening.when == line and happening.nth in (0, self._seen[line]):
                self._do(happening)

    async def _timeline(self, scope: anyio.CancelScope) -> None:
        began = self.now()
        timed = [h for h in self.scenario.happenings if not isinstance(h.when, str)]
        with scope:
            for happening in sorted(timed, key=lambda h: float(h.when)):
                await anyio.sleep(max(0.0, began + float(happening.when) - self.now()))
                self._do(happening)

    def _do(self, happening: Happening) -> None:
        asks = happening.what in ("ask", "ask the first", "probe")
        in_thread = threading.current_thread() is not threading.main_thread()
        if self._ended.is_set() or (asks and in_thread):
            return
        target = self._target(happening)
        self.note(f"*** {happening.what} ({target.name})")
        self.trouble()
        match happening.what:
            case "crash":
                target.crash("crashes")
            case "crash by panic":
                target.crash("panics")
            case "end":
                target.crash("ends")
            case "retry":
                self._retry()
            case "suspect":
                self.guard.suspect(target.recipe)
            case "pause":
                self.guard.pause("chaos")
            case "resume":
                self.guard.resume()
            case "drain":
                self.guard.begin_drain("chaos")
            case _:
                self._do_more(happening.what, target)

    def _do_more(self, what: str, target: Actor) -> None:
        match what:
            case "stop":
                self._wanted.set()
            case "cancel the owner":
                self._cancel_owner(target)
            case "cancel the server":
                if self._host_task is not None:
                    self.begin_stop(cancelled=True)
                    self._cancel_host()
            case "signal":
                if self.scenario.drain is not None:
                    if self.phase is Phase.STARTING:
                        self.limit_stop()
                    signal.raise_signal(signal.SIGTERM)
            case _:
                self._visit(what)

    def _visit(self, what: str) -> None:
        if what == "probe":
            self._group.start_soon(self._probe)
        else:
            self._group.start_soon(self._ask, "/first" if "first" in what else "/")

    def _target(self, happening: Happening) -> Actor:
        if happening.target < 0:
            assert self._app is not None
            return self._app
        return self._all[happening.target]

    def _retry(self) -> None:
        self.hurried = self.now()
        self.guard.retry_now()

    def _cancel_owner(self, actor: Actor) -> None:
        if actor.task is not None and not actor.task.done():
            self.lives[actor.name].cancelled = self.now()
            actor.went.add("cancelled")
            actor.task.cancel()

    # Requests

    async def _probe(self) -> None:
        live = await self._server.get("/livez")
        if live.status != 200:
            self.complain("answered", f"/livez says {live.status}")
        ready = await self._server.get("/readyz?verbose")
        if "Infinity" in str(ready.body) or "NaN" in str(ready.body):
            self.complain("answered", f"/readyz says {ready.body!r}")

    async def _ask(self, path: str) -> None:
        self._requests += 1
        request = self._server.http(path)
        try:
            await request.run()
            if request.status not in (200, 503):
                self.complain("answered", f"{path}: {request.status}")
        except Exception as error:
            self.complain("answered", f"{path} raises {error!r}")
        finally:
            self._requests -= 1

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            assert self._app is not None
            await self._app.lifespan(scope, receive, send)
            return
        first = scope["path"] == "/first"
        needed = self._all[:1] if first else [a for a in self._all if a.node.required]
        state = scope["state"]
        away = [
            actor.name
            for actor in needed
            if actor.node.enabled == "yes" and actor.node.kind in ("context", "step")
            if state.get(actor.name) != actor.value
            or (actor.node.kind == "context" and not actor.live)
        ]
        if away:
            self.complain("let in", f"{scope['path']} without {away}")
        self.note(f"    request in, {scope['path']}")
        await anyio.sleep(1.5)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async def _end_requests(self) -> None:
        await anyio.sleep(30)  # It costs nothing.
        if self._requests:
            self.complain("answered", f"{self._requests} requests are still on")
        await checkpoint()

    # How it is told

    def transcript(self) -> str:
        """Return what happened, line by line, with virtual seconds."""
        told = (f"{time:9.3f}  {_told(text, it)}" for time, text, it in self.lines)
        return "\n".join(told)


def _told(text: str, thing: Any) -> str:
    if thing is None:
        return text
    facts = (
        f"{field}={_short(getattr(thing, field))}"
        for field in vars(thing)
        if field != "resource"
    )
    return f"{text} {' '.join(facts)}"


def _short(value: object) -> str:
    if isinstance(value, BaseExceptionGroup):
        return f"[{', '.join(map(_short, value.exceptions))}]"
    if isinstance(value, BaseException):
        cause = value.__cause__
        return repr(value) + (f" from {_short(cause)}" if cause else "")
    return str(getattr(value, "value", value))


def _cause(error: BaseException | None) -> BaseException | None:
    return None if error is None else error.__cause__ or error.__context__


def play(scenario: Scenario) -> World:
    """Play *scenario*, and return with what was seen."""
    return World(scenario).play()
