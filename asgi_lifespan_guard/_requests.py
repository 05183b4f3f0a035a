"""One request off the fast path: a probe, held, refused, or passed on with state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from math import inf
from typing import Any

from ._asgi.gate import GateKeeper, Verdict
from ._asgi.in_flight import InFlight
from ._asgi.paths import app_path
from ._asgi.probes import ProbeResponder
from ._asgi.reading import state_in
from ._asgi.responses import closing
from ._asgi.state import PublishedState
from ._asgi.types import ASGIApp, Receive, Scope, Send
from ._lazy import LazyStart
from ._phases import Lifecycle, Phase, Trigger
from ._plan import Plan
from ._resources.overrides import to_show
from ._run import Run
from ._state import KEY
from ._tasks.waiting import Waiters
from .events import Event, LifespanMissing, RequestRefused
from .observers._telling import Observers


class Requests:
    """What becomes of requests and WebSockets that cannot simply be passed on.

    Args:
        plan: The guard's settings.
        phase: The guard's own phase.
        state: Has the values that requests see.
        in_flight: Where requests are entered that go on to the app.
        probes: Answers what is asked on the probes' paths.
        probe_paths: Those paths, where they are the guard's to answer.
        observe: Told of held and refused requests.
        app: Returns the app that requests are to reach now.
        run: Returns the guard's current run, or its last one, if there was one.
        lazy: Starts the guard on the first request, where it is to be started so.
        news: Woken when what is open, or the phase, has changed.

    Attributes:
        gate: Holds requests until what they need is up.
    """

    def __init__(
        self,
        plan: Plan,
        phase: Lifecycle[Phase, Trigger],
        state: PublishedState,
        in_flight: InFlight,
        probes: ProbeResponder,
        probe_paths: Set[str],
        observe: Observers,
        app: Callable[[], ASGIApp],
        run: Callable[[], Run | None],
        lazy: LazyStart,
        news: Waiters,
    ) -> None:
        self.gate = GateKeeper(
            plan.gate, self.judge, plan.key_of, self._tell, news, observe.hears
        )
        self._observe = observe
        self._is_missing_told = False
        self._plan = plan
        self._phase = phase
        self._state = state
        self._in_flight = in_flight
        self._probes = probes
        self._probe_paths = probe_paths
        self._app = app
        self._run = run
        self._lazy = lazy

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Answer a request, or pass it on and return what the app returns."""
        returned: Any = None
        path = app_path(scope)
        if self._plan.lazy_start:
            await self._start_lazily(path)
        draining = self._phase.phase is Phase.DRAINING
        own_send = closing(scope, send) if draining else send
        if scope["type"] == "http" and path in self._probe_paths:
            await self._probes.answer(path, scope, own_send)
        elif self._phase.phase is not Phase.SERVING and self._is_too_late_for(
            scope, path
        ):
            await self.gate.refuse_for_good(path, scope, receive, own_send)
        else:

            async def go(receive: Receive) -> None:
                nonlocal returned
                returned = await self._pass(path, scope, receive, send)

            await self.gate.pass_or_refuse(path, scope, receive, own_send, go)
        return returned

    def _tell(self, event: Event) -> None:
        """Tell of what the gate does, and once of a lifespan that does not come."""
        self._observe(event)
        if isinstance(event, RequestRefused) and event.reason == "never started":
            if not self._is_missing_told:
                self._observe(LifespanMissing(event.path))
            self._is_missing_told = True

    def judge(self, path: str) -> Verdict:
        """Say whether a request for *path*, as the app sees it, may pass now."""
        key, needed = self._plan.needed_by(path)
        if not needed:
            return Verdict(True, key)
        phase, run = self._phase.phase, self._current_run()
        if run is None and needed <= to_show(self._plan.recipes)[0]:
            return Verdict(True, key)
        if phase is Phase.IDLE:
            return Verdict(False, key, inf, "never started")
        if run is None or phase is Phase.STOPPING:
            return Verdict(False, key, inf, "stopped")
        if phase is not Phase.STARTING and run.supervisor.are_open(needed):
            return Verdict(True, key)
        if phase is Phase.DRAINING:
            return Verdict(False, key, inf, "draining")
        return Verdict(False, key, run.supervisor.due_in(needed))

    def suspect(self, path: Any, root_path: str, error: BaseException) -> None:
        """Have what a request needs checked soon, for *error* has left the app.

        Its path is given as it was when it began: frameworks change the scope in place.
        """
        if isinstance(error, Exception):
            path = app_path({"path": path, "root_path": root_path})
            self._suspect_needs_of(path, error)

    def suspect_of(self, scope: Mapping[str, Any], error: BaseException | None) -> None:
        """Do the same for a request that may be in flight still, if it has failed."""
        path = self._in_flight.path_of(scope)
        self._suspect_needs_of(app_path(scope) if path is None else path, error)

    def _suspect_needs_of(self, path: str, error: BaseException | None) -> None:
        run = self._run()
        if run is not None:
            run.supervisor.suspect(self._plan.needed_by(path)[1], error)

    async def _pass(self, path: str, scope: Scope, receive: Receive, send: Send) -> Any:
        scope = self._with_state(scope)
        try:
            if self._plan.drain is None:
                return await self._app()(scope, receive, send)
            return await self._in_flight.run(self._app(), scope, receive, send)
        except Exception as error:
            self._suspect_needs_of(path, error)
            raise

    async def _start_lazily(self, path: str) -> None:
        if path in self._probe_paths:
            self._lazy.kick()
        else:
            await self._lazy.wait()

    def _is_too_late_for(self, scope: Scope, path: str) -> bool:
        """Whether it has no end of its own, and the drain is letting those out."""
        run = self._current_run()
        letting_out = run is not None and run.drainer.refuses_streams
        return letting_out and self._in_flight.is_endless(scope, path)

    def _current_run(self) -> Run | None:
        run = self._run()
        return run if run is not None and run.is_on else None

    # The state that a request sees

    def _with_state(self, scope: Scope) -> Scope:
        """Return *scope*, or a copy of it with a state that is up to date."""
        if self._plan.transparent:
            return scope
        if self._current_run() is None:
            return self._with_overrides(scope)
        state = state_in(scope)
        if state is None or state is self._state.shared or not self._is_current(state):
            return self._state.refreshed(scope)
        return scope

    def _with_overrides(self, scope: Scope) -> Scope:
        """Show what a test has put in instead of what is not open."""
        names, values = to_show(self._plan.recipes)
        if self._phase.phase is not Phase.IDLE or names:
            scope = self._state.refreshed(scope)
            scope["state"].update(values)
        return scope

    def _is_current(self, state: Mapping[str, Any]) -> bool:
        return state.get(KEY) is self._state.version
