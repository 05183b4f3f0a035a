"""A guard around any ASGI app: it opens the port at once, and resources behind it.

`LifespanGuard` wraps the app, `resource` makes a recipe of what the app needs. The
house:

- `_guard`, `_controls`, `_admission`, `_plan`, `_lifetime`, `_cycle`, `_hosting`,
  `_drain`, `_stop_signals`, `_lazy`, `_lifespan_of`: the door and its floors, where
  the wings meet.
- `_phases`, `_events`, `_health`, `_errors`, `_settings`, `_state`, `_redaction`: the
  hall, plain vocabulary that both wings use; nothing in it awaits.
- `_asgi`: the wing that speaks scope, receive and send.
- `_resources`: the wing that opens, holds and closes resources.
- `_process`: the wing that speaks to the operating system.
- `_tasks`: the cellar, what both wings need of tasks.
- `observers`: who is told of events; `events`: those, by their public names.
- `testing`: for tests of guarded apps.
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
