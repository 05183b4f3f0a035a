"""The table of what servers do on SIGTERM has a row for each of them."""

from __future__ import annotations

import pytest

from docs.measure_servers import BEGIN, CLIENTS, END, KINDS, PAGE, drawn, redrawn, table


def test_every_kind_of_server_has_its_row() -> None:
    """A new one in the list is measured before it is released: `make servers`."""
    assert drawn(PAGE.read_text()) == set(KINDS)


def test_a_table_is_drawn_between_its_markers() -> None:
    """Around it nothing changes."""
    cells = {"uvicorn": ["ended"] * 2 * len(CLIENTS)}
    page = redrawn(f"before\n{BEGIN}\nold\n{END}\nafter", table(cells))
    assert drawn(page) == {"uvicorn"}
    assert page.startswith("before\n")
    assert page.endswith("\nafter")
    assert "old" not in page


def test_a_page_without_its_markers_is_told() -> None:
    """The markers are not to be lost."""
    with pytest.raises(LookupError, match="0 times"):
        redrawn("no markers", "table")
