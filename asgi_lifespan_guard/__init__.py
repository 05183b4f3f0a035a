"""A guard around any ASGI app: it opens the port at once, and resources behind it.

`LifespanGuard` wraps the app, `resource` makes a recipe of what the app needs.

- `_guard` is the ASGI app, `_requests` what is done for a request off its fast path.
- `_run` is one start/stop cycle, with its `_drain` and `_signals`; `_lazy` begins one
  where no lifespan comes.
- `_app` makes a resource of an app's lifespan; `_plan` is what a guard was told.
- `events`, `_phases`, `_report`, `_errors`, `_settings`, `_state`, `_redaction` and
  `_frozen` are plain vocabulary, with nothing to await.
- `_asgi` speaks scope, receive and send, and knows no resource.
- `_resources` opens, watches and closes resources, and knows no ASGI.
- `_tasks` is what anyio leaves to be said about tasks.
- `observers` are told of events, and have no say.
- `testing` is for tests of guarded apps; `auto` is configured by the environment.
"""

from __future__ import annotations

from ._app import lifespan_of
from ._errors import (
    AppCannotRestartError,
    AppLifespanError,
    AppNotLoadedError,
    CheckFailedError,
    CheckTimeoutError,
    CloseFailedError,
    CloseTimeoutError,
    ConfigurationError,
    CrashedError,
    FactoryError,
    GuardNotFoundError,
    IllegalTransitionError,
    LifespanGuardError,
    NeedGaveUpError,
    NotReadyError,
    OpenedTwiceError,
    OpenTimeoutError,
    ResourceUnavailableError,
    StartupFailedError,
    StateKeyClashError,
    StopRequestedError,
)
from ._guard import LifespanGuard
from ._phases import Phase, ResourcePhase
from ._report import Report, ResourceReport
from ._resources.checks import Check
from ._resources.resource import Resource, resource
from ._resources.retry import Retry
from ._settings import Drain, Gate, Probes
from .events import Observer


__all__ = [
    "AppCannotRestartError",
    "AppLifespanError",
    "AppNotLoadedError",
    "Check",
    "CheckFailedError",
    "CheckTimeoutError",
    "CloseFailedError",
    "CloseTimeoutError",
    "ConfigurationError",
    "CrashedError",
    "Drain",
    "FactoryError",
    "Gate",
    "GuardNotFoundError",
    "IllegalTransitionError",
    "LifespanGuard",
    "LifespanGuardError",
    "NeedGaveUpError",
    "NotReadyError",
    "Observer",
    "OpenTimeoutError",
    "OpenedTwiceError",
    "Phase",
    "Probes",
    "Report",
    "Resource",
    "ResourcePhase",
    "ResourceReport",
    "ResourceUnavailableError",
    "Retry",
    "StartupFailedError",
    "StateKeyClashError",
    "StopRequestedError",
    "lifespan_of",
    "resource",
]
