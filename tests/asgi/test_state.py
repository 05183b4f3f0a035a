"""How values get into the state of each request."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_lifespan_guard._asgi.state import StateBoard
from asgi_lifespan_guard._state import KEY


@pytest.fixture
def board() -> StateBoard:
    """Return a board that is attached to nothing."""
    return StateBoard("the guard")


def test_writes_values_into_the_shared_dict(board: StateBoard) -> None:
    """What servers copy for each request holds the values and the current stamp."""
    shared: dict[str, Any] = {"theirs": 1}
    board.attach(shared)
    board.publish({"db": "pool"})
    assert shared == {"theirs": 1, "db": "pool", KEY: board.stamp}
    assert board.stamp.guard == "the guard"


def test_takes_values_out_of_the_shared_dict(board: StateBoard) -> None:
    """A value that is withdrawn is seen by no later request; others stay."""
    shared: dict[str, Any] = {}
    board.attach(shared)
    board.publish({"db": "pool", "cache": "redis"})
    board.withdraw(["db", "unknown"])
    assert shared == {"cache": "redis", KEY: board.stamp}
    assert board.values == {"cache": "redis"}


def test_every_change_makes_older_copies_stale(board: StateBoard) -> None:
    """Each change brings a new stamp."""
    stamps = [board.stamp]
    board.attach({})
    stamps.append(board.stamp)
    board.publish({"db": 1})
    stamps.append(board.stamp)
    board.withdraw(["db"])
    stamps.append(board.stamp)
    board.detach()
    stamps.append(board.stamp)
    assert len(set(map(id, stamps))) == len(stamps)


def test_remembers_values_that_the_server_threw_away(board: StateBoard) -> None:
    """The values outlive an emptied dict (granian), until the board is detached."""
    shared: dict[str, Any] = {}
    board.attach(shared)
    board.publish({"db": "pool"})
    shared.clear()
    assert board.values == {"db": "pool"}
    board.detach()
    assert (board.values, board.shared) == ({}, None)


def test_works_without_a_shared_dict(board: StateBoard) -> None:
    """Where the server has no state, requests get all of it from the board."""
    board.attach(None)
    board.publish({"db": "pool", "old": 1})
    board.withdraw(["old"])
    refreshed = board.refreshed({"type": "http"})
    assert refreshed["state"] == {"db": "pool", KEY: board.stamp}


def test_refreshes_a_copy(board: StateBoard) -> None:
    """A stale request gets a dict of its own: theirs kept, ours as they are now."""
    board.publish({"db": "old", "gone": 1})
    stale = {"theirs": 1, "db": "old", "gone": 1, KEY: board.stamp}
    scope = {"type": "http", "state": stale}
    board.publish({"db": "new"})
    board.withdraw(["gone"])
    refreshed = board.refreshed(scope)
    assert refreshed == {
        "type": "http",
        "state": {"theirs": 1, "db": "new", KEY: board.stamp},
    }
    assert scope["state"] is stale
    assert stale["db"] == "old"


def test_shows_its_values_read_only(board: StateBoard) -> None:
    """Nobody changes the board from outside."""
    values: Any = board.values
    with pytest.raises(TypeError):
        values["db"] = 1
