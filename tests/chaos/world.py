"""Resources, requests and a server on which anything may happen, and who looks on.

What must hold at a moment is looked at in that moment, where things are opened, closed
and asked; what is found wrong is kept for the machine to complain about.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from tenacity import stop_after_attempt, stop_never, wait_fixed

from asgi_lifespan_guard import (
    Check,
    CloseFailedError,
    Drain,
    Gate,
    LifespanGuard,
    Phase,
    Resource,
    ResourcePhase,
    Retry,
    StartupFailedError,
    StopRequestedError,
    resource,
)
from asgi_lifespan_guard.events import Event
from asgi_lifespan_guard.testing import LifespanError, MemoryServer, Request


OPEN_TIMEOUT = 4.0
CLOSE_TIMEOUT = 3.0
SHUTDOWN_TIMEOUT = 6.0
GRACE = 5.0
PATIENCE = 4.0
"""Seconds that a drain gives to what does not end when it is cancelled."""


@dataclass
class Node:
    """A resource as it is drawn.

    Attributes:
        kind: ``"held"``, ``"step"`` or ``"skipped"``.
        needs: Its needs' numbers, all lower than its own.
    """

    kind: str = "held"
    needs: set[int] = field(default_factory=set)
    blocking: bool = False
    required: bool = True
    retry: int | None = None
    check: str | None = None


class InjectedError(Exception):
    """What goes wrong here, on purpose; each one is to be heard of."""


class Actor:
    """One resource, and its fate.

    Attributes:
        fates: What becomes of the openings and closings to come.
        health: What its check says.
        value: What it gives; each opening has a value of its own.
        live: Whether it is open, from the last step of opening to the first of closing.
    """

    def __init__(self, world: World, number: int, node: Node) -> None:
        self.world = world
        self.node = node
        self.name = f"r{number}"
        self.fates: dict[str, list[str]] = {"open": [], "close": []}
        self.health = "fine"
        self.needs: list[Actor] = [world.actors[need] for need in sorted(node.needs)]
        self.value: object = None
        self.live = False
        self.opened = self.closed = 0
        self.crash: anyio.Event | None = None
        self.recipe = self._recipe()

    def _recipe(self) -> Resource[Any]:
        node = self.node
        stop = stop_never if node.retry is None else stop_after_attempt(node.retry)
        check = Check(self._check, every=5.0, timeout=1.0, failures=2)
        if node.check == "reopen" and node.kind != "step":
            check = Check(self._check, every=5.0, timeout=1.0, then="reopen")
        return resource(
            self._step if node.kind == "step" else self._open,
            name=self.name,
            needs=[need.recipe for need in self.needs],
            startup="blocking" if node.blocking else "background",
            required=node.required,
            enabled=node.kind != "skipped",
            timeout=OPEN_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            retry=Retry(wait=wait_fixed(2), stop=stop),
            check=check if node.check else None,
        )

    def below(self) -> Iterator[Actor]:
        """Yield what is open while it is, through steps that ran."""
        for need in self.needs:
            if need.node.kind == "held":
                yield need
            if need.node.kind == "step":
                yield from need.below()

    async def _step(self, *values: object) -> object:
        self._look_below(values)
        await self._suffer("open")
        self.value = f"{self.name} done"
        return self.value

    async def _open(self, *values: object) -> AsyncGenerator[object, None]:
        task = anyio.get_current_task().id
        self._look_below(values)
        await self._suffer("open")
        self._look_below(values)
        self.opened += 1
        self.live = True
        self.value = f"{self.name} no. {self.opened}"
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._wait_for_crash)
                try:
                    yield self.value
                finally:
                    group.cancel_scope.cancel()
        finally:
            await self._close(task)

    async def _close(self, task: int) -> None:
        self._look_above()
        self.live = False
        self.crash = None
        try:
            await self._suffer("close")
        finally:
            self.closed += 1
            if anyio.get_current_task().id != task:
                self.world.complain(f"{self.name} was left in another task")

    async def _wait_for_crash(self) -> None:
        self.crash = anyio.Event()
        await self.crash.wait()
        raise self.world.error(f"{self.name} crashed")

    async def _suffer(self, what: str) -> None:
        await checkpoint()
        opening = what == "open"
        fate = self.fates[what].pop(0) if self.fates[what] else "fine"
        if fate == "hangs":
            await anyio.sleep_forever()
        if fate == "dawdles":
            await anyio.sleep(1.5)
        if fate == "fails":
            raise self.world.error(f"{self.name} does not {what}", moot=opening)
        if fate == "is hopeless":
            raise self.world.error(f"{self.name} never does", ImportError, moot=True)

    async def _check(self, value: object) -> bool:
        if value != self.value or not (self.live or self.node.kind == "step"):
            self.world.complain(f"{self.name} is checked with {value}")
        await checkpoint()
        if self.health == "hangs":
            await anyio.sleep_forever()
        if self.health == "fails":
            is_up = self.name in self.world.guard.state
            raise self.world.error(f"{self.name} is unwell", moot=not is_up)
        return self.health != "is false"

    def _look_below(self, values: Sequence[object]) -> None:
        absent = [need.name for need in self.below() if not need.live]
        if absent:
            self.world.complain(f"{self.name} opens without {absent}")
        wanted = [None if n.node.kind == "skipped" else n.value for n in self.needs]
        if list(values) != wanted:
            self.world.complain(f"{self.name} is given {values} instead of {wanted}")

    def _look_above(self) -> None:
        users = [a.name for a in self.world.actors if a.live and self in a.below()]
        if users:
            self.world.complain(f"{self.name} closes under {users}")
        requests = self.world.in_flight
        if self.world.guard.phase is Phase.STOPPING and requests:
            self.world.complain(f"{self.name} closes under {requests} requests")


class World:
    """A guard, what it guards and who runs it.

    Attributes:
        wrong: What was found wrong.
        injected: Every error that was raised on purpose.
        in_flight: How many requests are in the app, on paths that need something.
    """

    def __init__(self, nodes: Sequence[Node], delay: float) -> None:
        self.wrong: list[str] = []
        self.injected: list[BaseException] = []
        self.heard: set[int] = set()
        self.moot: set[int] = set()
        self.in_flight = 0
        self.delay = delay
        self.actors: list[Actor] = []
        for number, node in enumerate(nodes):
            self.actors.append(Actor(self, number, node))
        self.first = self.actors[0]
        recipes = [actor.recipe for actor in self.actors]
        self.guard = LifespanGuard(
            self._app,
            recipes,
            app_lifespan="off",
            gate=Gate(needs={"/first": [self.first.recipe], "/open": ()}),
            drain=Drain(delay=delay, grace=GRACE, signals=(signal.SIGTERM,)),
            shutdown_timeout=SHUTDOWN_TIMEOUT,
            observers=[self._hear],
        )
        self.server = MemoryServer(self.guard)
        self.requests: list[anyio.Event] = []
        self.answers: Counter[int | None] = Counter()
        self.scope = anyio.CancelScope()
        self.stop = anyio.Event()
        self.hosted = False

    def complain(self, text: str) -> None:
        self.wrong.append(text)

    def error(
        self, text: str, kind: type[Exception] = InjectedError, *, moot: bool = False
    ) -> Exception:
        """Make an error; one that is *moot* need not be heard of after a stop."""
        error = kind(text)
        self.injected.append(error)
        if moot:
            self.moot.add(id(error))
        return error

    def unheard(self) -> list[BaseException]:
        """Return the errors that nobody was told of."""
        return [error for error in self.injected if id(error) not in self.heard]

    # Who runs it

    async def host(self) -> None:
        """Be the server's process, from one startup to the next shutdown."""
        self.hosted = True
        self.stop, self.scope = anyio.Event(), anyio.CancelScope()
        self.server = MemoryServer(self.guard)
        before = signal.signal(signal.SIGTERM, self.on_signal)
        try:
            with self.scope:
                async with self.server:
                    await self.stop.wait()
        except Exception as error:
            if not _is_ours(error):
                self.complain(f"the server saw {error!r} from {error.__cause__!r}")
        finally:
            signal.signal(signal.SIGTERM, before)
            self.injected = [e for e in self.injected if id(e) not in self.moot]
            self.hosted = False

    def on_signal(self, signum: int, frame: object) -> None:
        """Be a server's handler."""
        self.stop.set()

    # Who asks

    async def ask(self, path: str) -> None:
        """Make a request, which stays until it is let go."""
        request: Request = self.server.http(path)
        await request.run()
        self.answers[request.status] += 1
        if request.status not in (200, 503):
            self.complain(f"{path} was answered {request.status}")

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        needed = self.needed(scope["path"])
        state = scope["state"]
        absent = [
            actor.name
            for actor in needed
            if state.get(actor.name) != actor.value
            or (actor.node.kind == "held" and not actor.live)
        ]
        if absent:
            self.complain(f"{scope['path']} was let in without {absent}")
        go = anyio.Event()
        self.requests.append(go)
        self.in_flight += bool(needed)
        try:
            await send({"type": "http.response.start", "status": 200})
            await go.wait()
            await send({"type": "http.response.body"})
        finally:
            self.in_flight -= bool(needed)

    def needed(self, path: str) -> list[Actor]:
        """Return what a path needs that may be there."""
        by_path: dict[str, Callable[[Actor], bool]] = {
            "/": lambda actor: actor.node.required,
            "/first": lambda actor: actor is self.first,
            "/open": lambda actor: False,
        }
        there = (a for a in self.actors if a.node.kind != "skipped")
        return [actor for actor in there if by_path[path](actor)]

    # Who looks on

    async def look(self) -> None:
        """Look whether everything is as it must be while nothing moves."""
        report = self.guard.report()
        phases = {r.name: r.phase for r in report.resources}
        for actor in self.actors:
            self._look_at(actor, phases[actor.name])
        ready = report.phase is Phase.SERVING and report.paused is None
        fine = (ResourcePhase.UP, ResourcePhase.SKIPPED)
        required = (a for a in self.actors if a.node.required)
        ready = ready and all(phases[a.name] in fine for a in required)
        for path, expected in {"/livez": 200, "/readyz": 200 if ready else 503}.items():
            status = (await self.server.get(path)).status
            if status != expected:
                self.complain(f"{path} says {status}")

    def _look_at(self, actor: Actor, phase: ResourcePhase) -> None:
        up = phase in (ResourcePhase.UP, ResourcePhase.FAILING)
        held = actor.node.kind == "held"
        if held and up and not actor.live:
            self.complain(f"{actor.name} is said to be {phase.value}")
        over = (ResourcePhase.PENDING, ResourcePhase.WAITING, ResourcePhase.FAILED)
        if phase in (*over, ResourcePhase.CLOSED, ResourcePhase.SKIPPED) and actor.live:
            self.complain(f"{actor.name} is open while it is {phase.value}")
        if up is not (actor.name in self.guard.state):
            self.complain(f"{actor.name} is {phase.value}: {self.guard.state}")

    async def look_for_the_late(self) -> None:
        """Look whether all is up that has not given up, if there was time for it."""
        report = self.guard.report()
        over = (ResourcePhase.UP, ResourcePhase.SKIPPED, ResourcePhase.FAILED)
        late = [r for r in report.resources if r.phase not in over]
        if late and report.phase is Phase.SERVING:
            self.complain(f"these are late: {late}")
        if self.unheard():
            self.complain(f"nobody heard of {self.unheard()}")

    def look_back(self) -> None:
        """Look whether it has come to an end."""
        if self.hosted:
            self.complain(f"it has not stopped: {self.guard.report()}")
        elif self.guard.phase not in (Phase.IDLE, Phase.STOPPED, Phase.FAILED):
            self.complain(f"the guard is {self.guard.phase} for ever")
        if self.unheard():
            self.complain(f"nobody heard of {self.unheard()}")
        for actor in self.actors:
            if actor.live or actor.opened != actor.closed:
                self.complain(
                    f"{actor.name} was opened {actor.opened} times and closed"
                    f" {actor.closed} times"
                )

    def _hear(self, event: Event) -> None:
        error = getattr(event, "error", None)
        if isinstance(error, BaseException):
            self.heard.update(map(id, all_of(error)))


def all_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it holds and what led to it."""
    if error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for leaf in error.exceptions:
                yield from all_of(leaf)
        yield from all_of(error.__cause__)
        yield from all_of(error.__context__)


def _is_ours(error: Exception) -> bool:
    """Whether it is what a server is to see of what went wrong here."""
    ours = (CloseFailedError, StartupFailedError, StopRequestedError)
    return isinstance(error, LifespanError) and isinstance(error.__cause__, ours)
