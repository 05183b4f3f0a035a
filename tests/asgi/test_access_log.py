"""Probe hits stay out of the access logs of uvicorn, hypercorn and granian."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from granian.log import log_request_builder
from hypercorn.logging import AccessLogAtoms

from asgi_lifespan_guard._asgi.probes import LOGGERS, MOST_HIDDEN, ProbeFilter


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[list[logging.LogRecord]]:
    """Collect what the servers' access loggers let through."""
    handler = _Kept()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield handler.records
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


def _log_as_uvicorn(path: str) -> None:
    logging.getLogger("uvicorn.access").info(
        '%s - "%s %s HTTP/%s" %d', "127.0.0.1:5", "GET", path, "1.1", 200
    )


def _log_as_hypercorn(path: str) -> None:
    target, _, query = path.partition("?")
    request: Any = {
        "type": "http",
        "method": "GET",
        "path": target,
        "query_string": query.encode(),
        "scheme": "http",
        "headers": [],
    }
    response: Any = {"status": 200, "headers": []}
    logging.getLogger("hypercorn.access").info(
        "%(h)s %(R)s %(s)s", AccessLogAtoms(request, response, 0.1)
    )


def _log_as_granian(path: str) -> None:
    target, _, query = path.partition("?")
    request = {
        "addr_remote": "127.0.0.1",
        "path": target,
        "qs": query,
        "method": "GET",
        "scheme": "http",
        "protocol": "HTTP/1.1",
    }
    build: Any = log_request_builder
    build("%(path)s %(status)d")(0.0, 0.0, request, 200)


LogAccess = Callable[[str], None]


@pytest.mark.parametrize(
    "log_access",
    [
        pytest.param(_log_as_uvicorn, id="uvicorn"),
        pytest.param(_log_as_hypercorn, id="hypercorn"),
        pytest.param(_log_as_granian, id="granian"),
    ],
)
def test_drops_probe_hits_only(
    log_access: LogAccess, kept: list[logging.LogRecord]
) -> None:
    """Hits of hidden paths are dropped, with or without a query; others are kept."""
    probes = ProbeFilter()
    probes.hide("/livez")
    with probes.installed():
        for path in ("/livez", "/livez?verbose", "/livezz", "/"):
            log_access(path)
    messages = [record.getMessage() for record in kept]
    assert len(messages) == 2
    assert "/livezz" in messages[0]


def test_remembers_so_many_paths_and_no_more(kept: list[logging.LogRecord]) -> None:
    """Under however many paths strangers ask: who asks again is hidden again."""
    hider = ProbeFilter()
    with hider.installed():
        for number in range(10_000):
            hider.hide("/livez")
            hider.hide(f"/{number}/livez")
        assert len(hider._hidden) == MOST_HIDDEN
        for path in ("/livez", "/9999/livez", "/0/livez"):
            _log_as_uvicorn(path)
    (record,) = kept
    assert "GET /0/livez" in record.getMessage()


def test_leaves_the_loggers_as_they_were(kept: list[logging.LogRecord]) -> None:
    """Outside of the block nothing is filtered."""
    probes = ProbeFilter()
    probes.hide("/livez")
    with probes.installed():
        pass
    _log_as_uvicorn("/livez")
    assert len(kept) == 1


@pytest.mark.parametrize(
    "args",
    [
        pytest.param((), id="none"),
        pytest.param(("/livez",), id="one"),
        pytest.param(({"status": 200},), id="mapping-without-a-path"),
    ],
)
def test_keeps_what_it_cannot_read(args: tuple[object, ...]) -> None:
    """A record of another shape is none of our business."""
    probes = ProbeFilter()
    probes.hide("/livez")
    assert probes.filter(logging.LogRecord("x", 20, "", 0, "", args, None))
