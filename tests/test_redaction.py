"""Redaction: no password leaves the process."""

from __future__ import annotations

import string
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_lifespan_guard._redaction import (
    LEAVES,
    LINE,
    MESSAGE,
    TEXT,
    describe,
    leaves,
    quote,
    redact,
    render_traceback,
)
from tests.support.texts import HARMLESS, SECRET, SECRETS


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


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_shown(name: str) -> None:
    """In none of the shapes in which drivers, frameworks and shells show them."""
    redacted = redact(SECRETS[name])
    assert SECRET not in redacted
    assert redact(redacted) == redacted


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_shown_of_what_is_cut(name: str) -> None:
    """Wherever the cut falls: what has lost its end is known by its beginning."""
    text = SECRETS[name].replace("hunter2hunter", SECRET)
    for most in range(len(text)):
        assert SECRET not in redact(text, most).partition("…")[0]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_holds_no_password_is_left_alone(text: str) -> None:
    """Ports, paths, times, identifiers and mere words are not taken for passwords."""
    assert redact(text) == text


def test_a_long_password_is_masked_whole() -> None:
    """A token of a cloud's identity service has thousands of characters."""
    user, token = "u" * 1_000, "s3cr3t" * 1_000
    assert redact(f"a://{user}:{token}@host/b") == f"a://{user}:***@host/b"


PIECES = [
    *("a-", "a.", "a", "'", "a://b:c ", "a://b:c", "@", "a@ ", "password ", "-", "\\"),
    *("password=", "password={", "password=(", "password: [", "password: |\n ", "\n"),
    *("'password': \"", "'a': 'b', ", "key=1 ", "eyJaaaaaaaa", "bearer ", "--a-"),
    *(
        "-----BEGIN PRIVATE KEY-----",
        "%3A%2F%2F",
        "jdbc:oracle:a:",
        "login a ",
        "('a', ",
    ),
]


@pytest.mark.parametrize("piece", PIECES)
def test_a_long_text_is_redacted_quickly(piece: str) -> None:
    """No text, however long and odd, keeps the event loop from its work."""
    long = piece * 1_000_000
    began = time.perf_counter()
    redacted = redact(long)
    assert time.perf_counter() - began < 5
    assert len(redacted) < 2 * TEXT
    assert redacted.endswith(f"… ({len(long):,} characters)")


@pytest.mark.parametrize("piece", ["word ", "line\n", "password=a ", '{"a": "b"}, '])
def test_an_error_of_megabytes_is_told_quickly_and_briefly(piece: str) -> None:
    """Its line, and its traceback, alone and in a group of very many."""
    error = ValueError(piece * 1_000_000)
    error.add_note(piece * 1_000_000)
    group = ExceptionGroup("many", [error] * 100)
    began = time.perf_counter()
    lines = [describe(error), describe(group)]
    tracebacks = [render_traceback(error), render_traceback(group)]
    assert time.perf_counter() - began < 5
    assert max(map(len, lines)) < 2 * LEAVES * LINE
    assert max(map(len, tracebacks)) < 60 * MESSAGE
    assert lines[1].endswith("; and 90 more")
    assert "characters)" in tracebacks[0]


def test_what_would_forge_a_line_is_escaped() -> None:
    """A text that is part of one line can neither end nor rewrite it."""
    forged = "/a\r\n2026 CRITICAL db: down\x1b[2K\u2028\x85\udcff"
    assert quote(forged) == (r"/a\r\n2026 CRITICAL db: down\x1b[2K\u2028\x85\udcff")
    assert quote("/größe/ö 1") == "/größe/ö 1"
    assert describe(OSError("a\r\x1b[31mb\nc")) == r"OSError: a \x1b[31mb c"
    assert "\x1b" not in render_traceback(OSError("a\x1b[31mb"))


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


def test_even_a_panic_in_the_text_of_an_error_stops_nobody() -> None:
    """It is no `Exception`, and all the same about nothing but this text."""

    class Panic(BaseException):
        pass

    class PanickingError(ValueError):
        def __str__(self) -> str:
            raise Panic

    line = "<PanickingError whose text cannot be shown: Panic>"
    assert describe(PanickingError()) == line


def test_ctrl_c_in_the_text_of_an_error_is_raised() -> None:
    """It is meant for the process."""

    class SlowError(ValueError):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        describe(SlowError())


def test_the_chain_of_causes_is_shown_to_a_bounded_depth() -> None:
    """The nearest ones, each with its text redacted; not a thousand of them."""
    error = OSError("number 0")
    for number in range(1, 1_000):
        outer = OSError(f"number {number} password={SECRET}")
        outer.__cause__, error = error, outer
    text = render_traceback(error)
    assert "number 999 " in text
    assert "number 990 " in text
    assert "number 980 " not in text
    assert SECRET not in text


def test_notes_are_shown_and_redacted() -> None:
    """Also one that is no text."""
    error = OSError("a")
    error.__notes__ = [f"dsn: redis://:{SECRET}@h", 5]  # type: ignore[list-item]
    assert render_traceback(error).endswith("OSError: a\ndsn: redis://:***@h\n5")
    error.__notes__ = 5  # type: ignore[assignment]
    assert render_traceback(error) == "OSError: a\n5"


def test_a_group_may_be_as_deep_as_it_likes() -> None:
    """Groups inside groups, deeper than Python recurses, end in their leaf."""
    error: Any = OSError("a")
    for _ in range(sys.getrecursionlimit()):
        error = ExceptionGroup("group", [error])
    assert describe(error) == "OSError: a"
    assert "ExceptionGroup" in render_traceback(error)
