"""What formatters of others make of the guard's records: JSON, with all of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
import structlog

from asgi_lifespan_guard.events import AttemptFailed, ResourceOpened
from asgi_lifespan_guard.observers.logging import Log, logger


class JsonFormatter(logging.Formatter):
    """As people write them, and as packages for it do: what is extra is a field."""

    def format(self, record: logging.LogRecord) -> str:
        known = {*vars(logging.makeLogRecord({})), "message", "asctime"}
        extra = {k: value for k, value in vars(record).items() if k not in known}
        content = {"message": record.getMessage(), "level": record.levelname, **extra}
        if record.exc_text:
            content["exc_info"] = record.exc_text
        return json.dumps(content)


def of_structlog() -> logging.Formatter:
    """Return its formatter, as its documentation says for records of others."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ],
    )


@contextmanager
def written(formatter: logging.Formatter) -> Generator[StringIO, None, None]:
    """Have the guard's log written by *formatter*."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    try:
        yield stream
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize("make", [JsonFormatter, of_structlog])
def test_a_line_of_json_has_text_fields_and_traceback(
    make: Callable[[], logging.Formatter],
) -> None:
    """One line each, in which nothing of the guard's meets a field of others."""
    with written(make()) as stream:
        log = Log()
        try:
            raise KeyError("postgresql://app:hunter2@db")
        except KeyError as error:
            log(AttemptFailed("db", 1, error, 0.25, False))
        log(ResourceOpened("db", 2, 0.1))
    assert "hunter2" not in stream.getvalue()
    lines: list[dict[str, Any]] = list(map(json.loads, stream.getvalue().splitlines()))
    failed, opened = lines
    place = failed["asgi_lifespan_guard"]["where"]
    assert failed["message"].startswith(f"db: attempt 1 failed in {place}, next in")
    assert failed["level"].upper() == "WARNING"
    shown = failed["asgi_lifespan_guard"]["traceback"]
    assert shown.startswith("Traceback")
    assert shown.endswith("KeyError: 'postgresql://app:***@db'")
    assert opened["message"] == "db: up after 2 attempts, 0.0 s"
    assert opened["asgi_lifespan_guard"] == {
        "event": "ResourceOpened",
        "resource": "db",
        "attempt": 2,
        "duration": 0.1,
        "attempts": 2,
        "outage": 0.0,
    }
