"""What happened, as frozen facts; a closed set.

An observer is called with every event, in the order in which they happened, on the
event loop's thread; what it causes itself is told when everybody has heard of what
it is told. It must return at once and has no say. A `match` over `Event`
that ends in `typing.assert_never` fails type checking when an event is forgotten.
`vars(event)` is a dict of an event's fields, for observers that take them all alike.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

from ._frozen import Frozen
from ._phases import Phase, ResourcePhase
from ._redaction import describe, redact


__all__ = [
    "AttemptFailed",
    "CheckFailed",
    "CloseFailed",
    "ConversationBroken",
    "DrainBegun",
    "DrainEnded",
    "Event",
    "GuardFailed",
    "LifespanMissing",
    "LifespanUnsupported",
    "Observer",
    "Paused",
    "PhaseChanged",
    "RequestAbandoned",
    "RequestAdmitted",
    "RequestCut",
    "RequestHeld",
    "RequestRefused",
    "RequestStuck",
    "ResourceClosed",
    "ResourceCrashed",
    "ResourceDown",
    "ResourceGaveUp",
    "ResourceOpened",
    "ResourcePhaseChanged",
    "ResourceRecovered",
    "ResourceReopening",
    "ResourceSkipped",
    "Resumed",
    "StartupFailed",
    "StreamEnded",
]


class Fact(Frozen):
    """Base of all events."""

    def __repr__(self) -> str:
        """Return it as it was made, but with its error as a redacted line."""
        shown = (f"{name}={_shown(value)}" for name, value in vars(self).items())
        return f"{type(self).__name__}({', '.join(shown)})"


def _shown(value: object) -> str:
    if isinstance(value, BaseException):
        return f"<{describe(value)}>"
    return repr(redact(value)) if isinstance(value, str) else repr(value)


class PhaseChanged(Fact):
    """The guard came from phase *old* into phase *new*."""

    old: Phase
    new: Phase


class ResourcePhaseChanged(Fact):
    """A resource came from phase *old* into phase *new*."""

    resource: str
    old: ResourcePhase
    new: ResourcePhase


class AttemptFailed(Fact):
    """An attempt to open a resource failed, and another will be made.

    Attributes:
        resource: The resource's name.
        attempt: Which attempt it was, counted from 1 since the resource was last up;
            one that comes down soon after it came up counts on.
        error: Why it failed.
        wait: Seconds until the next one.
        unexpected: Whether the error smells of a mistake in the program and should
            be shown with its traceback.
    """

    resource: str
    attempt: int
    error: BaseException
    wait: float
    unexpected: bool


class ResourceOpened(Fact):
    """A resource is up.

    Attributes:
        resource: The resource's name.
        attempt: The attempt that succeeded, counted from 1.
        duration: Seconds that this attempt took.
    """

    resource: str
    attempt: int
    duration: float


class ResourceSkipped(Fact):
    """A resource is not enabled and was skipped."""

    resource: str


class ResourceCrashed(Fact):
    """A resource's context manager raised while it was up.

    Told with the cause, once it has been left; `ResourceDown` came before that.
    """

    resource: str
    error: BaseException


class CheckFailed(Fact):
    """A check of a resource failed, for the *in_a_row*-th time in a row."""

    resource: str
    error: BaseException
    in_a_row: int


class ResourceDown(Fact):
    """A resource that was up is not ready any more.

    Its checks failed often enough; or it has crashed (*error* is a `CrashedError`).
    """

    resource: str
    error: BaseException


class ResourceRecovered(Fact):
    """A resource's checks pass again: it is ready."""

    resource: str


class ResourceReopening(Fact):
    """A resource that was up and came down is opened again in *wait* seconds."""

    resource: str
    wait: float


class ResourceGaveUp(Fact):
    """A resource will not be tried again.

    Attributes:
        resource: The resource's name.
        attempts: How many attempts were made.
        error: Why the last one failed.
        permanent: Whether the error itself forbade another attempt.
        required: Whether readiness asks for the resource.
    """

    resource: str
    attempts: int
    error: BaseException
    permanent: bool
    required: bool


class ResourceClosed(Fact):
    """A resource was closed, *duration* seconds after its closing began."""

    resource: str
    duration: float


class CloseFailed(Fact):
    """A resource's closing raised, or outlived its deadline."""

    resource: str
    error: BaseException


class StartupFailed(Fact):
    """The guard's startup failed; whatever was open has been closed.

    Attributes:
        error: Why.
        reported: Whether *error* was already told by another event.
    """

    error: BaseException
    reported: bool


class GuardFailed(Fact):
    """Something that no other event tells of ended the guard's lifespan."""

    error: BaseException


class LifespanUnsupported(Fact):
    """The wrapped app has no lifespan of its own.

    Attributes:
        resource: Its name among the resources.
        error: What it raised, if that showed it.
        unexpected: Whether that looks like a mistake, and not like a refusal.
    """

    resource: str
    error: BaseException | None
    unexpected: bool


class ConversationBroken(Fact):
    """The server (or a wrapper around us) left the lifespan protocol."""

    problem: str


class RequestHeld(Fact):
    """A request waits at the gate. *path* is the path as the app would see it."""

    path: str


class RequestAdmitted(Fact):
    """A held request went on to the app after *waited* seconds."""

    path: str
    waited: float


class RequestAbandoned(Fact):
    """The client of a held request left after *waited* seconds, or it was cancelled."""

    path: str
    waited: float


class RequestRefused(Fact):
    """A request was answered with 503 (or its WebSocket denied).

    Attributes:
        path: The request's path.
        retry_after: Seconds told to the client, or ``None`` where nothing is known.
        reason: ``"never started"``, ``"not ready"``, ``"full"``, ``"draining"`` or
            ``"stopped"``.
        waited: Seconds that it was held before; 0.0 where it was refused at once. A
            request that `RequestHeld` was told of waited longer than that.
    """

    path: str
    retry_after: int | None
    reason: str
    waited: float


class Paused(Fact):
    """Readiness is withheld by hand."""

    reason: str


class Resumed(Fact):
    """Readiness is not withheld any more."""


class DrainBegun(Fact):
    """The guard is unready for good and lets requests out.

    Attributes:
        reason: A signal's name, or what `LifespanGuard.begin_drain` was told.
        in_flight: Requests and WebSockets that were open.
    """

    reason: str
    in_flight: int


class LifespanMissing(Fact):
    """A request was refused because nothing has run the guard's lifespan; told once."""

    path: str


class StreamEnded(Fact):
    """An endless answer or a WebSocket was ended cleanly by the drain."""

    path: str


class RequestCut(Fact):
    """A request was cancelled, *after* seconds into the drain: its grace was over."""

    path: str
    after: float


class RequestStuck(Fact):
    """A request did not end although it was cancelled twice.

    Attributes:
        path: Its path.
        age: Seconds that it has been running, at the least.
    """

    path: str
    age: float


class DrainEnded(Fact):
    """Nothing is in flight any more, or nothing that can be helped.

    Attributes:
        duration: Seconds since the drain began.
        left: Requests that are stuck.
        in_flight: Requests that were in flight when it began.
    """

    duration: float
    left: int
    in_flight: int


Event: TypeAlias = (
    PhaseChanged
    | ResourcePhaseChanged
    | AttemptFailed
    | ResourceOpened
    | ResourceSkipped
    | ResourceCrashed
    | CheckFailed
    | ResourceDown
    | ResourceRecovered
    | ResourceReopening
    | ResourceGaveUp
    | ResourceClosed
    | CloseFailed
    | StartupFailed
    | GuardFailed
    | LifespanUnsupported
    | ConversationBroken
    | RequestHeld
    | RequestAdmitted
    | RequestAbandoned
    | RequestRefused
    | Paused
    | Resumed
    | DrainBegun
    | LifespanMissing
    | StreamEnded
    | RequestCut
    | RequestStuck
    | DrainEnded
)


class Observer(Protocol):
    """Anything that can be called with an event."""

    def __call__(self, event: Event, /) -> None:
        """Be told of *event*."""
