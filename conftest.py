"""Every Python block of the documentation is a test."""

from __future__ import annotations

import signal
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


def as_a_script(namespace: dict[str, Any]) -> None:
    """Give the blocks of a page the module name that frameworks ask for."""
    namespace["__name__"] = "__main__"


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md"],
    setup=as_a_script,
).pytest()

# A shell has its background jobs ignore Ctrl-C, and every server that a test starts and
# interrupts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
