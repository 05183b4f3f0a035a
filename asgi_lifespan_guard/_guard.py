"""The ASGI app: `LifespanGuard` dispatches on the type of the scope.

What lives as long as the guard is here: its phase, and the fast path. What lives for
one start/stop cycle is a `Run`, and what is special about a request is in `Requests`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard
from weakref import WeakSet

import anyio

from ._asgi.in_flight import InFlight
from ._asgi.loading import LoadedApp
from ._asgi.paths import below, root_path_of
from ._asgi.probes import ProbeResponder
from ._asgi.reading import type_of
from ._asgi.state import PublishedState, Version
from ._asgi.types import ASGIApp, Receive, Scope, Send
from ._errors import ConfigurationError, GuardNotFoundError, NotReadyError
from ._lazy import LazyStart
from ._phases import TRANSITIONS, Lifecycle, Phase, ResourcePhase, Trigger
from ._plan import DEFAULT_DRAIN, DEFAULT_PROBES, AppLifespan, Plan
from ._redaction import redact
from ._report import Report, ResourceReport
from ._requests import Requests
from ._run import Run, Surroundings
from ._settings import Drain, Gate, Probes, check_flag
from ._state import KEY, HasScope, Source, scope_of, state_of
from ._tasks.backend import current_task, on_trio
from ._tasks.waiting import StateEvent, Waiters
from .events import Event, Observer, Paused, PhaseChanged, Resumed
from .observers._telling import Observers
from .observers.logging import Log, log_critical


if TYPE_CHECKING:
    from ._resources.resource import Resource


_NO_STATE: Mapping[str, Any] = {KEY: None}
"""Stands in for every state where nothing is registered, and no state is marked."""

_NOTHING = Version(None)
"""A version that is in no state."""

_OVER = frozenset({Phase.IDLE, Phase.STOPPED, Phase.FAILED})
_DRAINED = frozenset({Phase.DRAINING, Phase.STOPPING, Phase.STOPPED})

_serving: WeakSet[LifespanGuard]


class LifespanGuard:
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
        draining: Set from the beginning of the drain to the next start; has
            ``is_set()`` and ``wait()``, for handlers that want to say goodbye
            themselves.

    Raises:
        ConfigurationError: When anything of it is wrong. Logged as CRITICAL too:
            Starlette builds its middleware so late that servers swallow it.
    """

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
            check_flag("LifespanGuard", "app_factory", app_factory)
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
            if isinstance(app, LifespanGuard):
                self._plan.check_beside(app._plan)
            log = Log(quiet=self._plan.forwards_app)
            self._observe = Observers(log, observers)
        except ConfigurationError as error:
            log_critical(str(error))
            raise
        self._phase = Lifecycle("guard", TRANSITIONS, Phase.IDLE, self._moved)
        self._run: Run | None = None
        self._paused: str | None = None
        self._news = Waiters()
        self._watchers = Waiters()
        self.draining = StateEvent(lambda: self.phase in _DRAINED, self._watchers)
        self._set_up(loaded)
        self._set_up_fast_path(loaded)

    def _set_up(self, loaded: LoadedApp) -> None:
        plan = self._plan
        self._state = PublishedState(self)
        endless = () if plan.drain is None else plan.drain.endless
        self._in_flight = InFlight(endless, self._observe)
        self._probes = ProbeResponder(plan.probes, plan.names, self.report, self._news)
        self._probe_paths = self._probes.paths if plan.takes_paths else frozenset()
        self._requests = Requests(
            plan,
            self._phase,
            self._state,
            self._in_flight,
            self._probes,
            self._probe_paths,
            self._observe,
            lambda: self._app,
            lambda: self._run,
            LazyStart(self._live_alone, lambda: self._phase.allows(Trigger.START)),
            self._news,
        )
        self._surroundings = Surroundings(
            plan=plan,
            app=loaded,
            phase=self._phase,
            state=self._state,
            in_flight=self._in_flight,
            gate=self._requests.gate,
            access_log=self._probes.filter,
            news=self._news,
            watchers=self._watchers,
            observe=self._observe,
            begun=self._begun,
            check_state=self._check_state,
            changed=self._changed,
        )

    def _set_up_fast_path(self, loaded: LoadedApp) -> None:
        self._app = loaded.current
        untracked = self._plan.drain is None
        self._tracked = None if untracked else self._in_flight.live
        self._loop: asyncio.AbstractEventLoop | None = None
        self._expected: Version | None = _NOTHING
        self._root_path = ""
        self._own_paths: Set[str] = self._probe_paths
        self._any_state = _NO_STATE if self._plan.transparent else None
        self._shared: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Serve one scope; pass on what is none of our business with the least work.

        A request may pass when its state carries the version that we expect, which no
        state does while a resource that somebody may need is away.

        Returns:
            What the app returns, for servers that look at it.
        """
        try:
            fast = (
                (path := scope["path"]) not in self._own_paths
                and scope["root_path"] == self._root_path
                and (state := self._any_state or scope["state"])[KEY] is self._expected
                and state is not self._shared
                and scope["type"] == "http"
            )
        except (KeyError, TypeError):
            fast, path = False, ""
        if not fast:
            return await self._dispatch(scope, receive, send)
        live = self._tracked
        if live is None:
            try:
                return await self._app(scope, receive, send)
            except Exception as error:
                self._requests.suspect(path, self._root_path, error)
                raise
        task = current_task(self._loop)
        if task in live:
            return await self._dispatch(scope, receive, send)
        live[task] = scope, send, path
        try:
            returned = await self._app(scope, receive, send)
        except BaseException as error:
            self._requests.suspect(path, self._root_path, error)
            if not await self._in_flight.conclude(task, error):
                raise
            return None
        try:
            del live[task]
        except KeyError:  # a drain has taken it over
            await self._in_flight.settle(task)
        return returned

    # What users may ask of it

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
        version = state_of(source).get(KEY)
        if isinstance(version, Version) and isinstance(version.guard, cls):
            return version.guard
        if len(_serving) == 1:
            return next(iter(_serving))
        raise GuardNotFoundError

    @classmethod
    def endless(cls, source: HasScope | Scope) -> None:
        """Say that the answer to a request has no end of its own.

        The drain then cancels its handler as that of an event stream, and ends the
        answer with a proper last chunk. For what cannot be told from outside: an answer
        that a language model streams to a POST, events asked for with ``Accept: */*``.
        From any thread, as a plain ``def`` handler runs in one of its own.

        Args:
            source: The request or its scope.

        Raises:
            GuardNotFoundError: As `of` does.
        """
        guard, scope = cls.of(source), scope_of(source)
        run = guard._run
        if scope is not None and run is not None and guard._tracked is not None:
            run.home.call(partial(run.declare_endless, scope))

    @property
    def phase(self) -> Phase:
        """Where the guard stands in its life."""
        return self._phase.phase

    @property
    def ready(self) -> bool:
        """Whether traffic should come: serving, and every required resource up."""
        return self.report().ready

    @property
    def state(self) -> Mapping[str, Any]:
        """The values of all resources that are up now, by name; a live view.

        The same that requests find in ``scope["state"]``, for code that has no request
        at hand: ``db.get(guard)`` is the typed way to one of them.
        """
        return self._state.values

    def report(self) -> Report:
        """Return a snapshot of the guard and of every resource."""
        run = self._run
        return Report(
            phase=self.phase,
            paused=self._paused,
            resources=self._plan.unopened() if run is None else run.report(),
            last_error=None if run is None else run.last_error,
        )

    async def wait_ready(self, timeout: float) -> None:
        """Wait until the guard is ready, for *timeout* seconds at most.

        Raises:
            NotReadyError: When it is not by then, or cannot become so any more; names
                what is missing.
        """
        began = anyio.current_time()
        with anyio.move_on_after(timeout) as scope:
            await self._news.wait_until(lambda: _is_decided(self.report()))
        report = self.report()
        if not report.ready:
            waited = timeout
            if not scope.cancelled_caught:
                waited = round(anyio.current_time() - began, 1)
            phase = self.phase.value if report.paused is None else "paused"
            missing = [r.name for r in report.resources if _is_missing(r)]
            raise NotReadyError(waited, phase, missing)

    def pause(self, reason: str) -> None:
        """Withhold readiness (and nothing else) until `resume`, because of *reason*.

        From any thread, as `resume` and `retry_now`.
        """
        self._paused = paused = redact(reason)
        self._tell_at_home(Paused(paused))

    def resume(self) -> None:
        """Take `pause` back."""
        if self._paused is not None:
            self._paused = None
            self._tell_at_home(Resumed())

    def _tell_at_home(self, event: Event) -> None:
        """Have those look again who wait, on the event loop's own thread."""

        def tell() -> None:
            self._changed()
            self._observe(event)

        if self._run is None:
            tell()
        else:
            self._run.home.call(tell)

    def retry_now(self) -> None:
        """Cut short every resource's wait for its next attempt."""
        if self._run is not None:
            self._run.home.call(self._run.supervisor.retry_now)

    def suspect(
        self,
        *resources: Resource[Any],
        request: HasScope | Mapping[str, Any] | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Have resources checked now, because something says that they are away.

        An exception that leaves the app does this by itself; this is for one that a
        framework or a handler answers. From any thread, and cheap: a check that is on,
        or was put within the last tenth of a second, is not put again. A check that
        fails then counts twice.

        Args:
            resources: Which; none: what *request* needs, or, without one, all.
            request: The request that failed, or its scope.
            error: What it failed with: only those are checked that it is about
                (``Check(on=...)``).
        """
        run, scope = self._run, scope_of(request)
        if run is None:
            return
        if resources or scope is None:
            names = frozenset(r.name for r in resources) or frozenset(self._plan.names)
            run.home.call(partial(run.supervisor.suspect, names, error))
        else:
            run.home.call(partial(self._requests.suspect_of, scope, error))

    def begin_drain(self, reason: str = "begin_drain()") -> None:
        """Begin the drain, as a signal would; from any thread.

        For servers to which no signal comes (hypercorn's default worker, a server in
        a thread): call it from a route for a preStop hook. Returns at once, and does
        nothing where a drain is on, or the guard does not serve.

        Args:
            reason: Told to observers.
        """
        if self._run is not None:
            delay = 0.0 if self._plan.drain is None else self._plan.drain.delay
            self._run.home.call(partial(self._run.drain_by_hand, reason, delay))

    async def wait_drain(self, source: HasScope | Scope | None = None) -> None:
        """Wait until a drain has begun and nothing is in flight any more.

        It is a fit ``shutdown_trigger`` for hypercorn.

        Args:
            source: The request that waits, and which therefore is not waited for.
                Not needed where it waits in the very task that the server started.
        """
        key = self._in_flight.key_of(scope_of(source))
        while True:
            await self._news.wait_until(lambda: self.phase not in _OVER)
            if self._run is not None and await self._run.drainer.wait_over(key):
                return

    async def probes_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the probes as an ASGI app of its own: a private port, or a mount."""
        await self._probes.app(scope, receive, send)

    # One scope

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> Any:
        kind = type_of(scope)
        if kind == "http" and self._is_plain_probe(path := scope.get("path")):
            return await self._probes.answer(path, scope, send)
        if kind == "lifespan":
            return await self._live(scope, receive, send)
        if kind not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        self._have_seen(root_path_of(scope))
        return await self._requests.serve(scope, receive, send)

    def _have_seen(self, root_path: str) -> None:
        """Let the next request with the same root path be a fast one.

        Not while others are in flight that were let in by the fast path: what their
        paths lie below is known for all of them at once.
        """
        if self._root_path != root_path and not self._in_flight.live:
            self._root_path = self._in_flight.root_path = root_path
            self._own_paths = below(root_path, self._probe_paths)

    def _is_plain_probe(self, path: Any) -> TypeGuard[str]:
        """Whether *path* is a probe's, without a root path, and nothing is special."""
        if not isinstance(path, str) or path not in self._probe_paths:
            return False
        return not (self._plan.lazy_start or self.phase is Phase.DRAINING)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold one lifespan; a second one while the first is on is refused."""
        await Run(self._surroundings, scope).converse(receive, send)

    def _check_state(self, state: Mapping[str, Any]) -> None:
        """Judge the state that the lifespan has been given by who is around us.

        Raises:
            OpenedTwiceError: When a guard around this one opens the same resources.
        """
        version = state.get(KEY)
        outer = version.guard if isinstance(version, Version) else self
        assert isinstance(outer, LifespanGuard)
        if outer is not self and outer.phase not in _OVER:
            self._plan.check_beside(outer._plan)

    async def _live_alone(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold a lifespan that no server has asked for, and none will end."""
        await Run(self._surroundings, scope, alone=True).converse(receive, send)

    def _begun(self, run: Run) -> None:
        self._run = run
        self._news.wake()

    def _use(self, app: ASGIApp) -> None:
        self._app = app

    # What changes

    def _moved(self, old: Phase, new: Phase) -> None:
        if new is Phase.STARTING:
            self._loop = None if on_trio() else asyncio.get_running_loop()
        if new is Phase.SERVING:
            _serving.add(self)
        elif new is not Phase.DRAINING:
            _serving.discard(self)
        self._changed()
        self._watchers.wake()
        self._observe(PhaseChanged(old, new))

    def _changed(self) -> None:
        """Choose anew what lets a request pass; let those who wait look again.

        Outside SERVING, and on trio, every request is looked at more closely.
        """
        self._shared = self._state.shared
        if not self._is_fast():
            self._expected = _NOTHING
        else:
            self._expected = None if self._plan.transparent else self._state.version
        self._news.wake()

    def _is_fast(self) -> bool:
        if self.phase is not Phase.SERVING or self._run is None:
            return False
        can_track = self._tracked is None or self._loop is not None
        return can_track and self._run.supervisor.are_open(self._plan.needed_anywhere)


_serving = WeakSet()


def _is_decided(report: Report) -> bool:
    """Whether it is ready, or can become so only by a restart."""
    if report.phase in _OVER:
        return False
    given_up = (r.phase is ResourcePhase.FAILED for r in report.resources if r.required)
    return report.ready or any(given_up)


def _is_missing(resource: ResourceReport) -> bool:
    return resource.required and not resource.satisfied
