"""One life of a guard whose scopes, app and server do whatever a seed says.

A life has some dozens of calls. What a scope is made of, what the app does with it,
what ``receive`` and ``send`` do, when a call is cancelled and when the life ends is
drawn; what is noted are the ways in which that broke an invariant.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import anyio
from tenacity import wait_fixed

from asgi_lifespan_guard import (
    Drain,
    Gate,
    IllegalTransitionError,
    LifespanGuard,
    Phase,
    Resource,
    ResourcePhase,
    Retry,
    lifespan_of,
    resource,
)
from tests.chaos.loops import Turns, run


OPEN_PATH = "/open"


class TheirsError(Exception):
    """What an app or a server raises."""


class TheirsGraveError(BaseException):
    """The same, and no `Exception`."""


class Luck:
    """Draws from one seed."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def one(self, *choices: Any) -> Any:
        """Draw one of *choices*."""
        return self.random.choice(choices)

    def chance(self, of: float) -> bool:
        """Draw whether something happens."""
        return self.random.random() < of

    def moment(self, longest: float) -> float:
        """Draw some seconds; often none."""
        return self.random.uniform(0.0, longest) if self.chance(0.3) else 0.0


NOT_TEXT: tuple[Any, ...] = (None, 5, b"/", [], {}, object())
PATHS = ("/", "/x", OPEN_PATH, "/open/x", "/livez", "/readyz", "/readyz/db", "/api", "")
HEADERS: tuple[Any, ...] = (
    [],
    [(b"accept", b"text/event-stream")],
    [(b"accept", b"text/html")],
    [(b"host", b"h"), (b"accept", b"*/*")],
    None,
    5,
    [b"accept"],
    [(b"accept",)],
    [("accept", "text/html")],
    [(b"accept", None)],
)
REQUEST = {"type": "http.request", "body": b"", "more_body": False}
RECEIVED: tuple[Any, ...] = (
    REQUEST,
    REQUEST,
    {"type": "http.request", "body": b"x" * 70_000, "more_body": True},
    {"type": "http.disconnect"},
    {"type": "websocket.connect"},
    {"type": "websocket.receive", "text": "t"},
    {"type": "websocket.disconnect", "code": 1000},
    {"type": "http.request", "body": None},
    {"type": "odd"},
    {"type": None},
    {},
    None,
    5,
)
START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"x", "more_body": False}
SENT: tuple[Any, ...] = (
    START,
    BODY,
    {"type": "http.response.start", "status": 200},
    {"type": "http.response.body", "more_body": True},
    {"type": "websocket.accept"},
    {"type": "websocket.send", "text": "t"},
    {"type": "websocket.close"},
    {"type": "odd"},
    {},
    None,
)


def drawn_scope(luck: Luck, states: list[Any]) -> Any:
    """Draw a scope: mostly a proper one, of which something may be odd or missing."""
    if luck.chance(0.02):
        return luck.one(None, 5, "http", [], ())
    scope = {
        "type": luck.one("http", "http", "http", "websocket", "websocket", "mqtt"),
        "asgi": {"version": "3.0"},
        "http_version": luck.one("1.1", "2"),
        "method": luck.one("GET", "POST", "HEAD"),
        "path": luck.one("", "/api") + luck.one(*PATHS),
        "root_path": luck.one("", "", "/api", "/api/"),
        "query_string": luck.one(b"", b"verbose", b"exclude=db", b"\xff%"),
        "headers": luck.one(*HEADERS[:4]),
        "extensions": luck.one({}, {"websocket.http.response": {}}),
    }
    if luck.chance(0.6):
        scope["state"] = dict(luck.one({}, *states, *states))
    if luck.chance(0.3):
        for key in luck.random.sample(sorted(scope), luck.one(1, 1, 2, 4)):
            if luck.chance(0.5):
                del scope[key]
            else:
                scope[key] = luck.one(*(HEADERS if key == "headers" else NOT_TEXT))
    return scope


class Life:
    """One guard, its server and its app.

    Attributes:
        faults: What was broken.
        calls: How many calls were made.
    """

    def __init__(self, seed: str, backend: str) -> None:
        self.luck = Luck(seed)
        self.backend = backend
        self.faults: list[str] = []
        self.calls = 0
        self._theirs: set[int] = set()
        self._raised: list[BaseException] = []
        self._depth = 0
        self._registered = self.luck.one("nothing", "db", "db", "away", "optional")
        self.guard = self._drawn_guard()
        self._state: dict[str, Any] = {}
        self._said: list[str] = []
        self._states: list[dict[str, Any]] = []
        self._stopping = False
        self._lifespans: list[anyio.CancelScope] = []

    def play(self) -> None:
        """Live it, in virtual time."""
        turns = Turns()
        run(self._main, self.backend, self.luck.random.getrandbits(32), turns, bool)
        self._check_rest()

    # The guard, and what is behind it

    def _drawn_guard(self) -> LifespanGuard:
        luck = self.luck
        options: dict[str, Any] = {}
        if luck.chance(0.4):
            options["drain"] = None
        else:
            grace = luck.one(0.0, 0.5, 3.0)
            endless = luck.one([], ["/x"], ["/"])
            options["drain"] = Drain(grace=grace, endless=endless, signals=())
        gate = {"wait": luck.one(0.0, 0.5, 5.0), "max_waiting": luck.one(0, 1, 1000)}
        options["gate"] = Gate(**gate, needs={OPEN_PATH: ()})
        if luck.chance(0.2):
            options["probes"] = None
        options["lazy_start"] = self._lazy = luck.chance(0.1)
        background = lifespan_of(retry=Retry(wait=wait_fixed(0.1)))
        options["app_lifespan"] = luck.one("blocking", "blocking", "off", background)
        return LifespanGuard(self._app, self._drawn_resources(), **options)

    def _drawn_resources(self) -> list[Resource[Any]]:
        if self._registered == "nothing":
            return []
        wait = self.luck.one(0.1, 2.0, 100.0)
        made = resource(
            self._db,
            name="db",
            required=self._registered != "optional",
            retry=Retry(wait=wait_fixed(wait)),
        )
        return [made]

    async def _db(self) -> AsyncGenerator[str, None]:
        await anyio.sleep(self.luck.moment(1.0))
        if self._registered == "away" or self.luck.chance(0.3):
            raise self._error(TheirsError)
        async with anyio.create_task_group() as group:
            if self.luck.chance(0.5):
                group.start_soon(self._crash)
            try:
                yield "pool"
            finally:
                group.cancel_scope.cancel()

    async def _crash(self) -> None:
        await anyio.sleep(self.luck.moment(5.0))
        raise self._error(TheirsError)

    def _error(self, kind: Any) -> Any:
        """Make an error of theirs, and know it again."""
        error = kind("theirs")
        self._raised.append(error)  # Kept, so that its id stays its own.
        self._theirs.add(id(error))
        return error

    async def _app(self, scope: Any, receive: Any, send: Any) -> Any:
        if isinstance(scope, dict) and scope.get("type") == "lifespan":
            return await self._lifespan(receive, send)
        self._check_gate(scope)
        stubborn = self.luck.chance(0.1)
        try:
            return await self._do_something(scope, receive, send)
        except anyio.get_cancelled_exc_class():
            if stubborn:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(self.luck.moment(2.0))
            raise

    async def _lifespan(self, receive: Any, send: Any) -> None:
        if self.luck.chance(0.3):
            raise NotImplementedError
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _do_something(self, scope: Any, receive: Any, send: Any) -> Any:
        luck = self.luck
        for _ in range(luck.one(0, 1, 2, 3, 5)):
            match luck.one(
                "receive", "send", "send", "sleep", "again", "raise", "both"
            ):
                case "receive":
                    await receive()
                case "send":
                    await send(luck.one(*SENT))
                case "sleep":
                    await anyio.sleep(luck.moment(4.0))
                case "again":
                    await self._again(scope, receive, send)
                case "raise":
                    raise self._error(luck.one(TheirsError, TheirsGraveError))
                case "both":
                    async with anyio.create_task_group() as group:
                        group.start_soon(partial(self._quietly, receive))
                        await anyio.sleep(luck.moment(1.0))
                        group.cancel_scope.cancel()
        return luck.one(None, None, "an odd answer")

    async def _quietly(self, receive: Any) -> None:
        try:
            await receive()
        except (TheirsError, TheirsGraveError, OSError):
            return

    async def _again(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the guard from within a call of it."""
        if self._depth < 3:
            self._depth += 1
            try:
                await self.guard(self._scope(), receive, send)
            finally:
                self._depth -= 1

    def _check_gate(self, scope: Any) -> None:
        """Note a request that passes a closed gate, or lacks what is there."""
        kind = scope.get("type") if isinstance(scope, dict) else None
        serving = self.guard.phase is Phase.SERVING and self._registered != "nothing"
        if (
            serving
            and kind in ("http", "websocket")
            and scope.get("state") is self._state
        ):
            self.faults.append(f"shares the lifespan's state: {scope!r}")
        if kind not in ("http", "websocket") or not isinstance(kind, str):
            return
        if self._registered not in ("db", "away") or self._is_open(scope):
            return
        (db,) = (r for r in self.guard.report().resources if r.name == "db")
        if db.phase is not ResourcePhase.UP or self.guard.phase is Phase.STOPPED:
            self.faults.append(f"passed a closed gate: {scope!r}, {db.phase}")
        elif (scope.get("state") or {}).get("db") != "pool":
            self.faults.append(f"without its state: {scope!r}")

    def _is_open(self, scope: Any) -> bool:
        path, root = scope.get("path"), scope.get("root_path")
        if not isinstance(path, str):
            return False
        below = [path]
        if isinstance(root, str) and root and path.startswith("/api"):
            below.append(path[len("/api") :])
        return any(p == OPEN_PATH or p.startswith(f"{OPEN_PATH}/") for p in below)

    # The server

    def _scope(self) -> Any:
        """Draw a scope; its state may be an old one, or the lifespan's own."""
        self._states.append(dict(self._state))
        scope = drawn_scope(self.luck, self._states[-3:])
        if isinstance(scope, dict) and self.luck.chance(0.05):
            scope["state"] = self._state
        return scope

    async def _main(self) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(self.luck.one(0, 1, 1, 1, 1, 1, 1, 1, 2)):
                group.start_soon(self._live)
            await anyio.sleep(self.luck.moment(0.5))
            async with anyio.create_task_group() as callers:
                for _ in range(self.luck.one(5, 20, 40)):
                    callers.start_soon(self._call)
                    await anyio.sleep(self.luck.moment(0.3))
                    if self.luck.chance(0.02):
                        self.guard.begin_drain()
                if self.luck.chance(0.5):
                    self._stopping = True
                await anyio.sleep(20.0)
                callers.cancel_scope.cancel()
            if self.luck.chance(0.1):
                for lifespan in self._lifespans:
                    lifespan.cancel()
            self._stopping = True
        tasks = asyncio.all_tasks() if self.backend == "asyncio" else set()
        if len(tasks) > 1 and not self._lazy:  # Which goes on until the loop ends.
            self.faults.append(f"left behind: {tasks}")

    async def _live(self) -> None:
        scope = anyio.CancelScope()
        self._lifespans.append(scope)
        inbox = [{"type": "lifespan.startup"}]
        if self.luck.chance(0.2):
            inbox.insert(self.luck.one(0, 1), self.luck.one({}, None, {"type": "odd"}))

        async def receive() -> Any:
            while not inbox:
                await anyio.sleep(0.1)
                inbox.extend([{"type": "lifespan.shutdown"}] * self._stopping)
            return inbox.pop(0)

        async def send(message: Any) -> None:
            self._said.append(message["type"])

        lifespan = {"type": "lifespan", "asgi": {"version": "3.0"}}
        if self.luck.chance(0.9):
            lifespan["state"] = self._state
        try:
            with scope:
                await self.guard(lifespan, receive, send)
        except IllegalTransitionError:
            return  # It was the second one.
        except Exception as error:
            self.faults.append(f"the lifespan raised {error!r}\n{_where(error)}")

    async def _call(self) -> None:
        self.calls += 1
        scope, luck = self._scope(), self.luck
        receive, send = partial(self._receive), partial(self._send)
        cancels = luck.moment(5.0) if luck.chance(0.3) else None
        whole = self.guard if luck.chance(0.95) else self.guard.probes_app
        call = partial(self._judged, scope, whole, receive, send)
        if cancels is None:
            await call()
        elif self.backend == "asyncio" and luck.chance(0.7):
            await self._cancelled_natively(call, cancels)
        else:
            with anyio.move_on_after(cancels):
                await call()

    async def _cancelled_natively(self, call: Any, after: float) -> None:
        """Cancel it as a server does: once, or once more."""
        task = asyncio.ensure_future(call())
        try:
            for _ in range(self.luck.one(1, 1, 2)):
                await asyncio.wait([task], timeout=after)
                task.cancel()
            await asyncio.wait([task])
        finally:
            task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([task])

    async def _judged(self, scope: Any, app: Any, receive: Any, send: Any) -> None:
        before = len(self._raised)
        try:
            await app(scope, receive, send)
        except BaseException as error:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise
            if app is self.guard or before != len(self._raised):
                self._judge(scope, error)

    def _judge(self, scope: Any, error: BaseException) -> None:
        """Note what was raised by nobody of them."""
        leaves = [error]
        while leaves:
            leaf = leaves.pop()
            if isinstance(leaf, BaseExceptionGroup):
                leaves.extend(leaf.exceptions)
            elif id(leaf) not in self._theirs:
                self.faults.append(f"{leaf!r} for {scope!r}\n{_where(leaf)}")

    async def _receive(self) -> Any:
        luck = self.luck
        if luck.chance(0.5):
            await anyio.sleep(luck.moment(2.0))
        await self._be_odd()
        if luck.chance(0.05):
            await anyio.sleep_forever()
        return luck.one(*RECEIVED)

    async def _send(self, message: Any) -> None:
        luck = self.luck
        if luck.chance(0.2):
            await anyio.sleep(luck.moment(2.0))
        await self._be_odd()

    async def _be_odd(self) -> None:
        """Call the app from within a callable of the server's, or fail, or neither."""
        if self.luck.chance(0.02):
            await self._again(None, self._receive, self._send)
        if self.luck.chance(0.1):
            raise self._error(self.luck.one(TheirsError, OSError))

    def _check_rest(self) -> None:
        """Note what is left when everything is over."""
        guard: Any = self.guard
        rest = {
            "live": len(guard._in_flight.live),
            "watched": len(guard._in_flight._watched),
            "held": guard._requests.gate._held,
            "queues": len(guard._requests.gate._waiting),
            "news": len(guard._news),
            "watchers": len(guard._watchers),
        }
        left = {name: count for name, count in rest.items() if count}
        if left:
            self.faults.append(f"left behind: {left}")
        if guard.phase not in (Phase.IDLE, Phase.STOPPED, Phase.FAILED):
            self.faults.append(f"ended in {guard.phase}")


def _where(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))


def played(seed: str, watch: Callable[[Life], None] = lambda _: None) -> Life:
    """Return the life of *seed*, played to its end; the backend is drawn, too."""
    life = Life(seed, Luck(f"backend of {seed}").one("asyncio", "trio"))
    watch(life)
    life.play()
    return life
