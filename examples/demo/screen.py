"""Tells the story on the terminal; as plain text where there is none."""

import time
from typing import Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from examples.demo.checklist import Checklist, Expectation, Sight


class Screen:
    """A story that runs upwards, and below it the checklist, which fills as it goes."""

    def __init__(self, checklist: Checklist, console: Console | None = None) -> None:
        """Show ``checklist`` from the time that the block is entered."""
        self._checklist = checklist
        self._console = console or Console(highlight=False)
        self._began = time.monotonic()
        # Not a terminal: printed once, when the block is left.
        self._live = Live(
            console=self._console, get_renderable=self._table, refresh_per_second=8
        )

    def chapter(self, text: str) -> None:
        """Begin a chapter."""
        seconds = time.monotonic() - self._began
        self._console.print(f"\n[bold cyan]{seconds:5.1f} s  {escape(text)}[/]")

    def quote(self, text: str) -> None:
        """Show what a server said."""
        self._console.print(f"         [dim]│ {escape(text)}[/]", soft_wrap=True)

    def result(self, expectation: Expectation) -> None:
        """Say whether every server has met an expectation."""
        servers, row = self._checklist.servers, self._checklist.row(expectation)
        pairs = zip(servers, row, strict=True)
        missed = {server: sight for server, sight in pairs if not _good(sight)}
        mark = "[red]✗[/]" if missed else "[green]✓[/]"
        count = f"[dim]({len(row) - len(missed)} of {len(row)})[/]"
        self._console.print(f"       {mark} {escape(expectation.sentence)} {count}")
        for server, sight in missed.items():
            self.failure(f"{server}: {'not seen' if sight is None else sight.text}")

    def failure(self, text: str) -> None:
        """Say what went wrong."""
        self._console.print(f"         [red]{escape(text)}[/]", soft_wrap=True)

    def verdict(self) -> None:
        """Say whether all of it was seen to happen."""
        seconds = time.monotonic() - self._began
        if self._checklist.complete:
            text = "[bold green]All of it was seen to happen[/]"
        else:
            text = "[bold red]Not all of it was seen to happen[/]"
        self._console.print(f"\n{text}, in {seconds:.0f} s.")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column()
        for server in self._checklist.servers:
            table.add_column(server.replace(" on ", "\n"))
        for expectation in Expectation:
            cells = map(_cell, self._checklist.row(expectation))
            table.add_row(expectation.label, *cells)
        return table


def _good(sight: Sight | None) -> bool:
    return sight is not None and sight.good


def _cell(sight: Sight | None) -> str:
    if sight is None:
        return "[dim]·[/]"
    return f"[green]✓ {escape(sight.text)}[/]" if sight.good else "[red]✗ missed[/]"
