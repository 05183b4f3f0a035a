"""Answers liveness, readiness and startup probes from a report, and nothing else.

In the manner of kube-apiserver: ``?verbose``, repeatable ``?exclude=<name>``, one
path for each resource below the readiness probe. Without `Probes.details` whoever asks
learns nothing but the verdict.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from math import isinf
from typing import Any
from urllib.parse import unquote_plus

from .._frozen import Frozen
from .._report import Report, ResourceReport
from .._settings import Probes
from .._tasks.waiting import Waiters
from .paths import app_path
from .reading import query_of
from .responses import Answer, answer_http, json_answer, problem
from .types import Receive, Scope, Send


HEALTH = b"application/health+json"
LOGGERS = ("uvicorn.access", "hypercorn.access", "granian.access")

MOST_FIELDS = 1000
"""Fields of a query that are looked at."""

MOST_HIDDEN = 100
"""Paths that are kept out of the access logs."""


class Query(Frozen):
    """What the asker wants to know beyond the verdict."""

    verbose: bool
    excluded: tuple[str, ...]

    @classmethod
    def of(cls, scope: Scope) -> Query:
        """Read it from a request's query string."""
        # No more are read than anybody needs: strangers may ask for anything.
        fields = query_of(scope).split(b"&", MOST_FIELDS)[:MOST_FIELDS]
        verbose = any(field.partition(b"=")[0] == b"verbose" for field in fields)
        names = (f[len(_EXCLUDE) :] for f in fields if f.startswith(_EXCLUDE))
        return cls(
            verbose, tuple(unquote_plus(name.decode("latin-1")) for name in names)
        )


_EXCLUDE = b"exclude="
_PLAIN = Query(verbose=False, excluded=())
_NOT_ALLOWED = problem(
    405, "Method Not Allowed", "Probes answer GET and HEAD."
).with_header(b"allow", b"GET, HEAD")
_NEVER = -1, problem(503, "Service Unavailable", "It has not been asked for yet.")


class ProbeResponder:
    """Knows the probes' paths and answers them.

    Args:
        probes: The paths, and whether details may be shown.
        names: The resources', for the paths below the readiness probe.
        report: Takes the snapshot that an answer is made of.
        news: Woken when answers may have changed.

    Attributes:
        paths: The paths that are answered here; all others are the app's.
    """

    def __init__(
        self,
        probes: Probes,
        names: Iterable[str],
        report: Callable[[], Report],
        news: Waiters,
    ) -> None:
        self.filter = ProbeFilter()
        self._details = probes.details
        self._report = report
        verdicts: tuple[tuple[str | None, Callable[[Report, Query], bool]], ...] = (
            (probes.live, _live),
            (probes.ready, _ready),
            (probes.startup, _started),
        )
        self._verdicts = {path: verdict for path, verdict in verdicts if path}
        self._news = news
        self._remembered: dict[str, tuple[int, Answer]] = {}
        below = [] if probes.ready is None else names
        self._names = {f"{probes.ready}/{name}": name for name in below}
        self.paths = frozenset((*self._verdicts, *self._names))

    async def answer(self, path: str, scope: Scope, send: Send) -> None:
        """Answer the probe at *path*."""
        self.filter.hide(scope["path"])
        if scope.get("method") not in ("GET", "HEAD"):
            await answer_http(scope, send, _NOT_ALLOWED)
            return
        query = query_of(scope)
        if query and self._is_about(path, query):
            answer = self._answer_to(path, Query.of(scope))
        else:
            made, answer = self._remembered.get(path, _NEVER)
            if made != self._news.wakings:
                answer = self._remember(path)
        await answer_http(scope, send, answer)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer probes as an ASGI app of its own, for a private port or a mount."""
        if scope["type"] == "lifespan":
            await _have_an_empty_lifespan(receive, send)
        elif scope["type"] == "http":
            path = app_path(scope)
            if path in self.paths:
                await self.answer(path, scope, send)
            else:
                nothing = problem(404, "Not Found", "There is no such probe.")
                await answer_http(scope, send, nothing)
        else:
            await send({"type": "websocket.close", "code": 1000})

    def _is_about(self, path: str, query: bytes) -> bool:
        """Whether *query* could make another answer of the probe at *path*."""
        verdict = self._verdicts.get(path)
        if verdict is not None and self._details and b"verbose" in query:
            return True
        return verdict in (_ready, _started) and _EXCLUDE in query

    def _remember(self, path: str) -> Answer:
        answer = self._answer_to(path, _PLAIN)
        if path in self._verdicts or not self._details:
            self._remembered[path] = self._news.wakings, answer
        return answer

    def _answer_to(self, path: str, query: Query) -> Answer:
        report = self._report()
        verdict = self._verdicts.get(path)
        if verdict is None:
            return self._answer_for_one(self._names[path], report)
        good = verdict(report, query)
        content: dict[str, Any] = {"status": _word(good)}
        if self._details and query.verbose:
            content |= _details(report, query)
        return json_answer(200 if good else 503, HEALTH, content)

    def _answer_for_one(self, name: str, report: Report) -> Answer:
        resource = next(r for r in report.resources if r.name == name)
        content: dict[str, Any] = {"status": _word(resource.satisfied)}
        if self._details:
            content = _shown(resource)
        return json_answer(200 if resource.satisfied else 503, HEALTH, content)


def _live(report: Report, _query: Query) -> bool:
    return report.live


def _ready(report: Report, query: Query) -> bool:
    return report.ready_without(query.excluded)


def _started(report: Report, query: Query) -> bool:
    return report.started_without(query.excluded)


def _word(good: bool) -> str:
    return "pass" if good else "fail"


def _details(report: Report, query: Query) -> dict[str, Any]:
    known = {resource.name for resource in report.resources}
    content: dict[str, Any] = {
        "phase": report.phase.value,
        "paused": report.paused,
        "lastError": report.last_error,
        "resources": {resource.name: _shown(resource) for resource in report.resources},
    }
    if query.excluded:
        content["excluded"] = sorted(known.intersection(query.excluded))
        content["unknown"] = sorted(set(query.excluded) - known)
    return content


def _shown(resource: ResourceReport) -> dict[str, Any]:
    return {
        "status": _word(resource.satisfied),
        "phase": resource.phase.value,
        "required": resource.required,
        "startup": resource.startup,
        "attempts": resource.attempts,
        "lastError": resource.last_error,
        "nextAttemptIn": _seconds(resource.next_attempt_in),
        "since": _moment(resource.since),
        "openedIn": _seconds(resource.opened_in),
    }


def _seconds(told: float | None) -> float | None:
    """Return what JSON can hold: a wait that only `retry_now` ends has no number."""
    return None if told is None or isinf(told) else round(told, 3)


def _moment(told: float) -> str | None:
    """Return seconds since the epoch in ISO 8601; ``None``: nothing has begun."""
    from datetime import UTC, datetime

    if not told:
        return None
    shown = datetime.fromtimestamp(told, UTC).isoformat(timespec="milliseconds")
    return shown.replace("+00:00", "Z")


async def _have_an_empty_lifespan(receive: Receive, send: Send) -> None:
    for stage in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{stage}.complete"})


class ProbeFilter(logging.Filter):
    """Keeps probe hits out of the servers' access logs.

    A probe every few seconds from every kubelet and balancer drowns what people look
    for. uvicorn's records carry their arguments as a tuple, hypercorn's and granian's
    as a mapping; what is neither is left alone.

    Only so many paths are remembered, the latest ones: below a mount that takes
    anything, strangers may ask for a probe under any path. A path that is asked for
    again is hidden again, before the server writes of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._hidden: dict[str, None] = {}

    def hide(self, path: str) -> None:
        """Drop records of *path*, which is as the server sees it, from now on."""
        hidden = self._hidden
        if path not in hidden or len(hidden) >= MOST_HIDDEN:
            hidden.pop(path, None)
            hidden[path] = None
            if len(hidden) > MOST_HIDDEN:
                del hidden[next(iter(hidden))]

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether *record* is to be kept."""
        path = _path_of(record)
        return path is None or path.partition("?")[0] not in self._hidden

    @contextmanager
    def installed(self) -> Generator[None, None, None]:
        """Filter the servers' access loggers inside the body."""
        loggers = [logging.getLogger(name) for name in LOGGERS]
        for logger in loggers:
            logger.addFilter(self)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(self)


def _path_of(record: logging.LogRecord) -> str | None:
    args = record.args
    if isinstance(args, tuple) and len(args) >= 3:
        return str(args[2])
    if isinstance(args, Mapping):
        return _path_of_mapping(args)
    return None


def _path_of_mapping(args: Mapping[str, object]) -> str | None:
    # Asked with `in` first: hypercorn's mapping says "-" for a key that it lacks.
    return next((str(args[key]) for key in ("path", "U") if key in args), None)
