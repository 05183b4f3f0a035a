"""What the probes answer, made of a report and nothing else."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from asgi_lifespan_guard import Phase, Probes, Report, ResourcePhase, ResourceReport
from asgi_lifespan_guard._asgi.probes import ProbeResponder
from asgi_lifespan_guard._tasks.waiting import Waiters
from tests.support.memory_server import MemoryServer, Request


pytestmark = pytest.mark.anyio

NAMES = ("db", "cache", "web", "app")


def up(name: str, **options: Any) -> ResourceReport:
    """Report a resource that is up."""
    options = {"required": True, "was_up": True, "phase": ResourcePhase.UP, **options}
    return ResourceReport(name=name, startup="background", **options)


def away(name: str, **options: Any) -> ResourceReport:
    """Report a resource that waits for its next attempt."""
    waiting = {"phase": ResourcePhase.WAITING, "was_up": False}
    return up(name, **{**waiting, **options})


def serving(*resources: ResourceReport) -> Report:
    """Report a guard that is serving."""
    return Report(phase=Phase.SERVING, resources=resources)


async def ask(report: Report, path: str, probes: Probes | None = None) -> Request:
    """Put one GET request to a responder."""
    responder = ProbeResponder(probes or Probes(), NAMES, lambda: report, Waiters())
    return await MemoryServer(responder.app).get(path)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        pytest.param(Report(phase=Phase.IDLE), (200, 503, 503), id="idle"),
        pytest.param(Report(phase=Phase.STARTING), (200, 503, 503), id="starting"),
        pytest.param(serving(), (200, 200, 200), id="nothing-registered"),
        pytest.param(serving(up("db")), (200, 200, 200), id="up"),
        pytest.param(serving(away("db")), (200, 503, 503), id="away"),
        pytest.param(serving(away("db", was_up=True)), (200, 503, 200), id="latched"),
        pytest.param(
            serving(away("x", required=False)), (200, 200, 200), id="optional"
        ),
        pytest.param(
            serving(up("db", phase=ResourcePhase.FAILING)),
            (200, 503, 200),
            id="failing",
        ),
        pytest.param(
            serving(up("db", phase=ResourcePhase.SKIPPED)),
            (200, 200, 200),
            id="skipped",
        ),
        pytest.param(
            serving(up("db", phase=ResourcePhase.FAILED, fatal=True)),
            (503, 503, 200),
            id="fatal",
        ),
        pytest.param(
            Report(phase=Phase.SERVING, paused="maintenance"),
            (200, 503, 200),
            id="paused",
        ),
        pytest.param(Report(phase=Phase.DRAINING), (200, 503, 200), id="draining"),
        pytest.param(Report(phase=Phase.STOPPING), (200, 503, 200), id="stopping"),
        pytest.param(Report(phase=Phase.FAILED), (200, 503, 503), id="failed"),
    ],
)
async def test_verdicts(report: Report, expected: tuple[int, int, int]) -> None:
    """Liveness, readiness and startup each say what the report says of them."""
    answers = [await ask(report, path) for path in ("/livez", "/readyz", "/startupz")]
    assert tuple(answer.status for answer in answers) == expected
    for answer in answers:
        word = "pass" if answer.status == 200 else "fail"
        assert answer.json() == {"status": word}
        assert answer.headers["content-type"] == "application/health+json"
        assert answer.headers["cache-control"] == "no-store"


async def test_head_has_no_body() -> None:
    """HEAD gets what GET gets, without the body."""
    server = MemoryServer(
        ProbeResponder(Probes(), NAMES, lambda: serving(away("db")), Waiters()).app
    )
    head = await server.http("/readyz", method="HEAD").run()
    get = await server.get("/readyz")
    assert (head.status, head.headers, head.body) == (503, get.headers, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(method: str) -> None:
    """Whatever is neither GET nor HEAD gets 405, and hears what is allowed."""
    server = MemoryServer(ProbeResponder(Probes(), NAMES, serving, Waiters()).app)
    answer = await server.http("/readyz", method=method).run()
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/readyz?exclude=db", 503),
        ("/readyz?exclude=db&exclude=cache", 200),
        ("/readyz?exclude=db&exclude=cache&exclude=typo", 200),
        ("/readyz?exclude=", 503),
        ("/startupz?exclude=db&exclude=cache", 200),
        ("/startupz?exclude=db", 503),
        ("/readyz?%ff=%zz&=&exclude", 503),
    ],
)
async def test_excluded_resources_do_not_count(path: str, status: int) -> None:
    """`?exclude=` may be repeated, and a name that is unknown changes nothing."""
    report = serving(away("db"), away("cache"), up("web"))
    answer = await ask(report, path)
    assert (answer.status, set(answer.json())) == (status, {"status"})


@pytest.mark.parametrize(
    ("name", "status"), [("db", 503), ("web", 200), ("typo", 404), ("", 404)]
)
async def test_each_resource_has_a_path(name: str, status: int) -> None:
    """`/readyz/<name>` answers for one resource, with its status alone."""
    answer = await ask(serving(away("db"), up("web")), f"/readyz/{name}")
    assert answer.status == status
    if status != 404:
        assert answer.json() == {"status": "pass" if status == 200 else "fail"}


SECRETIVE = away(
    "db",
    last_error="OSError: postgresql://app:***@db:5432 refused",
    next_attempt_in=2.50049,
    attempts=3,
    since=1_700_000_000.25,
)


@pytest.mark.parametrize(
    "path",
    [
        "/readyz?verbose",
        "/livez?verbose",
        "/startupz?verbose=1",
        "/readyz/db?verbose",
        "/readyz?verbose&exclude=db&exclude=typo",
    ],
)
async def test_a_stranger_learns_nothing_but_the_verdict(path: str) -> None:
    """Without `details` no name, error or phase is shown, whatever is asked for."""
    report = Report(
        phase=Phase.SERVING, resources=(SECRETIVE,), last_error="OSError: secret"
    )
    answer = await ask(report, path)
    assert set(answer.json()) == {"status"}


@pytest.mark.parametrize(
    ("path", "details"),
    [
        ("/livez?x", False),
        ("/livez?verbose&exclude=db", False),
        ("/readyz?verbose", False),
        ("/readyz?include=db", False),
        ("/readyz/db?verbose&exclude=db", False),
        ("/livez?exclude=db", True),
        ("/startupz?" + "x" * 60_000, True),
    ],
)
async def test_a_query_that_changes_nothing_costs_nothing(
    path: str, details: bool
) -> None:
    """However often a stranger asks, the report is made once."""
    reports = []

    def report() -> Report:
        reports.append(serving(SECRETIVE))
        return reports[-1]

    responder = ProbeResponder(Probes(details=details), NAMES, report, Waiters())
    server = MemoryServer(responder.app)
    answers = [await server.get(path) for _ in range(3)]
    assert len({answer.body for answer in answers}) == 1
    assert len(reports) == 1


async def test_a_query_is_read_to_a_bounded_length() -> None:
    """Of what is asked for beyond that, nothing counts."""
    reasonable = "&".join(["exclude=other"] * 500 + ["exclude=d%62"])
    assert (await ask(serving(away("db")), f"/readyz?{reasonable}")).status == 200
    endless = "&".join(["exclude=other"] * 5_000 + ["exclude=db"])
    assert (await ask(serving(away("db")), f"/readyz?{endless}")).status == 503


async def test_details_show_everything() -> None:
    """With `details`, `?verbose` shows the report."""
    report = Report(
        phase=Phase.SERVING,
        paused="maintenance",
        resources=(SECRETIVE, up("web", opened_in=0.0123456)),
        last_error="OSError: earlier",
    )
    answer = await ask(report, "/readyz?verbose", Probes(details=True))
    shown = answer.json()
    assert {key: shown[key] for key in ("status", "phase", "paused", "lastError")} == {
        "status": "fail",
        "phase": "serving",
        "paused": "maintenance",
        "lastError": "OSError: earlier",
    }
    assert list(shown["resources"]) == ["db", "web"]
    assert shown["resources"]["db"] == {
        "status": "fail",
        "phase": "waiting",
        "required": True,
        "startup": "background",
        "attempts": 3,
        "lastError": "OSError: postgresql://app:***@db:5432 refused",
        "nextAttemptIn": 2.5,
        "since": "2023-11-14T22:13:20.250Z",
        "openedIn": None,
    }
    opened = shown["resources"]["web"]
    assert (opened["openedIn"], opened["nextAttemptIn"]) == (0.012, None)
    assert opened["since"] is None  # Nothing has been opened yet.


async def test_details_are_asked_for() -> None:
    """Without `?verbose` the verdict is all, details or not."""
    answer = await ask(serving(SECRETIVE), "/readyz", Probes(details=True))
    assert answer.json() == {"status": "fail"}


async def test_details_tell_unknown_exclusions() -> None:
    """A misspelt `?exclude=` shows where details may be shown."""
    path = "/readyz?verbose&exclude=db&exclude=dv"
    answer = await ask(serving(SECRETIVE), path, Probes(details=True))
    shown = answer.json()
    assert (answer.status, shown["excluded"], shown["unknown"]) == (200, ["db"], ["dv"])


async def test_details_of_one_resource() -> None:
    """With `details`, a resource's own path shows its report."""
    answer = await ask(serving(SECRETIVE), "/readyz/db", Probes(details=True))
    assert (answer.status, answer.json()["attempts"]) == (503, 3)


async def test_paths_can_be_chosen() -> None:
    """Each probe may have another path, or none."""
    probes = Probes(live="/health/live", ready=None, startup=None)
    assert (await ask(serving(), "/health/live", probes)).status == 200
    for path in ("/livez", "/readyz", "/readyz/db", "/startupz"):
        assert (await ask(serving(up("db")), path, probes)).status == 404


async def test_only_real_paths_are_kept_out_of_the_access_log() -> None:
    """Names that somebody makes up are logged, and not remembered."""
    responder = ProbeResponder(Probes(), NAMES, lambda: serving(up("db")), Waiters())
    server = MemoryServer(responder.app)
    paths = ("/livez", "/readyz/db", "/readyz/made-up")
    for path in paths:
        await server.get(path)
    assert [responder.filter.filter(_record(path)) for path in paths] == [
        False,
        False,
        True,
    ]


def _record(path: str) -> logging.LogRecord:
    args = ("1.2.3.4", "GET", path, "1.1", 200)
    return logging.LogRecord("uvicorn.access", 20, "", 0, "", args, None)


async def test_app_strips_the_root_path() -> None:
    """Below a mount the probes are found, whether or not the path carries its root."""
    server = MemoryServer(
        ProbeResponder(Probes(), NAMES, serving, Waiters()).app, root_path="/internal"
    )
    assert (await server.get("/internal/livez")).status == 200
    assert (await server.get("/livez")).status == 200
    assert (await server.get("/other/livez")).status == 404


async def test_app_has_a_lifespan_of_its_own() -> None:
    """On a port of its own the probes' app starts and stops as any app."""
    async with MemoryServer(
        ProbeResponder(Probes(), NAMES, serving, Waiters()).app
    ) as server:
        pass
    assert server.said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_app_takes_no_websocket() -> None:
    """A WebSocket is closed before it is accepted."""
    handshake = MemoryServer(
        ProbeResponder(Probes(), NAMES, serving, Waiters()).app
    ).websocket("/livez")
    await handshake.run()
    assert handshake.phase == "closed"
