"""Everything that this package raises.

Call sites pass facts; the text is built here, and ends with the remedy where there is
a typical mistake. Two families: `ConfigurationError` is raised while objects are
built (the program is wrong), everything else while they run (the world is).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ._redaction import describe, leaves, redact


class LifespanGuardError(Exception):
    """Base of everything that this package raises."""


class ConfigurationError(LifespanGuardError):
    """Raised at construction when a resource or a guard is set up wrongly."""


class OpenedTwiceError(ConfigurationError):
    """Raised when one app is wrapped by two guards that have the same resources."""

    def __init__(self, resources: Sequence[str]) -> None:
        super().__init__(
            f"{', '.join(map(repr, resources))} would be opened twice: by this guard,"
            " and by another one around the same app. Wrap an app once (either"
            " app.add_middleware(LifespanGuard, ...) or LifespanGuard(app, ...)), or"
            " register each resource with one of the guards"
        )
        self.resources = tuple(resources)


class IllegalTransitionError(LifespanGuardError):
    """Raised when a phase does not know the trigger that it was given."""

    def __init__(self, subject: str, phase: str, trigger: str) -> None:
        super().__init__(f"{subject}: {trigger!r} cannot happen in phase {phase!r}")
        self.subject = subject
        self.phase = phase
        self.trigger = trigger


class FactoryError(LifespanGuardError):
    """Raised when what a resource's factory gave cannot be opened. Never retried."""

    def __init__(self, resource: str, problem: str, remedy: str) -> None:
        super().__init__(f"resource {resource!r}: {problem}; {remedy}")
        self.resource = resource


class OpenTimeoutError(LifespanGuardError, TimeoutError):
    """Raised when one attempt to open a resource outlived its ``timeout``."""

    def __init__(self, resource: str, attempt: int, timeout: float) -> None:
        super().__init__(
            f"resource {resource!r}: attempt {attempt} was not done after {timeout:g} s"
            " (the resource's timeout=)"
        )
        self.resource = resource
        self.attempt = attempt
        self.timeout = timeout


class CheckFailedError(LifespanGuardError):
    """Raised when a resource's check returned ``False``."""

    def __init__(self, resource: str) -> None:
        super().__init__(f"resource {resource!r}: its check returned False")
        self.resource = resource


class CheckTimeoutError(LifespanGuardError, TimeoutError):
    """Raised when a resource's check was not answered within its ``timeout``."""

    def __init__(self, resource: str, timeout: float) -> None:
        super().__init__(
            f"resource {resource!r}: its check was not answered after {timeout:g} s"
            " (Check(timeout=...))"
        )
        self.resource = resource
        self.timeout = timeout


class CloseTimeoutError(LifespanGuardError, TimeoutError):
    """Raised when a resource was not closed within its deadline."""

    def __init__(self, resource: str, timeout: float) -> None:
        super().__init__(
            f"resource {resource!r} was not closed after {timeout:.3g} s (the earlier"
            " of its close_timeout= and the guard's shutdown_timeout=, less what is"
            " kept for those that are closed after it)"
        )
        self.resource = resource
        self.timeout = timeout


class CrashedError(LifespanGuardError):
    """Raised when a resource's context manager ended while it was up."""

    def __init__(self, resource: str) -> None:
        super().__init__(
            f"resource {resource!r}: its context manager ended by itself while it was"
            " up; keep it open until it is left"
        )
        self.resource = resource


class StartupFailedError(LifespanGuardError):
    """Raised out of a startup that cannot succeed, after everything was closed."""

    def __init__(self, resource: str, attempts: int, cause: BaseException) -> None:
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        super().__init__(
            f"resource {resource!r} did not open after {times}: {describe(cause)}"
        )
        self.resource = resource
        self.attempts = attempts
        self.cause = cause


class NeedGaveUpError(LifespanGuardError):
    """Raised for a resource that cannot open because one of its needs gave up."""

    def __init__(self, resource: str, need: str) -> None:
        super().__init__(f"resource {resource!r} needs {need!r}, which gave up")
        self.resource = resource
        self.need = need


class StopRequestedError(LifespanGuardError):
    """Raised out of a startup that was told to stop before it was done."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"startup ended by {reason}")
        self.reason = reason


class AppLifespanError(LifespanGuardError):
    """Raised when a hosted app's own lifespan failed.

    Attributes:
        during: ``"startup"``, ``"shutdown"`` or ``"serving"``.
        told: Whether the app said so itself, with a ``lifespan.*.failed``.
        message: What it said there, if anything.
        cause: What it raised, if anything.
    """

    def __init__(
        self,
        during: str,
        cause: BaseException | None,
        *,
        told: bool = False,
        message: str | None = None,
    ) -> None:
        last_line = (message or "").strip().rpartition("\n")[2]
        told_why = last_line or "it gave no reason"
        reason = told_why if cause is None else describe(cause)
        super().__init__(redact(f"the app's lifespan failed during {during}: {reason}"))
        self.during = during
        self.told = told
        self.message = message
        self.cause = cause


class AppCannotRestartError(LifespanGuardError):
    """Raised when an app's lifespan can evidently not be run twice. Never retried."""

    def __init__(self, resource: str, sign: str, first: str) -> None:
        super().__init__(
            f"resource {resource!r}: this app's lifespan cannot be run a second time"
            f" ({sign}); the first attempt failed with {first}. Give a fresh app to"
            " each attempt: LifespanGuard(make_app, app_factory=True)"
        )
        self.resource = resource


class AppNotLoadedError(LifespanGuardError):
    """Raised when a request reaches an app that has not been imported or made yet."""

    def __init__(self) -> None:
        super().__init__(
            "the wrapped app has not been loaded yet; that is done by the lifespan,"
            " which the server has to run (or: lazy_start=True)"
        )


class NotReadyError(LifespanGuardError, TimeoutError):
    """Raised by `LifespanGuard.wait_ready` when its time was over."""

    def __init__(self, timeout: float, phase: str, missing: Sequence[str]) -> None:
        named = ", ".join(missing) or "nothing"
        super().__init__(
            f"not ready after {timeout:g} s: the guard is {phase}, missing: {named}"
        )
        self.timeout = timeout
        self.missing = tuple(missing)


class StateKeyClashError(LifespanGuardError):
    """Raised when an app's lifespan yields a key that is another's already."""

    def __init__(self, keys: Sequence[str]) -> None:
        named = ", ".join(map(repr, sorted(keys)))
        super().__init__(
            f"the app's lifespan put {named} into the state, which is also the name of"
            " a resource, or a key of another app's lifespan; rename one of them"
            " (resource(name=...))"
        )
        self.keys = tuple(sorted(keys))


class ResourceUnavailableError(LifespanGuardError, LookupError):
    """Raised by `Resource.get` where the resource's value is not to be had.

    Attributes:
        resource: The resource's name.
        reason: Why that is so.
    """

    def __init__(self, resource: str, reason: str) -> None:
        super().__init__(f"resource {resource!r} is not in the state: {reason}")
        self.resource = resource
        self.reason = reason


class GuardNotFoundError(LifespanGuardError, LookupError):
    """Raised by `LifespanGuard.of` where no guard can be found."""

    def __init__(self) -> None:
        super().__init__(
            "no LifespanGuard is to be found in this scope; wrap the app in one, and"
            " where nothing is registered with it keep it in a variable"
        )


class CloseFailedError(LifespanGuardError):
    """Raised after a stop in which not everything could be closed."""

    def __init__(self, errors: Mapping[str, BaseException]) -> None:
        self.errors = dict(errors)
        self.failed = tuple(sorted(errors))
        named = ", ".join(self.failed)
        super().__init__(f"not everything was closed cleanly: {named}")


def culprits(error: BaseException) -> Iterator[BaseException]:
    """Yield the leaves of a group; for an app's lifespan, of what the app raised."""
    for leaf in leaves(error):
        if isinstance(leaf, AppLifespanError) and leaf.cause is not None:
            yield from leaves(leaf.cause)
        else:
            yield leaf
