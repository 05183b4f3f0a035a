"""Ending the process with a status of our own, whatever the server would make of it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import suppress


def end_process(status: int) -> None:
    """End the process now, after what was written has been flushed.

    Servers swallow `SystemExit` and give statuses of their own, so nothing is raised.
    Under a process manager it is the worker that ends.
    """
    for handler in _handlers():
        with suppress(Exception):
            handler.flush()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)


def _handlers() -> Iterator[logging.Handler]:
    """Yield those of every logger; servers have loggers of their own."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        yield from getattr(logger, "handlers", ())
