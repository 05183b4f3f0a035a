"""The guard's life: its phase, and what happens from one startup to the next shutdown.

A floor of the door, beside `_cycle` (what is open) and `_drain` (the way out).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Protocol

import anyio

from ._asgi.in_flight import Exchanges
from ._asgi.loading import LoadedApp
from ._asgi.probes import ProbeDesk
from ._asgi.server_lifespan import converse
from ._asgi.state import StateBoard
from ._asgi.types import Message, Receive, Scope, Send
from ._cycle import Cycle
from ._drain import Drainer
from ._errors import NotReadyError
from ._phases import TRANSITIONS, Lifecycle, Phase, Trigger
from ._plan import DEFAULT_DRAIN, Plan
from ._process.exit import end_process
from ._redaction import describe, redact
from ._report import Report, ResourceReport
from ._resources.supervisor import Supervisor
from ._stop_signals import StopSignals
from ._tasks.groups import transparent_task_group
from ._tasks.notice import Notice
from ._tasks.shielding import to_its_end
from .events import Event, Paused, PhaseChanged, ResourceGaveUp, Resumed


class Household(Protocol):
    """The guard, seen from its lifetime."""

    @property
    def desk(self) -> ProbeDesk: ...
    async def keep_gate(self) -> None: ...
    def observe(self, event: Event, /) -> None: ...
    def phase_changed(self) -> None: ...


class Lifetime:
    """One guard's phase and, while it runs, its resources and its drain.

    Args:
        app: The wrapped app, to be loaded where it has to be.
        plan: The guard's settings.
        board: Where values are shown to requests.
        guard: Told of events and changes.

    Attributes:
        exchanges: Requests in flight.
        drainer: The way out.
    """

    def __init__(
        self, app: LoadedApp, plan: Plan, board: StateBoard, guard: Household
    ) -> None:
        self._app = app
        self._plan = plan
        self._board = board
        self._guard = guard
        drain = plan.drain or DEFAULT_DRAIN
        self.exchanges = Exchanges(drain.endless, guard.observe)
        self.drainer = Drainer(drain, self.exchanges, guard.observe, self._limit)
        self._machine = Lifecycle("guard", TRANSITIONS, Phase.IDLE, self._changed)
        self._cycle: Cycle | None = None
        self._last_error: str | None = None
        self._last_resources: tuple[ResourceReport, ...] | None = None
        self._waiting: anyio.CancelScope | None = None
        self._left = False
        self._by_hand = False
        self._fatal = False
        self._paused: str | None = None
        self._news = Notice()

    @property
    def phase(self) -> Phase:
        """Where the guard stands."""
        return self._machine.phase

    @property
    def supervisor(self) -> Supervisor | None:
        """Who holds the resources, between startup and shutdown."""
        return None if self._cycle is None else self._cycle.supervisor

    def report(self) -> Report:
        """Return a photograph of the guard and of every resource."""
        resources = self._resource_reports()
        return Report(
            phase=self.phase,
            paused=self._paused,
            resources=resources,
            last_error=self._last_error,
        )

    # What users ask

    def pause(self, reason: str) -> None:
        """Withhold readiness."""
        self._paused = redact(reason)
        self._guard.phase_changed()
        self._guard.observe(Paused(self._paused))

    def resume(self) -> None:
        """Withhold readiness no more."""
        if self._paused is not None:
            self._paused = None
            self._guard.phase_changed()
            self._guard.observe(Resumed())

    def retry_now(self) -> None:
        """Cut short every wait for a next attempt."""
        if self.supervisor is not None:
            self.supervisor.retry_now()

    async def wait_ready(self, timeout: float) -> None:
        """Wait until it is ready, for *timeout* seconds at most.

        Raises:
            NotReadyError: When it is not by then, or cannot become so any more.
        """
        began = anyio.current_time()
        with anyio.move_on_after(timeout):
            while not self.report().ready:
                if self._cycle is not None and self._cycle.is_hopeless():
                    break
                await self._news.wait()
            timeout = round(anyio.current_time() - began, 1)
        report = self.report()
        if report.ready:
            return
        phase = self.phase.value if report.paused is None else "paused"
        missing = [r.name for r in report.resources if r.required and not r.satisfied]
        raise NotReadyError(timeout, phase, missing)

    def tell(self) -> None:
        """Have those who wait for readiness look again."""
        self._news.set()
        self._news.clear()

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the lifespan conversation.

        Raises:
            Exception: What made the startup or the shutdown fail, after the server
                was told.
        """
        observe = self._guard.observe
        if not self.is_idle():  # A second one, refused; the first goes on.
            return await converse(receive, send, self._service(scope, None), observe)
        self._left = self._fatal = False
        signals = self._signals()

        async def receive_until_left() -> Message:
            with anyio.CancelScope() as self._waiting:
                if not self._left:
                    return await receive()
            return {"type": "lifespan.shutdown"}

        try:
            service = self._service(scope, signals)
            await converse(receive_until_left, send, service, observe)
        finally:
            if signals is not None:
                signals.let_through()
            if self._fatal:
                end_process(1)

    # What a signal asks

    def is_idle(self) -> bool:
        """Whether it does not run."""
        return self.phase in (Phase.IDLE, Phase.STOPPED, Phase.FAILED)

    def is_starting(self) -> bool:
        """Whether blocking resources are being opened."""
        return self.phase is Phase.STARTING

    def is_serving(self) -> bool:
        """Whether it serves, and no drain has begun."""
        return self.phase is Phase.SERVING

    def abort_startup(self, reason: str) -> None:
        """End a startup that is not done."""
        assert self.supervisor is not None
        self.supervisor.abort(reason)

    def drain(
        self,
        reason: str,
        delay: float = 0.0,
        release: Callable[[], None] | None = None,
    ) -> None:
        """Begin the drain, if it serves."""
        if self.is_serving():
            self._machine.handle(Trigger.DRAIN)
            self.drainer.begin(reason, delay, release)

    def drain_by_hand(self, reason: str, delay: float) -> None:
        """Begin the drain, if it serves; nobody knows when the stop comes, then."""
        self._by_hand = self._by_hand or self.is_serving()
        self.drain(reason, delay)

    def end_process(self, reason: str) -> None:
        """Drain, close everything, and end the process with status 1."""
        self._fatal = True
        self.drain(reason)
        self.drainer.then(self.leave)

    def leave(self) -> None:
        """Stop without being told by the server."""
        self._left = True
        assert self._waiting is not None
        self._waiting.cancel()

    # One start/stop cycle

    @asynccontextmanager
    async def _service(
        self, scope: Scope, signals: StopSignals | None
    ) -> AsyncGenerator[Callable[[], None], None]:
        self._machine.handle(Trigger.START)
        self._last_error = None
        self._by_hand = False
        self.drainer.renew()
        guard = self._guard
        self._cycle = Cycle(self._app, scope, self._plan, self._board, self._observe)
        try:
            async with transparent_task_group() as group:
                group.start_soon(guard.keep_gate)
                group.start_soon(self.drainer.run)
                with guard.desk.filter.installed(), signals or nullcontext():
                    async with self._serving(self._cycle) as begin:
                        yield begin
                group.cancel_scope.cancel()
        except BaseException as error:
            self._last_error = describe(error)
            raise
        finally:
            self._end()

    @asynccontextmanager
    async def _serving(self, cycle: Cycle) -> AsyncGenerator[Callable[[], None], None]:
        async with cycle.running(self._plan.shutdown_timeout) as begin:
            self._machine.handle(Trigger.STARTED)
            if self._fatal:
                self.drain("a resource gave up")
            try:
                yield begin
            finally:
                try:
                    await self._drained()
                finally:
                    self._machine.handle(Trigger.STOP)

    async def _drained(self) -> None:
        """Let out what is still in flight, if no signal has had it done yet."""
        if self._plan.drain is None:
            self.drainer.begun.set()
            return
        self.drain("shutdown")
        self.drainer.hurry()
        await to_its_end(self.drainer.finish)
        await to_its_end(self.drainer.wait_latecomers)

    def _observe(self, event: Event) -> None:
        self._guard.observe(event)
        cycle = self._cycle
        if isinstance(event, ResourceGaveUp) and cycle and cycle.exits(event.resource):
            self.end_process(f"{event.resource} gave up")

    def _limit(self, delay: float) -> None:
        """Bound everything from now on by one deadline, if it is a stop."""
        drain = self._plan.drain
        if self.supervisor is not None and drain is not None and not self._by_hand:
            seconds = delay + drain.grace + self._plan.shutdown_timeout
            self.supervisor.close_by(anyio.current_time() + seconds)

    def _end(self) -> None:
        starting = self.phase is Phase.STARTING
        self._last_resources = self._resource_reports()
        self._cycle = None
        self._machine.handle(Trigger.FAIL if starting else Trigger.CLOSED)

    def _signals(self) -> StopSignals | None:
        drain = self._plan.drain
        return None if drain is None else StopSignals(drain, self, self.drainer)

    def _changed(self, old: Phase, new: Phase) -> None:
        self._guard.phase_changed()
        self._guard.observe(PhaseChanged(old, new))

    def _resource_reports(self) -> tuple[ResourceReport, ...]:
        if self._cycle is not None:
            return self._cycle.supervisor.report()
        return self._last_resources or self._plan.unopened()
