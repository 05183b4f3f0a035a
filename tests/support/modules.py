"""Modules that a test writes and has imported, gone when it ends."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest


class Modules:
    """A directory on the import path.

    Args:
        folder: Where it is.
        monkeypatch: Of the test.

    Attributes:
        folder: As given.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._written: list[str] = []
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(self, name: str, text: str) -> None:
        """Write the module called *name*."""
        (self.folder / f"{name}.py").write_text(dedent(text))
        self._written.append(name)

    def forget(self) -> None:
        """Have nothing imported that was written."""
        for name in self._written:
            sys.modules.pop(name, None)
