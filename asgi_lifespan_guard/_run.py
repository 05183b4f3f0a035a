"""One start/stop cycle of a guard, born with the lifespan and thrown away with it.

What is open, the drain, and the order of the end: a startup that is not done is
aborted; what serves is drained, then closed; and where nobody else would end the
process afterwards, that is done last.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import anyio

from ._app import Hosting
from ._asgi.gate import GateKeeper
from ._asgi.in_flight import InFlight
from ._asgi.loading import LoadedApp
from ._asgi.probes import ProbeFilter
from ._asgi.server_lifespan import converse
from ._asgi.state import PublishedState
from ._asgi.types import Message, Receive, Scope, Send
from ._drain import Drainer
from ._errors import AppLifespanError, CloseFailedError, CloseTimeoutError
from ._frozen import Frozen
from ._main_process import stop_question, wait_told
from ._phases import Lifecycle, Phase, Trigger
from ._plan import DEFAULT_DRAIN, Plan, starts_as_without_us
from ._redaction import describe
from ._report import ResourceReport
from ._resources.factories import Form
from ._resources.overrides import to_open
from ._resources.resource import Resource
from ._resources.supervisor import Supervisor
from ._resources.upcalls import Upcalls
from ._signals import StopSignal, StopSignals, end_process
from ._state import APP
from ._tasks.backend import HomeThread, must_pass, now
from ._tasks.groups import transparent_task_group
from ._tasks.waiting import Waiters, to_its_end
from .events import GuardFailed, Observer


LAST_ANSWERS = 0.25
"""Seconds between letting the last request out and closing, where the process is ended
when that is done: a server may take an answer from the app before it has written it
(granian writes in threads of its own), and whatever is not written then is lost."""


class Surroundings(Frozen, kw_only=True):
    """What a guard hands to each of its runs, and keeps when they are over.

    Attributes:
        plan: The guard's settings.
        app: The wrapped app, to be loaded where it has to be.
        phase: The guard's own phase; moved by its runs only.
        state: Where values are shown to requests.
        in_flight: Requests in flight.
        gate: Lets held requests in when that changes.
        access_log: Hides probes in the servers' access logs.
        news: Woken when what is open, or the phase, has changed.
        watchers: Those who wait for the drain to begin.
        observe: Told of every event.
        begun: Called with a run when it has begun to be the guard's.
        changed: Called when what is open has changed.
        check_state: Called with the state that the server gave, to object to it.
    """

    plan: Plan
    app: LoadedApp
    phase: Lifecycle[Phase, Trigger]
    state: PublishedState
    in_flight: InFlight
    gate: GateKeeper
    access_log: ProbeFilter
    news: Waiters
    watchers: Waiters
    observe: Observer
    begun: Callable[[Run], None]
    changed: Callable[[], None]
    check_state: Callable[[Mapping[str, Any]], None]


class Run:
    """One cycle; made in the lifespan's task, which holds it to its end.

    Args:
        around: The guard's, handed down.
        scope: The lifespan scope that the server gave.
        alone: Whether no server holds it, so that nobody but a signal tells it to stop.

    Attributes:
        drainer: The way out.
        supervisor: Who holds the resources.
        last_error: Why it failed, redacted, if it has.
        home: The thread of its event loop, where everything is to happen.
    """

    def __init__(
        self, around: Surroundings, scope: Scope, *, alone: bool = False
    ) -> None:
        self._around = around
        self._plan = around.plan
        self._phase = around.phase
        self._state = around.state
        self._observe = around.observe
        self._scope = scope
        self._alone = alone
        self._merged: dict[str, tuple[str, ...]] = {}
        self._receiving: anyio.CancelScope | None = None
        self._last_act: Callable[[], None] | None = None
        self.last_error: str | None = None
        self.home = HomeThread()
        self._main_process = None if self._plan.drain is None else stop_question()
        self.supervisor = self._new_supervisor()
        self.drainer = Drainer(
            self._plan.drain or DEFAULT_DRAIN,
            self._plan.shutdown_timeout,
            around.in_flight,
            around.observe,
            self._leave_if_due,
        )

    @property
    def is_on(self) -> bool:
        """Whether it holds resources, or opens or closes them."""
        return self._phase.phase not in (Phase.IDLE, Phase.STOPPED, Phase.FAILED)

    def report(self) -> tuple[ResourceReport, ...]:
        """Return one report for each resource."""
        return self.supervisor.report()

    async def converse(self, receive: Receive, send: Send) -> None:
        """Hold the lifespan conversation with the server.

        Raises:
            BaseException: What made the startup or the shutdown fail, after the server
                was told.
        """

        async def receive_until_left() -> Message:
            with anyio.CancelScope() as self._receiving:
                if not self._is_to_leave():
                    return await receive()
            return {"type": "lifespan.shutdown"}

        try:
            await converse(receive_until_left, send, self._service(), self._observe)
        finally:
            if self._last_act is not None:
                self._last_act()

    # What others ask of it

    def drain_by_hand(self, reason: str, delay: float) -> None:
        """Begin the drain, if it serves; nobody knows when the stop comes, then."""
        self._begin_drain(reason, delay, is_stop=False)

    def declare_endless(self, scope: Mapping[str, Any]) -> None:
        """Note that a request's answer has no end, and end it if the drain is on."""
        ends = self.drainer.refuses_streams
        self._around.in_flight.declare_endless(scope, end=ends)

    def _stop(self, signal: StopSignal) -> None:
        """Do what *signal* asks for."""
        if self._phase.phase is Phase.STARTING:
            self.supervisor.abort(signal.name)
        if signal.ends_the_process:
            self._begin_drain(signal.name, signal.delay)
            if signal.pass_on is not None or self._alone:
                self._leave_with(signal.pass_on or _do_nothing)
        elif self._serves():
            self._begin_drain(signal.name, signal.delay, signal.pass_on)
        else:
            self._hurry(signal)
            if signal.pass_on is not None:
                signal.pass_on()

    async def _obey(self, main_process: Callable[[], bool]) -> None:
        """Drain when the main process of a server tells its workers to stop."""
        await wait_told(main_process)
        if self._phase.phase is Phase.STARTING:
            self.supervisor.abort("the server's main process")
        self._begin_drain("the server's main process", 0.0)

    def _hurry(self, signal: StopSignal) -> None:
        """Cut short the delay; a second Ctrl-C, which a server obeys, the grace."""
        if signal.is_impatient:
            self.drainer.cut_short()
        else:
            self.drainer.hurry()
        if self._phase.phase is Phase.DRAINING:
            self._bound_the_stop()

    def _gave_up(self, recipe: Resource[Any]) -> None:
        if recipe.on_give_up == "exit":
            self._begin_drain(f"{recipe.name} gave up", 0.0)
            self._leave_with(partial(end_process, 1))

    def _serves(self) -> bool:
        return self._phase.phase is Phase.SERVING

    # The end

    def _begin_drain(
        self,
        reason: str,
        delay: float,
        release: Callable[[], None] | None = None,
        *,
        is_stop: bool = True,
    ) -> None:
        """Begin it, if it serves and no drain is on."""
        if self._serves():
            watchers = len(self._around.watchers)
            self._phase.handle(Trigger.DRAIN)
            self.drainer.begin(reason, delay, release, watchers)
            if is_stop:
                self._bound_the_stop()

    def _bound_the_stop(self) -> None:
        """Bound everything from now on by one deadline, and by none that is later."""
        if self._plan.drain is not None:
            seconds = self.drainer.time_left + self._plan.shutdown_timeout
            self.supervisor.close_by(now() + seconds)

    def _leave_with(self, last_act: Callable[[], None]) -> None:
        """Stop after the drain without being told by the server; then *last_act*."""
        self._last_act = self._last_act or last_act
        self._leave_if_due()

    def _leave_if_due(self) -> None:
        if self._is_to_leave() and self._receiving is not None:
            self._receiving.cancel()

    def _is_to_leave(self) -> bool:
        return self._last_act is not None and self.drainer.is_over

    # The service

    @asynccontextmanager
    async def _service(self) -> AsyncGenerator[Callable[[], None], None]:
        self._phase.handle(Trigger.START)
        self._around.begun(self)
        try:
            async with transparent_task_group() as group:
                group.start_soon(self._around.gate.run)
                group.start_soon(self.drainer.run)
                if self._main_process is not None:
                    group.start_soon(self._obey, self._main_process)
                with self._around.access_log.installed(), self._signals():
                    async with self._serving() as begin:
                        yield begin
                group.cancel_scope.cancel()
        except BaseException as error:
            self.last_error = describe(error)
            self._tell_what_ended_it(error)
            raise
        finally:
            starting = self._phase.phase is Phase.STARTING
            self._phase.handle(Trigger.FAIL if starting else Trigger.CLOSED)
            self.drainer.omit()
            self._scope = {}  # It holds what the app has yielded.

    @asynccontextmanager
    async def _serving(self) -> AsyncGenerator[Callable[[], None], None]:
        async with self._holding() as begin:
            cancelled = True
            try:
                self._phase.handle(Trigger.STARTED)
                if self._last_act is not None:
                    self._begin_drain("a resource gave up", 0.0)
                yield begin
                cancelled = False
            finally:
                self.supervisor.expect_closing(cancelled=cancelled)
                try:
                    await self._drained()
                    await self._let_server_write()
                finally:
                    self._phase.handle(Trigger.STOP)

    @asynccontextmanager
    async def _holding(self) -> AsyncGenerator[Callable[[], None], None]:
        shared = self._scope.get("state")
        self._around.check_state(shared or {})
        self._state.attach(None if self._plan.transparent else shared)
        try:
            async with self.supervisor.running(self._plan.shutdown_timeout) as begin:
                yield begin
        except CloseFailedError as failed:
            own = failed.errors.get(APP)
            if own is None:
                raise
            raise own from own.__cause__  # What the app said, as without us.
        finally:
            self._state.detach()

    async def _drained(self) -> None:
        """Let out what is still in flight, if no signal has had it done yet."""
        if self._plan.drain is not None:
            self._begin_drain("shutdown", 0.0)
            self.drainer.hurry()
            self._bound_the_stop()
            await to_its_end(self.drainer.finish)
            await to_its_end(self.drainer.wait_latecomers)

    async def _let_server_write(self) -> None:
        """Give it a moment for the last answers, if it has no more afterwards."""
        if self._last_act is not None:
            await to_its_end(partial(anyio.sleep, LAST_ANSWERS))

    def _signals(self) -> AbstractContextManager[None]:
        drain = self._plan.drain
        if drain is None:
            return nullcontext()
        return StopSignals(
            drain,
            self._serves,
            self._stop,
            alone=self._alone,
            has_main=self._main_process is not None,
        )

    def _tell_what_ended_it(self, error: BaseException) -> None:
        """Tell of what nobody else will: no failed startup, and no failed close."""
        told = isinstance(
            error, AppLifespanError | CloseFailedError | CloseTimeoutError
        )
        starting = self._phase.phase is Phase.STARTING
        if not (told or starting or must_pass(error)):
            self._observe(GuardFailed(error))

    # What is opened

    def _new_supervisor(self) -> Supervisor:
        recipes = to_open(self._plan.recipes)
        names = {recipe.name for recipe in recipes}
        upcalls = Upcalls(
            observe=self._observe,
            publish=self._publish,
            withdraw=self._withdraw,
            changed=self._around.changed,
            gave_up=self._gave_up,
        )
        bound = [self._bound(recipe, names) for recipe in recipes]
        return Supervisor(bound, upcalls, self._around.news)

    def _publish(self, recipe: Resource[Any], value: Any) -> None:
        if not recipe.merges:
            self._state.publish({recipe.name: value})
        elif not self._plan.transparent:
            self._state.publish(value)
            self._merged[recipe.name] = tuple(value)

    def _withdraw(self, recipe: Resource[Any]) -> None:
        if not recipe.merges:
            self._state.withdraw((recipe.name,))
        elif not starts_as_without_us(recipe):
            self._state.withdraw(self._merged.pop(recipe.name, ()))

    def _published_by_others(self, recipe: Resource[Any]) -> dict[str, Any]:
        own = self._merged.get(recipe.name, ())
        return {k: value for k, value in self._state.values.items() if k not in own}

    def _bound(self, recipe: Resource[Any], names: set[str]) -> Resource[Any]:
        """Return *recipe*; an app's lifespan with what it needs to be run."""
        if recipe.form is not Form.APP_LIFESPAN:
            return recipe
        own = recipe.name == APP
        blocking = recipe.startup == "blocking" and self._scope.get("state") is not None
        hosting = Hosting(
            recipe,
            self._around.app if own else LoadedApp(recipe.factory),
            self._scope,
            keeps_state=own and (self._plan.transparent or blocking),
            names=names - {recipe.name},
            others=lambda: self._published_by_others(recipe),
            time_left=lambda: self.supervisor.time_to_close(recipe.name),
            observe=self._observe,
        )
        return hosting.bound()


def _do_nothing() -> None:
    """End nothing else: the signal has been passed on already."""
