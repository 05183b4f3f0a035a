"""Errors: facts go in, a text with the remedy comes out."""

from __future__ import annotations

import inspect

import pytest

from asgi_lifespan_guard import (
    AppCannotRestartError,
    AppLifespanError,
    AppNotLoadedError,
    CheckFailedError,
    CheckTimeoutError,
    CloseFailedError,
    CloseTimeoutError,
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
    _errors,
)


SECRET = OSError("redis://:hunter2@h")
TEXTS: list[tuple[LifespanGuardError, list[str]]] = [
    (IllegalTransitionError("db", "up", "open"), ["db", "'up'", "'open'"]),
    (FactoryError("db", "bad", "do this"), ["'db'", "bad; do this"]),
    (OpenTimeoutError("db", 3, 0.5), ["'db'", "attempt 3", "0.5 s", "timeout="]),
    (CheckFailedError("db"), ["'db'", "returned False"]),
    (CheckTimeoutError("db", 0.5), ["'db'", "0.5 s", "Check(timeout=...)"]),
    (
        CloseTimeoutError("db", 1.0),
        ["'db'", "after 1 s", "close_timeout=", "shutdown_timeout="],
    ),
    (CrashedError("db"), ["'db'", "keep it open until it is left"]),
    (StartupFailedError("db", 1, SECRET), ["'db'", "1 attempt: OSError: redis://:***"]),
    (StartupFailedError("db", 2, SECRET), ["2 attempts"]),
    (NeedGaveUpError("api", "db"), ["'api'", "'db'", "gave up"]),
    (StopRequestedError("SIGTERM"), ["SIGTERM"]),
    (AppLifespanError("startup", SECRET), ["startup", "OSError: redis://:***@h"]),
    (AppLifespanError("shutdown", None), ["shutdown", "it gave no reason"]),
    (
        AppLifespanError("startup", SECRET, told=True, message="Traceback\nA: b\n"),
        ["startup: OSError: redis://:***@h"],
    ),
    (
        AppCannotRestartError("app", "a closed pool", "OSError"),
        ["'app'", "a closed pool", "OSError", "app_factory=True"],
    ),
    (AppNotLoadedError(), ["by the lifespan", "lazy_start=True"]),
    (
        NotReadyError(0.5, "serving", ["db", "cache"]),
        ["0.5 s", "is serving", "missing: db, cache"],
    ),
    (NotReadyError(0.5, "idle", []), ["is idle", "missing: nothing"]),
    (OpenedTwiceError(["db"]), ["'db' would be opened twice", "Wrap an app once"]),
    (StateKeyClashError(["b", "a"]), ["'a', 'b'", "resource(name=...)"]),
    (
        ResourceUnavailableError("db", "the guard has stopped"),
        ["'db' is not in the state: the guard has stopped"],
    ),
    (GuardNotFoundError(), ["wrap the app in one", "variable"]),
    (CloseFailedError({"db": SECRET, "cache": SECRET}), ["cache, db"]),
]


@pytest.mark.parametrize(("error", "parts"), TEXTS)
def test_every_text_holds_its_facts_and_the_remedy(
    error: LifespanGuardError, parts: list[str]
) -> None:
    """What went wrong with what, and what to do; never a password."""
    text = str(error)
    assert [part for part in parts if part not in text] == []
    assert "hunter2" not in text


def test_every_error_is_tried() -> None:
    """The list above leaves no class out, and all have the one base."""
    classes = {
        kind
        for _, kind in inspect.getmembers(_errors, inspect.isclass)
        if issubclass(kind, Exception)
    }
    tried = {type(error) for error, _ in TEXTS}
    assert classes - tried == {LifespanGuardError, _errors.ConfigurationError}
    assert all(issubclass(kind, LifespanGuardError) for kind in classes)


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (OpenTimeoutError("db", 1, 1), TimeoutError),
        (CheckTimeoutError("db", 1), TimeoutError),
        (CloseTimeoutError("db", 1), TimeoutError),
        (NotReadyError(1, "serving", []), TimeoutError),
        (ResourceUnavailableError("db", "it is away"), LookupError),
        (GuardNotFoundError(), LookupError),
    ],
)
def test_some_errors_are_also_what_python_calls_them(
    error: LifespanGuardError, also: type[Exception]
) -> None:
    """Timeouts are caught as `TimeoutError`, missing things as `LookupError`."""
    assert isinstance(error, also)


def test_facts_are_kept_as_attributes() -> None:
    """A handler need not read the text."""
    late = OpenTimeoutError("db", 3, 0.5)
    assert (late.resource, late.attempt, late.timeout) == ("db", 3, 0.5)
    asked = CheckTimeoutError("db", 0.5)
    assert (asked.resource, asked.timeout) == ("db", 0.5)
    assert CheckFailedError("db").resource == "db"
    away = NotReadyError(0.5, "serving", ["db"])
    assert (away.timeout, away.missing) == (0.5, ("db",))
    failed = StartupFailedError("db", 2, SECRET)
    assert (failed.resource, failed.attempts, failed.cause) == ("db", 2, SECRET)
    app = AppLifespanError("startup", SECRET, told=True, message="no")
    assert (app.during, app.told, app.message) == ("startup", True, "no")
    assert app.cause is SECRET
    assert StateKeyClashError(["b", "a"]).keys == ("a", "b")
    not_closed = CloseFailedError({"db": SECRET})
    assert (not_closed.failed, not_closed.errors) == (("db",), {"db": SECRET})
    assert NeedGaveUpError("api", "db").need == "db"
    missing = ResourceUnavailableError("db", "it is away")
    assert (missing.resource, missing.reason) == ("db", "it is away")
    assert StopRequestedError("SIGTERM").reason == "SIGTERM"
