"""Redaction: no password leaves the process."""

from __future__ import annotations

import string
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_lifespan_guard._redaction import (
    describe,
    leaves,
    redact,
    render_traceback,
)


SIGNS = string.ascii_letters + string.digits + "!#$%&()*+,-./:;<=>?@[]^_{|}~'\"\\"
# Between the marks stands anything that a driver accepts raw inside an authority.
PASSWORDS = st.text(SIGNS).map(lambda inner: f"s3cr3t{inner}s3cr3t")
WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=8)
USERS = st.text(string.ascii_lowercase + "@.%-_", max_size=8)
SCHEMES = st.sampled_from(["postgresql", "redis", "amqps", "postgresql+asyncpg"])
FILLERS = st.text(SIGNS + " \n\t").filter(lambda text: "s3cr3t" not in text)


@given(SCHEMES, USERS, PASSWORDS, WORDS, FILLERS, FILLERS)
def test_the_password_of_a_url_never_survives(
    scheme: str, user: str, password: str, host: str, before: str, after: str
) -> None:
    """Whatever it is made of and whatever stands around it, it is masked."""
    text = f"{before} {scheme}://{user}:{password}@{host}/db {after}"
    assert "s3cr3t" not in redact(text)


@given(SCHEMES, WORDS, PASSWORDS, WORDS)
def test_the_rest_of_the_url_survives(
    scheme: str, user: str, password: str, host: str
) -> None:
    """Scheme, user, host and path are what an operator needs, and stay."""
    redacted = redact(f"{scheme}://{user}:{password}@{host}/db")
    assert redacted == f"{scheme}://{user}:***@{host}/db"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("host=db password=hunter2 user=me", "host=db password=*** user=me"),
        ("password = 'hunter 2' port=1", "password = *** port=1"),
        ("?api_key=hunter2&x=1", "?api_key=***&x=1"),
        ("?sslpassword=hunter2", "?sslpassword=***"),
        ("access_token=hunter2", "access_token=***"),
        ('PGPASSWORD="hunter2"', "PGPASSWORD=***"),
        ("pwd=hunter2;server=x", "pwd=***;server=x"),
        ("password=hun,ter'2) port=1", "password=*** port=1"),
        (r"password='hun\'ter2' port=1", "password=*** port=1"),
        ("password='hunter2 (cut o", "password=***"),
        ("connect(dsn, secret='hunter2')", "connect(dsn, secret=***)"),
        ("{'password': 'hunter2', 'a': 1}", "{'password': '***', 'a': 1}"),
        ('{"client_secret": "hunter2"}', "{\"client_secret\": '***'}"),
        ("aws_secret_access_key=hunter2", "aws_secret_access_key=***"),
        ("secret_key='hunter2'", "secret_key=***"),
        ("access_key=hunter2", "access_key=***"),
        ("password=b'hunter 2' port=1", "password=*** port=1"),
        ("{'password': b'hunter2'}", "{'password': '***'}"),
        ('{"password": 12345, "a": 1}', '{"password": \'***\', "a": 1}'),
        ("redis://:hunter2@h:1/0", "redis://:***@h:1/0"),
        ("a postgres://u:hunter2@a, b", "a postgres://u:***@a, b"),
    ],
)
def test_every_known_shape_is_masked(text: str, redacted: str) -> None:
    """Keyword strings, query parameters and mappings are masked, and nothing else."""
    assert redact(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "connection to db:5432 refused",
        "postgresql://user@host:5432/db",
        "http://localhost:8000/a",
        "the password authentication failed for user 'me'",
        "12:30:00 mail me@example.org",
    ],
)
def test_what_holds_no_password_is_left_alone(text: str) -> None:
    """Ports, paths, times and mere words are not taken for passwords."""
    assert redact(text) == text


def test_a_long_password_is_masked_whole() -> None:
    """A token of a cloud's identity service has thousands of characters."""
    user, token = "u" * 1_000, "s3cr3t" * 1_000
    assert redact(f"a://{user}:{token}@host/b") == f"a://{user}:***@host/b"


@pytest.mark.parametrize(
    "piece", ["a-", "a.", "a", "'", "a://b:c ", "a://b:c", "@", "a@ ", "password "]
)
def test_a_long_text_is_redacted_quickly(piece: str) -> None:
    """No text, however long and odd, keeps the event loop from its work."""
    long = piece * 20_000
    assert redact(long) == long


def test_an_error_is_described_in_one_redacted_line() -> None:
    """The line holds type and text; line breaks and passwords do not survive."""
    error = OSError("cannot reach\n  redis://:hunter2@h")
    assert describe(error) == "OSError: cannot reach redis://:***@h"


def test_an_error_without_text_is_described_by_its_type() -> None:
    """A bare `TimeoutError()` still says what it is."""
    assert describe(TimeoutError()) == "TimeoutError"


def test_a_group_is_described_by_its_leaves() -> None:
    """However deep they lie, the leaves tell what went wrong."""
    inner = ExceptionGroup("inner", [ValueError("b"), KeyError("c")])
    group = ExceptionGroup("outer", [OSError("a"), inner])
    assert describe(group) == "OSError: a; ValueError: b; KeyError: 'c'"
    assert leaves(inner) == list(inner.exceptions)


def test_a_traceback_is_rendered_whole_and_redacted() -> None:
    """It names the causes, ends without a line break, and shows no password."""
    try:
        try:
            raise OSError("redis://:hunter2@h")
        except OSError as error:
            raise RuntimeError("outer") from error
    except RuntimeError as error:
        text = render_traceback(error)
    assert "redis://:***@h" in text
    assert "hunter2" not in text
    assert text.endswith("RuntimeError: outer")


def test_an_error_that_cannot_be_shown_is_described_all_the_same() -> None:
    """One whose text raises says so, in a group too, and stops nobody."""

    class SilentError(ValueError):
        def __str__(self) -> str:
            raise RuntimeError("hunter2")

    line = "<SilentError whose text cannot be shown: RuntimeError>"
    assert describe(SilentError()) == line
    assert describe(ExceptionGroup("both", [OSError("a"), SilentError()])) == (
        f"OSError: a; {line}"
    )
    assert "SilentError: <exception str() failed>" in render_traceback(SilentError())


def test_a_group_may_be_as_deep_as_it_likes() -> None:
    """Groups inside groups, deeper than Python recurses, end in their leaf."""
    error: Any = OSError("a")
    for _ in range(sys.getrecursionlimit()):
        error = ExceptionGroup("group", [error])
    assert describe(error) == "OSError: a"
    assert "ExceptionGroup" in render_traceback(error)
