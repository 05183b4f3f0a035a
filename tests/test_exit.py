"""Ending the process with a status of our own."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys

import pytest

from asgi_lifespan_guard._signals import end_process


class Spy(logging.Handler):
    """A handler that says when it is flushed, and may fail to."""

    def __init__(self, marks: list[str], *, broken: bool = False) -> None:
        super().__init__()
        self.marks = marks
        self.broken = broken

    def flush(self) -> None:
        self.marks.append("flush")
        if self.broken:
            raise OSError("disk full")


class Stream(io.StringIO):
    """A stream that says when it is flushed."""

    def __init__(self, marks: list[str]) -> None:
        super().__init__()
        self.marks = marks

    def flush(self) -> None:
        self.marks.append("flush stream")


@pytest.mark.parametrize("broken", [False, True])
def test_everything_is_flushed_first(
    monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """Handlers of every logger, and both streams; one that fails hinders none."""
    marks: list[str] = []
    monkeypatch.setattr(os, "_exit", lambda status: marks.append(f"exit {status}"))
    monkeypatch.setattr(sys, "stdout", Stream(marks))
    monkeypatch.setattr(sys, "stderr", None if broken else Stream(marks))
    spies = {None: Spy(marks, broken=broken), "tests.process.exit": Spy(marks)}
    for name, spy in spies.items():
        logging.getLogger(name).addHandler(spy)
    end_process(1)
    for name, spy in spies.items():
        logging.getLogger(name).removeHandler(spy)
    streams = ["flush stream"] * (1 if broken else 2)
    assert marks == ["flush", "flush", *streams, "exit 1"]


def test_the_process_ends_with_the_status() -> None:
    """Whatever else runs in it, and with what was logged and printed last."""
    program = """
import logging, threading
from logging.handlers import MemoryHandler
from asgi_lifespan_guard._signals import end_process
handler = MemoryHandler(99, logging.CRITICAL + 1, logging.StreamHandler())
logging.getLogger("app").addHandler(handler)
logging.getLogger("app").error("the last line")
print("the last word", end="")
threading.Thread(target=threading.Event().wait).start()
try:
    end_process(3)
finally:
    print("swallowed")
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 3
    assert ended.stderr == "the last line\n"
    assert ended.stdout == "the last word"
