"""Resources that are to fit together."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_lifespan_guard import ConfigurationError
from asgi_lifespan_guard._resources.graph import check_resources
from tests.resources.stage import Stage


def test_what_fits_is_returned_as_it_was_given(stage: Stage) -> None:
    """In any order, and be it nothing."""
    db = stage.make("db")
    api = stage.make("api", needs=[db])
    assert check_resources([api, db]) == (api, db)
    assert check_resources(()) == ()


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        ("db", "must be a list of what @resource made"),
        (None, "must be a list of what @resource made"),
        ([print], "decorate it with @resource, or wrap it: resource(factory, name="),
    ],
)
def test_what_is_no_list_of_resources_is_told(resources: Any, text: str) -> None:
    """The error shows what was given, and how to make a resource of it."""
    with pytest.raises(ConfigurationError) as caught:
        check_resources(resources)
    assert text in str(caught.value)


def test_a_single_resource_is_no_list(stage: Stage) -> None:
    """Forgotten brackets are told."""
    with pytest.raises(ConfigurationError, match="must be a list"):
        check_resources(stage.make("db"))


def test_a_name_is_used_once(stage: Stage) -> None:
    """Two resources of one name cannot both be found in the state."""
    with pytest.raises(ConfigurationError, match="'db' is used twice"):
        check_resources([stage.make("db"), stage.make("db")])


def test_a_need_is_among_them(stage: Stage) -> None:
    """A need that was not registered is told with the list that would be right."""
    api = stage.make("api", needs=[stage.make("db")])
    with pytest.raises(ConfigurationError, match=r"add it: resources=\[db, api\]"):
        check_resources([api])


def test_nothing_needs_itself(stage: Stage) -> None:
    """A circle, which takes some effort to build, is shown as one."""
    one = stage.make("one")
    two = stage.make("two", needs=[one])
    object.__setattr__(one, "needs", (two,))
    with pytest.raises(ConfigurationError) as caught:
        check_resources([one, two])
    text = str(caught.value)
    assert "'one' needs 'two'" in text
    assert "'two' needs 'one'" in text
    assert "take one need away" in text
