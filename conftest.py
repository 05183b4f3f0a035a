"""Every Python block of the documentation is a test."""

from __future__ import annotations

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
