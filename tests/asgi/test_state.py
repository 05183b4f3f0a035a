"""How values get into the state of each request."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_lifespan_guard._asgi.state import PublishedState
from asgi_lifespan_guard._state import KEY


@pytest.fixture
def published() -> PublishedState:
    """Return a published that is attached to nothing."""
    return PublishedState("the guard")


def test_writes_values_into_the_shared_dict(published: PublishedState) -> None:
    """What servers copy for each request holds the values and the current version."""
    shared: dict[str, Any] = {"theirs": 1}
    published.attach(shared)
    published.publish({"db": "pool"})
    assert shared == {"theirs": 1, "db": "pool", KEY: published.version}
    assert published.version.guard == "the guard"


def test_takes_values_out_of_the_shared_dict(published: PublishedState) -> None:
    """A value that is withdrawn is seen by no later request; others stay."""
    shared: dict[str, Any] = {}
    published.attach(shared)
    published.publish({"db": "pool", "cache": "redis"})
    published.withdraw(["db", "unknown"])
    assert shared == {"cache": "redis", KEY: published.version}
    assert published.values == {"cache": "redis"}


def test_every_change_makes_older_copies_stale(published: PublishedState) -> None:
    """Each change brings a new version."""
    versions = [published.version]
    published.attach({})
    versions.append(published.version)
    published.publish({"db": 1})
    versions.append(published.version)
    published.withdraw(["db"])
    versions.append(published.version)
    published.detach()
    versions.append(published.version)
    assert len(set(map(id, versions))) == len(versions)


def test_remembers_values_that_the_server_threw_away(published: PublishedState) -> None:
    """The values outlive an emptied dict (granian), until the published is detached."""
    shared: dict[str, Any] = {}
    published.attach(shared)
    published.publish({"db": "pool"})
    shared.clear()
    assert published.values == {"db": "pool"}
    published.detach()
    assert (published.values, published.shared) == ({}, None)


def test_works_without_a_shared_dict(published: PublishedState) -> None:
    """Where the server has no state, requests get all of it from the published."""
    published.attach(None)
    published.publish({"db": "pool", "old": 1})
    published.withdraw(["old"])
    refreshed = published.refreshed({"type": "http"})
    assert refreshed["state"] == {"db": "pool", KEY: published.version}


def test_refreshes_a_copy(published: PublishedState) -> None:
    """A stale request gets a dict of its own: theirs kept, ours as they are now."""
    published.publish({"db": "old", "gone": 1})
    stale = {"theirs": 1, "db": "old", "gone": 1, KEY: published.version}
    scope = {"type": "http", "state": stale}
    published.publish({"db": "new"})
    published.withdraw(["gone"])
    refreshed = published.refreshed(scope)
    assert refreshed == {
        "type": "http",
        "state": {"theirs": 1, "db": "new", KEY: published.version},
    }
    assert scope["state"] is stale
    assert stale["db"] == "old"


def test_shows_its_values_read_only(published: PublishedState) -> None:
    """Nobody changes the published from outside."""
    values: Any = published.values
    with pytest.raises(TypeError):
        values["db"] = 1
