"""The door: `LifespanGuard` dispatches on the type of the scope.

Here, and in `_cycle`, the wings meet: each is handed plain things of the other.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any
from weakref import WeakSet

from ._asgi.gate import GateKeeper, Verdict
from ._asgi.lifespan import converse
from ._asgi.paths import app_path
from ._asgi.probes import ProbeDesk
from ._asgi.state import Stamp, StateBoard
from ._asgi.types import Receive, Scope, Send
from ._concurrency.groups import transparent_task_group
from ._cycle import Cycle
from ._errors import ConfigurationError, GuardNotFoundError
from ._events import Event, Observer, PhaseChanged, ResourcePhaseChanged
from ._health import Report, ResourceReport
from ._phases import TRANSITIONS, Lifecycle, Phase, Trigger
from ._plan import DEFAULT_PROBES, AppLifespan, Plan, as_asgi3
from ._redaction import describe
from ._settings import Gate, Probes
from ._state import KEY, Source, state_of
from ._supervision.resource import Resource
from .observers.logging import log, log_critical, logger


_NO_STATE: Mapping[str, Any] = {}
_serving: WeakSet[LifespanGuard]


class LifespanGuard:
    """An ASGI app around an ASGI app: opens its resources behind an open port.

    Args:
        app: What is wrapped: an ASGI 3 app, or an ASGI 2 class.
        resources: What it needs, made by `resource`.
        app_lifespan: What becomes of the wrapped app's own lifespan. ``"blocking"``:
            forwarded before ``lifespan.startup.complete``, as without a guard;
            ``"background"``: run like a required resource, with retry; ``"off"``: not
            run; or a recipe, `lifespan_of(needs=[...])`.
        gate: How requests are treated while what they need is away.
        probes: Where the guard answers for itself; ``None``: it takes no paths.
        shutdown_timeout: Seconds for closing everything.
        observers: Called with every event, beside the log.

    Raises:
        ConfigurationError: When anything of it is wrong. Logged as CRITICAL too:
            Starlette builds its middleware so late that servers swallow it.
    """

    def __init__(
        self,
        app: Any,
        resources: Sequence[Resource[Any]] = (),
        *,
        app_lifespan: AppLifespan | Resource[Any] = "blocking",
        gate: Gate | None = None,
        probes: Probes | None = DEFAULT_PROBES,
        shutdown_timeout: float = 15.0,
        observers: Sequence[Observer] = (),
    ) -> None:
        try:
            self._app = as_asgi3(app)
            self._plan = Plan(resources, app_lifespan, gate, probes, shutdown_timeout)
        except ConfigurationError as error:
            log_critical(str(error))
            raise
        self._observers: tuple[Observer, ...] = (log, *observers)
        self._keeper = GateKeeper(self._plan.gate, self._judge, self.observe)
        self._desk = ProbeDesk(self._plan.probes, self.report)
        self._probe_paths = frozenset[str]() if probes is None else self._desk.paths
        self._probe_prefix = "\0" if probes is None else self._desk.prefix
        self._last_error: str | None = None
        self._cycle: Cycle | None = None
        self._last_resources: tuple[ResourceReport, ...] | None = None
        self._life = Lifecycle("guard", TRANSITIONS, Phase.IDLE, self._phase_changed)
        self._board = StateBoard(self)
        self._in_flight = 0
        self._expected: Stamp | None = None
        self._shared: Any = None
        self._decide_expectation()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope; pass on what is none of our business with the least work.

        A request may pass when its state carries the stamp that we expect, which no
        state does while a resource that somebody may need is away.
        """
        if scope["type"] == "http":
            state = scope.get("state", _NO_STATE)
            path = scope["path"]
            if (
                state.get(KEY) is self._expected
                and state is not self._shared
                and path not in self._probe_paths
                and not path.startswith(self._probe_prefix)
                and not scope.get("root_path")
            ):
                self._in_flight += 1
                try:
                    return await self._app(scope, receive, send)
                finally:
                    self._in_flight -= 1
            return await self._look_closer(scope, receive, send)
        if scope["type"] == "websocket":
            return await self._look_closer(scope, receive, send)
        if scope["type"] == "lifespan":
            return await converse(receive, send, self._service(scope), self.observe)
        return await self._app(scope, receive, send)

    # What users ask

    @property
    def phase(self) -> Phase:
        """Where the guard stands in its life."""
        return self._life.phase

    @property
    def ready(self) -> bool:
        """Whether traffic should come: serving, and every required resource up."""
        return self.report().ready

    @property
    def state(self) -> Mapping[str, Any]:
        """The values of all resources that are up now, by name."""
        return self._board.values

    def report(self) -> Report:
        """Return a photograph of the guard and of every resource."""
        return Report(
            phase=self.phase,
            resources=self._resource_reports(),
            last_error=self._last_error,
        )

    async def probes_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the probes as an ASGI app of its own: a private port, or a mount."""
        await self._desk.app(scope, receive, send)

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
            self._decide_expectation()
            self._keeper.look_again()
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                logger.exception("observer %r failed on %r", observer, event)

    # One request

    async def _look_closer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = app_path(scope)
        if scope["type"] == "http" and self._is_probe(path):
            await self._desk.answer(path, scope, send)
            return

        async def go(receive: Receive) -> None:
            await self._pass(scope, receive, send)

        await self._keeper.pass_or_refuse(path, scope, receive, send, go)

    def _is_probe(self, path: str) -> bool:
        return path in self._probe_paths or path.startswith(self._probe_prefix)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._plan.transparent and self.phase is not Phase.IDLE:
            state = scope.get("state")
            if state is None or state is self._shared or not self._is_current(state):
                scope = self._board.refreshed(scope)
        self._in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1

    def _is_current(self, state: Mapping[str, Any]) -> bool:
        return state.get(KEY) is self._board.stamp

    def _judge(self, path: str) -> Verdict:
        key, needed = self._plan.needed_by(path)
        if not needed:
            return Verdict(True, key)
        if self.phase is Phase.IDLE:
            return Verdict(False, key, inf, "never started")
        if self._cycle is None or self.phase is Phase.STOPPING:
            return Verdict(False, key, inf, "stopped")
        supervisor = self._cycle.supervisor
        if self.phase is not Phase.STARTING and supervisor.are_open(needed):
            return Verdict(True, key)
        return Verdict(False, key, supervisor.due_in(needed))

    def _decide_expectation(self) -> None:
        """Choose the stamp that lets a request pass without a closer look.

        ``None`` is what a state without any stamp answers with; a stamp that was never
        written is carried by no state.
        """
        self._shared = self._board.shared
        if self._plan.transparent and not self._plan.needed_anywhere:
            self._expected = None
        elif self._admits_everybody():
            self._expected = self._board.stamp
        else:
            self._expected = Stamp(self)

    def _admits_everybody(self) -> bool:
        if self.phase not in (Phase.SERVING, Phase.DRAINING) or self._cycle is None:
            return False
        return self._cycle.supervisor.are_open(self._plan.needed_anywhere)

    # One start/stop cycle

    @asynccontextmanager
    async def _service(self, scope: Scope) -> AsyncGenerator[Callable[[], None], None]:
        self._life.handle(Trigger.START)
        self._last_error = None
        self._cycle = Cycle(
            self._app, scope, self._plan.recipes, self._board, self.observe
        )
        try:
            async with transparent_task_group() as group:
                group.start_soon(self._keeper.run)
                with self._desk.filter.installed():
                    async with self._cycle.running(
                        self._plan.shutdown_timeout
                    ) as begin:
                        self._life.handle(Trigger.STARTED)
                        _serving.add(self)
                        try:
                            yield begin
                        finally:
                            self._stop()
                group.cancel_scope.cancel()
        except BaseException as error:
            self._last_error = describe(error)
            raise
        finally:
            self._end()

    def _stop(self) -> None:
        _serving.discard(self)
        self._life.handle(Trigger.STOP)

    def _end(self) -> None:
        starting = self.phase is Phase.STARTING
        self._last_resources = self._resource_reports()
        self._cycle = None
        self._life.handle(Trigger.FAIL if starting else Trigger.CLOSED)

    def _phase_changed(self, old: Phase, new: Phase) -> None:
        self._decide_expectation()
        self._keeper.look_again()
        self.observe(PhaseChanged(old, new))

    def _resource_reports(self) -> tuple[ResourceReport, ...]:
        if self._cycle is not None:
            return self._cycle.supervisor.report()
        return self._last_resources or self._plan.unopened()


_serving = WeakSet()
