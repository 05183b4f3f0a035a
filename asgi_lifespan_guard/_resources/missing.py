"""Why a resource's value is not where it was looked for: the one cause that holds."""

from __future__ import annotations

from typing import Any

from .._phases import Phase, ResourcePhase
from .._report import OPEN, Report, ResourceReport
from .._state import KEY, Source, scope_of, state_of


_NOT_SERVED = {
    Phase.IDLE: "the guard has not been started; that is done by the lifespan, which"
    " the server has to run (uvicorn --lifespan on), and in tests a client that does so"
    " (`with TestClient(app)`, asgi_lifespan_guard.testing's `running(app)`)",
    Phase.STOPPED: "the guard has stopped",
    Phase.FAILED: "the guard's startup has failed",
}


def why_missing(source: Source, name: str, *, merges: bool) -> str:
    """Return why the value of the resource called *name* is not to be had.

    Args:
        source: Where it was looked for.
        name: The resource's.
        merges: Whether its value is no value of its own.
    """
    guard = _guard_of(source)
    if guard is None:
        return (
            "no guard that is started has let this request in; wrap the app that is"
            f" served, LifespanGuard(app, resources=[{name}]), and have the server run"
            " its lifespan"
        )
    report: Report = guard.report()
    found = report.resource(name)
    if found is None:
        return (
            "it is not registered with the guard that has let this request in:"
            f" LifespanGuard(app, resources=[..., {name}])"
        )
    if report.phase in _NOT_SERVED:
        return _NOT_SERVED[report.phase] + _because(report.last_error)
    if merges:
        return "what a lifespan yields is merged into the state, each key by itself"
    return _why_away(found, in_request=scope_of(source) is not None)  # type: ignore[arg-type]


def _guard_of(source: Source) -> Any:
    """Return the guard that *source* is, or that has let it in, if any."""
    version = state_of(source).get(KEY)
    if version is not None:
        return version.guard
    is_guard = scope_of(source) is None and hasattr(source, "report")  # type: ignore[arg-type]
    return source if is_guard else None


def _why_away(found: ResourceReport, *, in_request: bool) -> str:
    if found.phase is ResourcePhase.SKIPPED:
        return f"it is not enabled; {found.name}.get(source, default) returns a default"
    if found.phase in OPEN:
        return "it was away when this request was let in, and is up by now"
    text = f"it is away ({found.phase.value}){_because(found.last_error)}"
    if not found.required:
        return f"{text}; requests come without it, because it is optional"
    if in_request:
        return f"{text}; this path does not wait for it (Gate(needs=...))"
    return text


def _because(error: str | None) -> str:
    return "" if error is None else f": {error}"
