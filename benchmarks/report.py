"""Shows rows: on a terminal, as plain text, and in `docs/benchmarks.md`."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .measure import Row


PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"

_COLUMNS = ("what", "measured", "bound", "", "figures behind it")
_STYLES = {"met": "green", "missed": "bold red"}


def machine() -> str:
    """Say what was measured on, as far as it matters to a reader."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, {platform.system()} on {_processor()}"


def show(name: str, rows: Sequence[Row]) -> None:
    """Print *rows*: a table where somebody looks at it, lines where a file does."""
    if sys.stdout.isatty():
        _show_table(name, rows)
        return
    print(f"== {name}")
    for row in rows:
        what, measured, bound, verdict, note = _cells(row)
        print(f"{what:62} {measured:>11} {bound:>9}  {verdict:6}  {note}".rstrip())


def write(results: Mapping[str, Sequence[Row]], page: Path = PAGE) -> None:
    """Replace the tables of *results* in *page*, each between its two markers."""
    text = page.read_text()
    for name, rows in results.items():
        text = _replaced(text, name, _markdown(rows))
    text = _replaced(text, "machine", f"Measured with {machine()}.")
    page.write_text(text)


def _show_table(name: str, rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=name, title_justify="left")
    for column in _COLUMNS:
        right = column in ("measured", "bound")
        table.add_column(column, justify="right" if right else "left", no_wrap=right)
    for row in rows:
        style = _STYLES.get(row.verdict, "dim")
        table.add_row(*map(escape, _cells(row)), style=style)
    Console().print(table)


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    bound = "" if row.bound is None else f"≤ {row.bound:g}{_unit(row)}"
    return row.what, f"{_number(row.value)}{_unit(row)}", bound, row.verdict, row.note


def _number(value: float) -> str:
    """Write *value* with as many digits as it can be trusted with."""
    if value == int(value) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _unit(row: Row) -> str:
    return row.unit if row.unit in ("", "/s") else f" {row.unit}"


def _markdown(rows: Sequence[Row]) -> str:
    lines = [_line(_COLUMNS), "|---|--:|--:|---|---|"]
    return "\n".join((*lines, *(_line(_cells(row)) for row in rows)))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _replaced(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- measured: {name} -->", "<!-- end -->"
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise LookupError(f"the page has no markers for {name}: {begin}")
    return pattern.sub(lambda _found: f"{begin}\n{content}\n{end}", text, count=1)


def _processor() -> str:
    try:
        facts = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    found = re.search(r"^model name\s*: (.+)$", facts, re.MULTILINE)
    return found[1].strip() if found else platform.machine()
