"""Keeps probe hits out of the servers' access logs.

A probe every few seconds from every kubelet and balancer drowns what people look for.
uvicorn's records carry their arguments as a tuple, hypercorn's and granian's as a
mapping; what is neither is left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager


LOGGERS = ("uvicorn.access", "hypercorn.access", "granian.access")


class ProbeFilter(logging.Filter):
    """Drops access-log records of the paths that it was told of."""

    def __init__(self) -> None:
        super().__init__()
        self._hidden: set[str] = set()

    def hide(self, path: str) -> None:
        """Drop records of *path*, which is as the server sees it, from now on."""
        self._hidden.add(path)

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
