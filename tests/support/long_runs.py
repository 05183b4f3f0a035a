"""What the long modes of chaos and of the fuzz have in common."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.chaos.loops import StuckError


def say(text: str) -> None:
    """Tell whoever looks on."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def giving_up_after(seconds: int) -> Iterator[None]:
    """Have the block raise `StuckError` where it does not end in real *seconds*."""

    def give_up(*_: Any) -> None:
        raise StuckError(f"not over after {seconds} real seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
