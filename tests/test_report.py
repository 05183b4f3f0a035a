"""Reports: what ready, live and started mean."""

from __future__ import annotations

import pytest

from asgi_lifespan_guard import Phase, Report, ResourcePhase, ResourceReport


def _of(
    phase: ResourcePhase = ResourcePhase.UP,
    *,
    name: str = "db",
    required: bool = True,
    was_up: bool = False,
    fatal: bool = False,
) -> ResourceReport:
    return ResourceReport(
        name=name,
        phase=phase,
        required=required,
        startup="background",
        was_up=was_up,
        fatal=fatal,
    )


@pytest.mark.parametrize("phase", ResourcePhase)
def test_a_resource_satisfies_when_it_is_up_or_off(phase: ResourcePhase) -> None:
    """Up and skipped satisfy; failing checks, or any other phase, does not."""
    satisfied = phase in (ResourcePhase.UP, ResourcePhase.SKIPPED)
    assert _of(phase).satisfied is satisfied
    assert Report(phase=Phase.SERVING, resources=(_of(phase),)).ready is satisfied


@pytest.mark.parametrize("phase", Phase)
def test_only_a_serving_guard_is_ready(phase: Phase) -> None:
    """A draining guard, or any that does not serve, is unready whatever is up."""
    assert Report(phase=phase, resources=(_of(),)).ready is (phase is Phase.SERVING)


def test_a_paused_guard_is_not_ready() -> None:
    """A pause turns readiness, and neither liveness nor what has been started."""
    report = Report(phase=Phase.SERVING, paused="deploy", resources=())
    assert (report.ready, report.live, report.started) == (False, True, True)


def test_optional_resources_count_for_nothing() -> None:
    """An optional resource that is away turns neither readiness nor startup."""
    away = _of(ResourcePhase.WAITING, required=False)
    report = Report(phase=Phase.SERVING, resources=(away,))
    assert (report.ready, report.started) == (True, True)


def test_excluded_names_count_as_optional() -> None:
    """What is excluded is left out of the question; the others still count."""
    resources = (_of(ResourcePhase.WAITING), _of(name="cache", was_up=True))
    report = Report(phase=Phase.SERVING, resources=resources)
    assert (report.ready, report.ready_without({"db"})) == (False, True)
    assert (report.started, report.started_without({"db"})) == (False, True)


@pytest.mark.parametrize("phase", Phase)
def test_started_is_latched_once_everything_was_up(phase: Phase) -> None:
    """What was up counts as started, also when it is away now; not before a start."""
    resources = (_of(ResourcePhase.WAITING, was_up=True),)
    begun = phase not in (Phase.IDLE, Phase.STARTING, Phase.FAILED)
    assert Report(phase=phase, resources=resources).started is begun


def test_liveness_depends_on_fatal_resources_only() -> None:
    """No phase of a resource makes a process dead; having given up for good does."""
    lost = tuple(_of(phase) for phase in ResourcePhase)
    assert Report(phase=Phase.SERVING, resources=lost).live
    assert not Report(phase=Phase.SERVING, resources=(*lost, _of(fatal=True))).live


def test_a_report_is_asked_by_name() -> None:
    """The report of one resource is found by its name, or is `None`."""
    report = Report(phase=Phase.SERVING, resources=(_of(), _of(name="cache")))
    assert report.resource("cache") is report.resources[1]
    assert report.resource("index") is None
