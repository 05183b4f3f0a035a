"""The door: `LifespanGuard` dispatches on the type of the scope.

Here, and on the door's other floors (`_admission`, `_controls`, `_plan`, `_lifetime`,
`_cycle`, `_hosting`, `_drain`, `_stop_signals`, `_lazy`), the wings meet: each is
handed plain things of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakSet

from ._admission import Admission
from ._asgi.gate import GateKeeper
from ._asgi.loading import LoadedApp
from ._asgi.paths import app_path
from ._asgi.probes import ProbeDesk
from ._asgi.responses import closing
from ._asgi.state import Stamp, StateBoard
from ._asgi.types import ASGIApp, Receive, Scope, Send
from ._controls import Controls
from ._errors import ConfigurationError, GuardNotFoundError
from ._lazy import LazyStart
from ._lifetime import Lifetime
from ._phases import Phase
from ._plan import DEFAULT_DRAIN, DEFAULT_PROBES, AppLifespan, Plan
from ._resources.resource import Resource
from ._settings import Drain, Gate, Probes
from ._state import KEY, Source, state_of
from ._tasks.backend import current_task, on_trio
from ._tasks.notice import Notice
from .events import Event, Observer, ResourcePhaseChanged
from .observers.logging import log, log_critical, log_failure


_NO_STATE: Mapping[str, Any] = {KEY: None}
"""Stands in for every state where nothing is registered, and no state is stamped."""

_serving: WeakSet[LifespanGuard]


class LifespanGuard(Controls):
    """An ASGI app around an ASGI app: opens its resources behind an open port.

    Args:
        app: What is wrapped: an ASGI 3 app, an ASGI 2 class, or ``"module:attribute"``,
            which is imported in a worker thread once the port is open.
        resources: What it needs, made by `resource`.
        app_factory: Whether *app* (or what the string names) is called to make the app:
            a fresh one for each attempt to start it, for apps that cannot restart.
        app_lifespan: What becomes of the wrapped app's own lifespan. ``"blocking"``:
            forwarded before ``lifespan.startup.complete``, as without a guard;
            ``"background"``: run like a required resource, with retry; ``"off"``: not
            run; or a recipe, `lifespan_of(needs=[...])`. An imported app's is always
            in the background.
        gate: How requests are treated while what they need is away.
        probes: Where the guard answers for itself; ``None``: it takes no paths.
        drain: How requests are let out when the process is told to stop; ``None``:
            not at all, and no signal is touched.
        shutdown_timeout: Seconds for closing everything.
        lazy_start: Start on the first request, where no lifespan ever comes (daphne,
            ``httpx.ASGITransport``, Mangum), instead of refusing it.
        observers: Called with every event, beside the log.

    Attributes:
        draining: Given when the drain begins; has ``is_set()`` and ``wait()``, for
            handlers that want to say goodbye themselves.

    Raises:
        ConfigurationError: When anything of it is wrong. Logged as CRITICAL too:
            Starlette builds its middleware so late that servers swallow it.
    """

    draining: Notice

    def __init__(
        self,
        app: Any,
        resources: Sequence[Resource[Any]] = (),
        *,
        app_factory: bool = False,
        app_lifespan: AppLifespan | Resource[Any] = "blocking",
        gate: Gate | None = None,
        probes: Probes | None = DEFAULT_PROBES,
        drain: Drain | None = DEFAULT_DRAIN,
        shutdown_timeout: float = 15.0,
        lazy_start: bool = False,
        observers: Sequence[Observer] = (),
    ) -> None:
        try:
            loaded = LoadedApp(
                app,
                factory=app_factory,
                has_lifespan=app_lifespan != "off",
                used=self._use,
            )
            self._plan = Plan(
                resources,
                app_lifespan,
                gate,
                probes,
                drain,
                shutdown_timeout,
                loaded,
                lazy_start=lazy_start,
            )
        except ConfigurationError as error:
            log_critical(str(error))
            raise
        self._observers: tuple[Observer, ...] = (log, *observers)
        self.desk = ProbeDesk(self._plan.probes, self._plan.names, self.report)
        self._probe_paths = frozenset[str]() if probes is None else self.desk.paths
        self._board = StateBoard(self)
        self._app = loaded.current
        self._life = Lifetime(loaded, self._plan, self._board, self)
        self._admission = Admission(self._plan, self._life, self._board)
        judge = self._admission.judge
        self._keeper = GateKeeper(self._plan.gate, judge, self.observe)
        self.keep_gate = self._keeper.run
        self._lazy = LazyStart(self._life.run, self._life.is_idle)
        self._exchanges = self._life.exchanges
        self._live = None if drain is None else self._exchanges.live
        self.draining = self._life.drainer.begun
        self._loop: asyncio.AbstractEventLoop | None = None
        self._expected: Stamp | None = Stamp(self)
        self._any_state = _NO_STATE if self._plan.transparent else None
        self._shared: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one scope; pass on what is none of our business with the least work.

        A request may pass when its state carries the stamp that we expect, which no
        state does while a resource that somebody may need is away.
        """
        try:
            fast = (
                scope["path"] not in self._probe_paths
                and not scope["root_path"]
                and (state := self._any_state or scope["state"])[KEY] is self._expected
                and state is not self._shared
                and scope["type"] == "http"
            )
        except (KeyError, TypeError):
            fast = False
        if not fast:
            return await self._dispatch(scope, receive, send)
        live = self._live
        if live is None:
            return await self._app(scope, receive, send)
        task = current_task(self._loop)
        if task in live:
            return await self._exchanges.run(self._app, scope, receive, send)
        live[task] = scope, send
        try:
            await self._app(scope, receive, send)
        except BaseException as error:
            if not await self._exchanges.conclude(task, error):
                raise
        else:
            try:
                del live[task]
            except KeyError:  # a drain has taken it over
                await self._exchanges.settle(task)
        return None

    # Itself, seen from outside

    async def probes_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the probes as an ASGI app of its own: a private port, or a mount."""
        await self.desk.app(scope, receive, send)

    @classmethod
    def of(cls, source: Source) -> LifespanGuard:
        """Return the guard that let a request in.

        Args:
            source: The request, its WebSocket or its scope.

        Raises:
            GuardNotFoundError: When there is none. A guard with nothing registered
                leaves no trace in a scope; it is found while it is the only one that
                is serving in this process.
        """
        stamp = state_of(source).get(KEY)
        if isinstance(stamp, Stamp) and isinstance(stamp.guard, cls):
            return stamp.guard
        if len(_serving) == 1:
            return next(iter(_serving))
        raise GuardNotFoundError

    def observe(self, event: Event, /) -> None:
        """Tell every observer; one that raises is logged, and does not stop others."""
        if isinstance(event, ResourcePhaseChanged):
            self._look_again()
        for observer in self._observers:
            try:
                observer(event)
            except Exception as error:
                log_failure(observer, event, error)

    def phase_changed(self) -> None:
        """Act on a change of our own phase."""
        if self.phase is Phase.STARTING:
            self._loop = None if on_trio() else asyncio.get_running_loop()
        if self.phase is Phase.SERVING:
            _serving.add(self)
        elif self.phase is not Phase.DRAINING:
            _serving.discard(self)
        self._look_again()

    # One request

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_plain_probe(scope["path"]):
            await self.desk.answer(scope["path"], scope, send)
        elif scope["type"] == "lifespan":
            await self._life.run(scope, receive, send)
        elif scope["type"] in ("http", "websocket"):
            await self._look_closer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_plain_probe(self, path: str) -> bool:
        """Whether *path* is a probe's, without a root path, and nothing is special."""
        special = self._plan.lazy_start or self.phase is Phase.DRAINING
        return path in self._probe_paths and not special

    async def _look_closer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = app_path(scope)
        if self._plan.lazy_start:
            await self._start_lazily(path)
        draining = self.phase is Phase.DRAINING
        own_send = closing(scope, send) if draining else send
        if scope["type"] == "http" and path in self._probe_paths:
            await self.desk.answer(path, scope, own_send)
        elif self._life.drainer.refuses_streams and self._exchanges.is_endless(scope):
            await self._keeper.refuse_for_good(path, scope, receive, own_send)
        else:

            async def go(receive: Receive) -> None:
                await self._pass(scope, receive, send)

            await self._keeper.pass_or_refuse(path, scope, receive, own_send, go)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = self._admission.with_state(scope)
        if self._live is None:
            await self._app(scope, receive, send)
        else:
            await self._exchanges.run(self._app, scope, receive, send)

    async def _start_lazily(self, path: str) -> None:
        if path in self._probe_paths:
            self._lazy.kick()
        else:
            await self._lazy.wait()

    def _use(self, app: ASGIApp) -> None:
        self._app = app

    def _look_again(self) -> None:
        """Choose anew what lets a request pass; let the held ones know.

        A stamp that was never written is carried by no state: outside SERVING, and on
        trio, every request is looked at more closely.
        """
        self.desk.forget()
        self._shared = self._board.shared
        if not self._is_fast():
            self._expected = Stamp(self)
        else:
            self._expected = None if self._plan.transparent else self._board.stamp
        self._keeper.look_again()
        self._life.tell()

    def _is_fast(self) -> bool:
        supervisor = self._life.supervisor
        if self.phase is not Phase.SERVING or supervisor is None:
            return False
        tracked = self._live is None or self._loop is not None
        return tracked and supervisor.are_open(self._plan.needed_anywhere)


_serving = WeakSet()
