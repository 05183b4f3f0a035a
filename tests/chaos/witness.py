"""Looks on, and says what is wrong: each guarantee is a check with a name.

Nothing here knows how the guard works inside. It sees what actors do, what observers
are told, what the report and the state show, and what the server gets to hear.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asgi_lifespan_guard import (
    CheckFailedError,
    CheckTimeoutError,
    CloseTimeoutError,
    CrashedError,
    LifespanGuard,
    NeedGaveUpError,
    OpenTimeoutError,
    Phase,
    ResourcePhase,
)
from asgi_lifespan_guard._phases import RESOURCE_TRANSITIONS, TRANSITIONS
from asgi_lifespan_guard.events import (
    AttemptFailed,
    CheckFailed,
    CloseFailed,
    DrainBegun,
    Event,
    PhaseChanged,
    ResourceClosed,
    ResourceCrashed,
    ResourceDown,
    ResourceGaveUp,
    ResourcePhaseChanged,
    ResourceReopening,
)
from tests.chaos.actors import ILL_STRATEGIES, LINGERS, Actor, HopelessError, Panic
from tests.chaos.scenario import Scenario


CHECKS = {
    "opens in order": "nothing opens before what it needs is open",
    "closes in order": "nothing closes while what needs it is open",
    "opens once": "one attempt at a time, in one task, closed once for each opening",
    "attempt in time": "an attempt is over when its timeout and its clean-up are",
    "close in time": "a closing is over when its close_timeout is",
    "close has its time": "no closing is cut before its close_timeout or the stop ends",
    "stop in time": "the stop is over when shutdown_timeout is",
    "nothing is left": "no task and no thread is left over",
    "report is true": "report() and state say what is the case, at every event",
    "failures are told": "each failure is in some event, with its cause",
    "told once": "no event tells the same failure again",
    "nothing is invented": "no event tells a failure that did not happen",
    "crash is told at once": "a crash is told when it happens, as a crash",
    "loop turns": "the event loop turns between two attempts",
    "no hot loop": "attempts do not follow one another without time or news",
    "waits are kept": "the next attempt comes after the wait that was told",
    "attempts are told": "no attempt ends without an event, or a need that went",
    "reopens at once": "what crashed after a while is opened again at once",
    "gives up by policy": "nothing gives up but by its policy, its error or its need",
    "closes for a reason": "while serving nothing closes that is well",
    "serves on": "while serving no resource is over but by giving up",
    "comes back": "when all has been well for long, all is up that did not give up",
    "startup is decided": "the startup ends once everything blocking is open",
    "tables": "phases change as the tables say",
    "protocol": "the server is told what the protocol wants, and sees no foreign error",
    "is over": "after the stop every resource is closed, skipped or failed",
    "let in": "no request is in the app while what it needs is away",
    "answered": "every request is answered, with 200 or 503; probes tell the truth",
    "goes on": "the run comes to its end, and nobody is surprised by an exception",
}

EPS = 1e-3
RESERVE = 1.0
SLACK = 0.25
AT_ONCE = 0.25
CALM = 45.0
"""Seconds in which everything that can recover has recovered."""
HOT = 40
"""Attempts in a row without time in between that are no accident."""
TURNS = 2
"""Attempts that one turn of the loop may see, because trio has no order in it."""

OPEN = (ResourcePhase.UP, ResourcePhase.FAILING)
LOST = (ResourcePhase.CLOSED, ResourcePhase.FAILED)
ABANDONED = (
    ResourcePhase.OPENING,
    ResourcePhase.PENDING,
    ResourcePhase.CLOSED,
    ResourcePhase.SKIPPED,
    ResourcePhase.FAILED,
)
OVER = (ResourcePhase.CLOSED, ResourcePhase.SKIPPED, ResourcePhase.FAILED)
_STEPS = {(old, new) for old, row in TRANSITIONS.items() for new in row.values()}
_RESOURCE_STEPS = {
    (old, new) for old, row in RESOURCE_TRANSITIONS.items() for new in row.values()
}
_ENDS_AN_ATTEMPT = (
    AttemptFailed,
    CloseFailed,
    ResourceClosed,
    ResourceCrashed,
    ResourceGaveUp,
    ResourceReopening,
)


@dataclass
class Injection:
    """An error that was raised on purpose.

    Attributes:
        began: When the attempt had begun in which it was raised.
        ended: When that was over.
        was_up: Whether the resource was up.
    """

    error: BaseException
    actor: Actor
    stage: str
    time: float
    began: float
    was_up: bool
    ended: float = 0.0


class Life:
    """What is remembered of one actor."""

    def __init__(self) -> None:
        self.phase = ResourcePhase.PENDING
        self.began = self.ended = self.closing = self.up = -math.inf
        self.opening = self.was_left = -math.inf
        self.cancelled = self.unwell = -math.inf
        self.needs_went = -math.inf
        self.disturbed: list[float] = []
        self.closings: list[float] = []
        self.went_in = Phase.IDLE
        self.reported = True
        self.in_a_row = 0
        self.unturned = 0
        self.promised: tuple[float, float] | None = None
        self.reopen_by = math.inf
        self.crash: float | None = None
        self.upset = False


class Witness:
    """Sees everything, and complains."""

    def __init__(self, scenario: Scenario, turn: Callable[[Callable[[], Any]], None]):
        self.scenario = scenario
        self.guard: LifespanGuard
        self.now: Callable[[], float]
        self.actors: dict[str, Actor] = {}
        self.lives: dict[str, Life] = {}
        self.lines: list[tuple[float, str, Any]] = []
        self.faults: dict[str, str] = {}
        self.injections: list[Injection] = []
        self.told: dict[int, set[str]] = {}
        self.telling: Counter[tuple[int, str]] = Counter()
        self.phase = Phase.IDLE
        self.stop_began = math.inf
        self.deadline = math.inf
        self.cancelled = -math.inf
        self.hurried = -math.inf
        self.last_trouble = 0.0
        self.blocked_since: float | None = None
        self.has_served = False
        self._turn = turn

    def complain(self, check: str, text: str) -> None:
        """Note that something is wrong."""
        assert check in CHECKS
        self.note(f"!!! {check}: {text}")
        self.faults.setdefault(check, text)

    def note(self, text: str, thing: Any = None) -> None:
        """Add a line to the transcript."""
        self.lines.append((self.now(), text, thing))

    def enter(self, actors: Iterable[Actor]) -> None:
        """Begin a start/stop cycle."""
        self.actors = {actor.name: actor for actor in actors}
        self.lives = {name: Life() for name in self.actors}
        for actor in self.actors.values():
            actor.renew()
        self.stop_began = self.deadline = math.inf
        self.cancelled = self.hurried = -math.inf
        self.last_trouble = self.now()
        self.blocked_since = None
        self.has_served = False

    def trouble(self) -> None:
        """Remember that not everything is well now."""
        self.last_trouble = max(self.last_trouble, self.now())

    @property
    def stopping(self) -> bool:
        """Whether the guard is on its way out, or was told to go."""
        return (
            self.now() >= self.stop_began
            or self.cancelled > -math.inf
            or self.phase not in (Phase.STARTING, Phase.SERVING, Phase.DRAINING)
        )

    # What actors do

    def inject(self, actor: Actor, error: BaseException, stage: str) -> None:
        life = self.lives[actor.name]
        up = life.phase in OPEN
        self.injections.append(
            Injection(error, actor, stage, self.now(), life.began, up)
        )
        life.upset = life.upset or up
        # A check that takes long to clean up keeps it from being noticed.
        asked = actor.node.ask is not None and "lingers" in actor.node.ask.answers
        if stage == "up" and up and not (self.stopping or asked):
            life.crash = self.now()
        self.trouble()

    def begins(self, actor: Actor, values: Sequence[Any] | None) -> bool:
        """Look at an attempt; return whether it is one too many."""
        life, now = self.lives[actor.name], self.now()
        self._check_needs(actor, values)
        if actor.busy:
            self.complain("opens once", f"{actor.name}: two attempts at a time")
        if actor.begun and not (life.reported or life.needs_went >= life.began - EPS):
            self.complain("attempts are told", f"{actor.name} is tried again, silently")
        self._check_wait(actor, life)
        self._check_reopening(actor, life)
        life.in_a_row = life.in_a_row + 1 if now - life.began < EPS else 1
        life.began, life.reported = now, False
        self._check_turn(actor, life)
        if life.in_a_row > HOT:
            self.complain("no hot loop", f"{actor.name}: {HOT} attempts in no time")
            return True
        return False

    def comes_up(self, actor: Actor) -> None:
        self.lives[actor.name].was_left = math.inf

    def goes_down(self, actor: Actor) -> None:
        self.lives[actor.name].closing = self.now()
        self.lives[actor.name].closings.append(self.now())
        self._check_users(actor)

    def is_down(self, actor: Actor) -> None:
        life = self.lives[actor.name]
        life.ended = self.now()
        for injection in self.injections:
            if injection.actor is actor and not injection.ended:
                injection.ended = self.now()
        life.was_left = self.now()
        if life.closing >= life.began:
            took = life.ended - life.closing
            limit = min(
                life.closing + actor.node.close_timeout,
                max(self.deadline, life.closing),
            )
            told_to = life.phase is ResourcePhase.CLOSING and "ended" not in actor.went
            if told_to and life.ended > limit + SLACK:
                self.complain("close in time", f"{actor.name}: after {took:.3f} s")

    def is_cut(self, actor: Actor) -> None:
        """Look whether a closing that is cancelled has had its time."""
        life, now = self.lives[actor.name], self.now()
        due = self._due(actor, life)
        was_up = life.phase is not ResourcePhase.OPENING  # else it has the attempt's
        if was_up and now < due - EPS and not self._was_cancelled(actor, life):
            text = f"{actor.name}: cut after {now - life.closing:.3f} s"
            self.complain("close has its time", text)

    def _was_cancelled(self, actor: Actor, life: Life) -> bool:
        mine = life.cancelled >= life.closing
        return mine or (self.cancelled > -math.inf and actor.node.kind == "lifespan")

    # Needs and users

    def _is_left(self, actor: Actor) -> bool:
        """Whether it is closed, or being left; not yet, where it only is to be."""
        life = self.lives[actor.name]
        entered = len(life.closings) < actor.entered
        is_to_be = life.phase is ResourcePhase.CLOSING and entered
        return life.phase not in OPEN and not is_to_be

    def _check_needs(self, actor: Actor, values: Sequence[Any] | None) -> None:
        away = [
            need.name for need in actor.below() if not need.live or self._is_left(need)
        ]
        if away:
            self.complain("opens in order", f"{actor.name} opens without {away}")
        if values is None:
            return
        enabled = ((n, n.node.enabled == "yes") for n in actor.needs)
        wanted = [need.value if on else None for need, on in enabled]
        if list(values) != wanted:
            text = f"{actor.name} is given {list(values)}, not {wanted}"
            self.complain("opens in order", text)

    def _check_users(self, actor: Actor) -> None:
        users = [a.name for a in self._users_of(actor)]
        if users and self.lives[actor.name].phase is not ResourcePhase.OPENING:
            text = f"{actor.name} closes under {', '.join(users)}"
            self.complain("closes in order", text)

    def _users_of(self, actor: Actor) -> Iterator[Actor]:
        for other in self.actors.values():
            if other is actor or not other.busy:
                continue
            phase = self.lives[other.name].phase
            if other.node.kind == "thread" and phase in ABANDONED:
                continue  # A thread that opens is abandoned when it is to stop.
            outlasts = other.node.kind == "lifespan" and other.live
            last = self.lives[actor.name].went_in is Phase.STOPPING
            needs_it = (last or not outlasts) and actor in other.below()
            if needs_it or (last and other.name == "app" and other.live):
                yield other

    # Attempts

    def _check_turn(self, actor: Actor, life: Life) -> None:
        if actor.node.kind == "thread":
            return
        life.unturned += 1
        if life.unturned > TURNS:
            text = f"{actor.name}: {TURNS} attempts in one turn of the loop"
            self.complain("loop turns", text)
        self._turn(lambda: setattr(life, "unturned", 0))

    def _check_wait(self, actor: Actor, life: Life) -> None:
        promised, life.promised = life.promised, None
        if promised is None:
            return
        told, due = promised
        early = self.now() < due - EPS
        if early and self.hurried < told - EPS and life.needs_went < told - EPS:
            text = f"{actor.name}: {due - self.now():.3f} s too early"
            self.complain("waits are kept", text)

    def _check_reopening(self, actor: Actor, life: Life) -> None:
        due, life.reopen_by = life.reopen_by, math.inf
        if self.now() > due + EPS and life.needs_went < due - 2 * AT_ONCE:
            text = f"{actor.name}: {self.now() - due + AT_ONCE:.3f} s after its closing"
            self.complain("reopens at once", text)

    # What observers are told

    def hear(self, event: Event) -> None:
        """Look at an event, and at the world in that moment."""
        match event:
            case ResourcePhaseChanged(name, old, new):
                self._hear_phase(name, old, new)
            case PhaseChanged(old_phase, new_phase):
                self._hear_guard(old_phase, new_phase)
            case DrainBegun():
                self.trouble()
        if isinstance(event, _ENDS_AN_ATTEMPT):
            self.lives[event.resource].reported = True
        error = getattr(event, "error", None)
        if isinstance(error, BaseException):
            self._hear_error(event, error)
        match event:
            case AttemptFailed(name, _, _, wait) | ResourceReopening(name, wait):
                self._hear_wait(event, name, wait)
            case ResourceCrashed(name) | ResourceDown(name):
                self.lives[name].crash = None
            case ResourceGaveUp():
                self._check_giving_up(event)
        self._check_crashes()
        self._check_report(event)
        self._check_startup()

    def _hear_guard(self, old: Phase, new: Phase) -> None:
        if (old, new) not in _STEPS or old is not self.phase:
            self.complain("tables", f"the guard: {old} to {new} from {self.phase}")
        self.phase = new
        if new is Phase.SERVING:
            self.has_served = True
        if new is Phase.STOPPING or (new is Phase.DRAINING and self.stopping):
            self.trouble()
        if new is Phase.STOPPING:
            self.limit_stop()

    def _hear_phase(self, name: str, old: ResourcePhase, new: ResourcePhase) -> None:
        life, actor = self.lives[name], self.actors[name]
        if (old, new) not in _RESOURCE_STEPS or old is not life.phase:
            text = f"{name}: {old} to {new} from {life.phase}"
            self.complain("tables", text)
        if old is ResourcePhase.OPENING and life.began >= life.opening:
            self._check_attempt(actor, life)
        self._note_phase(life, new)
        if new is ResourcePhase.UP and old is ResourcePhase.OPENING:
            life.up, life.upset, life.crash = self.now(), False, None
        if new is ResourcePhase.CLOSING:
            self._check_reason(actor, life)
        if (old in OPEN and new not in OPEN) or new in OVER:
            self._tell_dependents(actor)
        if old is ResourcePhase.CLOSING and new is ResourcePhase.WAITING:
            self._expect_reopening(actor, life)
        if new is ResourcePhase.CLOSED and not self.stopping and self._is_serving():
            self.complain("serves on", f"{name} is closed while the guard serves")

    def _note_phase(self, life: Life, new: ResourcePhase) -> None:
        life.phase = new
        match new:
            case ResourcePhase.OPENING:
                life.opening = self.now()
            case ResourcePhase.CLOSING:
                life.went_in = self.phase
            case ResourcePhase.PENDING:  # It waits for its needs, no more for a time.
                life.promised, life.reopen_by = None, math.inf

    def _tell_dependents(self, actor: Actor) -> None:
        """Remember for each that needs *actor* that it went."""
        decisive = actor.node.blocking and actor.node.required
        over = self.lives[actor.name].phase in (
            ResourcePhase.FAILED,
            ResourcePhase.CLOSED,
        )
        if self.phase is Phase.STARTING and decisive and over:
            self.limit_stop()  # The startup fails.
        for other in self.actors.values():
            if actor in other.deep_needs():
                life = self.lives[other.name]
                life.needs_went = self.now()
                life.disturbed.append(self.now())

    def _is_serving(self) -> bool:
        return self.phase in (Phase.SERVING, Phase.DRAINING)

    def _check_attempt(self, actor: Actor, life: Life) -> None:
        """Look how long an attempt took, which is over now."""
        timeout = actor.node.timeout
        if timeout is None or life.began == -math.inf or life.phase in OPEN:
            return
        fates = (
            *actor.node.openings,
            *(actor.node.ask.answers if actor.node.ask else ()),
        )
        cleans_up = actor.node.close_timeout if "lingers" in fates else 0.0
        closes = actor.node.close_timeout if life.closing >= life.began else 0.0
        took = self.now() - life.began
        if took > timeout + min(cleans_up, LINGERS) + closes + SLACK:
            self.complain("attempt in time", f"{actor.name}: after {took:.3f} s")

    def _check_reason(self, actor: Actor, life: Life) -> None:
        upset = life.upset or "ended" in actor.went or life.cancelled >= life.up
        ask = actor.node.ask
        ill = ask is not None and ask.then == "reopen" and life.unwell >= life.up
        needs = (self.lives[n.name].phase for n in actor.deep_needs())
        alone = any(p not in (*OPEN, ResourcePhase.SKIPPED) for p in needs)
        if self._is_serving() and not (upset or ill or alone or self.stopping):
            self.complain("closes for a reason", f"{actor.name} closes, and is well")

    def _expect_reopening(self, actor: Actor, life: Life) -> None:
        long_up = life.closing - life.up >= 6.0
        policy = actor.node.retry not in (None, *ILL_STRATEGIES)
        if long_up and policy and not self.stopping:
            life.reopen_by = self.now() + AT_ONCE

    def _hear_wait(self, event: Event, name: str, wait: float) -> None:
        life, actor = self.lives[name], self.actors[name]
        life.promised = self.now(), self.now() + wait
        told = {"steady": 2.0, "three": 1.0, "zero": 0.0, "of its own kind": 2.0}
        wanted = told.get(actor.node.retry or "")
        hurried = wait == 0 and (
            max(self.hurried, life.needs_went) >= life.began - EPS or self.stopping
        )
        odd = isinstance(event, AttemptFailed) and wanted not in (None, wait)
        if not 0 <= wait < math.inf and actor.node.retry != "forever":
            odd = True
        if odd and not hurried:
            self.complain("waits are kept", f"{name}: a wait of {wait} s is told")

    # Errors

    def _hear_error(self, event: Event, error: BaseException) -> None:
        kind = type(event).__name__
        for any_error in all_of(error):
            self.told.setdefault(id(any_error), set()).add(kind)
        injected = {id(i.error) for i in self.injections}
        for leaf in culprits_of(error):
            if id(leaf) in injected:
                self.telling[id(leaf), kind] += 1
                if self.telling[id(leaf), kind] > 1:
                    self.complain("told once", f"{kind} tells {leaf!r} again")
            elif not self._may_be(leaf, getattr(event, "resource", None)):
                self.complain("nothing is invented", f"{kind}: {leaf!r}")
        if isinstance(event, CheckFailed | ResourceDown):
            self.lives[event.resource].unwell = self.now()

    def _may_be(self, error: BaseException, name: str | None) -> bool:
        if name is None:
            return True
        actor, life = self.actors[name], self.lives[name]
        if actor.node.retry in ILL_STRATEGIES or life.cancelled > -math.inf:
            return True
        if "cancelled" in actor.went:
            return True
        reasons: dict[type[BaseException], Callable[[], bool]] = {
            OpenTimeoutError: lambda: "slow to open" in actor.went,
            CheckTimeoutError: lambda: "slow to answer" in actor.went,
            CheckFailedError: lambda: "false" in actor.went,
            CloseTimeoutError: lambda: self._had_its_time(actor, life),
            CrashedError: lambda: "ended" in actor.went or life.upset,
            NeedGaveUpError: lambda: self._has_lost_a_need(actor),
        }
        reason = reasons.get(type(error))
        return self.cancelled > -math.inf if reason is None else reason()

    def _had_its_time(self, actor: Actor, life: Life) -> bool:
        return self.now() >= self._due(actor, life) - EPS

    def _due(self, actor: Actor, life: Life) -> float:
        """Return when a closing may be cut: some time is kept for what comes after."""
        from_now = max(life.closing, self.stop_began)
        left = self.deadline - from_now
        due = min(
            life.closing + actor.node.close_timeout,
            from_now + left - min(RESERVE, left / 4) if left < math.inf else math.inf,
        )
        if actor.node.kind == "lifespan":  # Asked to shut down, then cancelled.
            due -= min(RESERVE, (due - life.closing) / 4)
        return due

    def _has_lost_a_need(self, actor: Actor) -> bool:
        return any(self.lives[n.name].phase in LOST for n in actor.deep_needs())

    def _check_giving_up(self, event: ResourceGaveUp) -> None:
        actor = self.actors[event.resource]
        life = self.lives[event.resource]
        leaves = culprits_of(event.error)
        hopeless = any(
            isinstance(e, HopelessError | Panic) for e in all_of(event.error)
        )
        late = (OpenTimeoutError, CheckTimeoutError, CloseTimeoutError)
        narrow = actor.node.retry == "of its own kind"
        app = actor.node.kind == "lifespan"  # its policy sees AppLifespanError
        unasked = narrow and (app or any(isinstance(leaf, late) for leaf in leaves))
        by_policy = actor.node.retry in (None, "three", *ILL_STRATEGIES)
        lost = any(isinstance(leaf, NeedGaveUpError) for leaf in leaves)
        broken = actor.node.enabled == "raises" or life.cancelled > -math.inf
        if not (hopeless or unasked or by_policy or lost or broken):
            odd = "cancelled" in actor.went and narrow
            if not odd:
                text = f"{actor.name} gives up because of {event.error!r}"
                self.complain("gives up by policy", text)

    def _check_crashes(self) -> None:
        for name, life in self.lives.items():
            if life.crash is None or self.now() <= life.crash + SLACK:
                continue
            disturbed = max(life.needs_went, life.cancelled) >= life.crash - EPS
            if disturbed or self.stop_began <= life.crash + EPS:
                life.crash = None
            else:
                text = f"{name}: not told {self.now() - life.crash:.3f} s after it"
                life.crash = None
                self.complain("crash is told at once", text)

    # The report

    def _check_report(self, event: Event) -> None:
        try:
            report = self.guard.report()
            state = dict(self.guard.state)
        except Exception as error:
            self.complain("report is true", f"it raises {error!r}")
            return
        if report.phase is not self.phase:
            text = f"the guard is {report.phase}, not {self.phase}"
            self.complain("report is true", text)
        begins = isinstance(event, PhaseChanged) and event.new is Phase.STARTING
        if begins or self.phase in (Phase.STOPPED, Phase.FAILED):
            return  # The resources are still the last cycle's.
        changing = event.resource if isinstance(event, ResourcePhaseChanged) else None
        for shown in report.resources:
            actor = self.actors.get(shown.name)
            if actor is not None:
                self._check_shown(actor, shown, state, changing)

    def _check_shown(
        self, actor: Actor, shown: Any, state: dict[str, Any], changing: str | None
    ) -> None:
        life = self.lives[actor.name]
        is_up = shown.phase in OPEN
        is_live = actor.done if actor.node.kind == "step" else actor.live
        held = actor.node.kind in ("context", "step")
        wrong = None
        if shown.phase is not life.phase:
            wrong = f"{shown.phase}, not {life.phase}"
        elif is_up and not is_live and actor.node.kind != "lifespan":
            wrong = f"{shown.phase}, and is not open"
        elif held and actor.live and shown.phase in (*OVER, ResourcePhase.PENDING):
            wrong = f"{shown.phase}, and is open"
        elif held and is_up != (actor.name in state) and changing != actor.name:
            wrong = f"{shown.phase}, and the state has {sorted(state)}"
        elif held and actor.name in state and state[actor.name] != actor.value:
            wrong = f"in the state as {state[actor.name]!r}, not {actor.value!r}"
        elif not 0 <= shown.attempts - actor.begun <= self._not_begun(actor):
            wrong = f"at attempt {shown.attempts}, not {actor.begun}"
        elif shown.next_attempt_in is not None and not shown.next_attempt_in >= 0:
            wrong = f"to be tried in {shown.next_attempt_in} s"
        if wrong is not None:
            self.complain("report is true", f"{actor.name} is {wrong}")

    def _not_begun(self, actor: Actor) -> float:
        """How many attempts may have ended before they reached the factory."""
        return math.inf if actor.node.kind == "lifespan" else 1  # It has a task.

    # The startup and the stop

    def _check_startup(self) -> None:
        fine = (*OPEN, ResourcePhase.SKIPPED)
        blocking = (a for a in self.actors.values() if a.node.blocking)
        decided = all(
            self.lives[a.name].phase in fine
            or (not a.node.required and self.lives[a.name].phase in OVER)
            for a in blocking
        )
        if self.phase is not Phase.STARTING or not decided:
            self.blocked_since = None
            return
        if self.blocked_since is None:
            self.blocked_since = self.now()
        if self.now() - self.blocked_since > 1.0:
            text = f"open since {self.blocked_since:.3f} s, and still starting"
            self.complain("startup is decided", text)

    def look_before_the_stop(self) -> None:
        """Look whether everything has recovered that could."""
        self._check_startup()
        self._check_crashes()
        if self.now() - self.last_trouble < CALM or self.phase is not Phase.SERVING:
            return
        late = [a.name for a in self.actors.values() if not self._may_stay(a)]
        if late:
            phases = [f"{n} {self.lives[n].phase.value}" for n in late]
            self.complain("comes back", f"after {CALM} s: {', '.join(phases)}")

    def _may_stay(self, actor: Actor) -> bool:
        phase = self.lives[actor.name].phase
        fine = (ResourcePhase.UP, ResourcePhase.SKIPPED, ResourcePhase.FAILED)
        if phase in fine or actor.node.retry == "forever":
            return True
        away = (n for n in actor.deep_needs() if self.lives[n.name].phase not in fine)
        return phase is ResourcePhase.PENDING and any(away)

    def begin_stop(self, *, cancelled: bool) -> None:
        """Note that the server stops the guard now."""
        self.stop_began = min(self.now(), self.stop_began)
        if cancelled:
            self.cancelled = self.now()
        if self.scenario.drain is None or self.phase is Phase.STARTING:
            self.limit_stop()

    def limit_stop(self) -> None:
        """Note that everything is to be closed in time from now."""
        self.stop_began = min(self.now(), self.stop_began)
        limit = self.now() + self.scenario.shutdown_timeout
        self.deadline = min(self.deadline, limit)

    def look_back(self, *, complete: bool) -> None:
        """Look at a cycle that is over.

        Args:
            complete: Whether the startup was; else what opens later was never begun.
        """
        never = self.phase is Phase.IDLE and self.cancelled > -math.inf
        if self.phase not in (Phase.STOPPED, Phase.FAILED) and not never:
            self.complain("is over", f"the guard is {self.phase}")
        unopened = () if complete else (ResourcePhase.PENDING,)
        for name, actor in self.actors.items():
            phase = self.lives[name].phase
            if phase not in (*OVER, *unopened):
                self.complain("is over", f"{name} is {phase}")
            abandoned = actor.node.kind == "thread"  # and looked at in the end
            if not abandoned and (actor.busy or actor.entered != actor.left):
                self.complain("opens once", f"{name} is not closed")
            for odd in sorted(w for w in actor.went if w.startswith("asked with")):
                self.complain("report is true", f"{name} is {odd}, not its value")
            if "left elsewhere" in actor.went:
                self.complain("opens once", f"{name} is left in another task")
        self._check_told()

    def _check_told(self) -> None:
        for injection in self.injections:
            if id(injection.error) in self.told or self._is_moot(injection):
                continue
            text = f"{injection.error!r} of {injection.time:.3f} s"
            self.complain("failures are told", text)
        self.injections.clear()
        self.told.clear()
        self.telling.clear()

    def _is_moot(self, injection: Injection) -> bool:
        """Whether nobody need hear of it: it came of being told to end."""
        actor, life = injection.actor, self.lives[injection.actor.name]
        if injection.stage == "close":
            return not injection.was_up and self.stop_began <= injection.time + EPS
        if injection.stage == "up" and (actor.node.swallows or injection.was_up):
            # A stranger's cancellation takes the place of what a group collected.
            replaced = life.cancelled >= injection.time - EPS
            return actor.node.swallows or (replaced and actor.node.group == "anyio")
        # A check that fails while it is up means nothing if it is closed right then.
        closings = life.closings if injection.was_up else []
        began = injection.time if injection.was_up else injection.began
        # An attempt that is told to end while it cleans up has nothing to tell.
        last = injection.time if injection.was_up else injection.ended
        latest = max(last, injection.time) + EPS
        if min(self.stop_began, _or_never(self.cancelled)) <= latest:
            return True
        ends = (life.cancelled, *life.disturbed, *closings)
        return any(began - EPS <= end <= latest for end in ends)


def _or_never(time: float) -> float:
    return time if time > -math.inf else math.inf


def all_of(error: BaseException | None) -> list[BaseException]:
    """Return an error, what it holds and what led to it."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or any(one is other for other in found):
            continue
        found.append(one)
        if isinstance(one, BaseExceptionGroup):
            left.extend(one.exceptions)
        left += [one.__cause__, one.__context__, getattr(one, "cause", None)]
    return found


def culprits_of(error: BaseException) -> list[BaseException]:
    """Return what an error says by itself: a group's leaves, or what an app raised."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in culprits_of(inner)]
    cause = getattr(error, "cause", None)
    return [error] if not isinstance(cause, BaseException) else culprits_of(cause)
