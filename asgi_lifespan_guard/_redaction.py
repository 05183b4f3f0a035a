"""Passwords never leave the process: every text that we emit goes through here.

What is known are shapes: the password of a URL, what follows a telling key (in a
keyword string, a query, a header, JSON, a mapping's repr, a command's option), a PEM
block, and tokens that begin as only tokens do.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar


T = TypeVar("T")

MASK = "***"

TEXT = 16_000
"""Characters that are shown of any text."""

MESSAGE = 4_000
"""Characters that are shown of one message in a traceback."""

LINE = 1_000
"""Characters that are shown of an error in one line."""

LEAVES = 10
"""Errors of a group that are named in one line."""

FRAMES = 50
"""Frames that are shown of each traceback, the innermost ones."""

WIDTH = 15
"""Members that are shown of each exception group in a traceback."""

LINKS = 10
"""Causes and contexts, one of another, that are shown of an error."""


# What looks secret. Patterns begin with what is rare, or where a word does, and their
# repetitions never give back: each character is read a few times at the most. They are
# compiled by `re` when the first text is redacted, and kept there.


def redact(text: str, most: int = TEXT) -> str:
    """Return *text* with what looks secret as ``***``.

    Only its first *most* characters, and then how many there were. It is cut first, so
    that none, however long, keeps the event loop from its work.
    """
    size = len(text)
    if size > most:
        text = re.sub(r"(?<!\S)\S++\Z", _without_url, text[:most])
    text = re.sub(_UP_TO_AT, _without_password, text)
    text = re.sub(_PEM, rf"\g<head>{MASK}", text)
    text = "".join(_without_values(text))
    text = re.sub(_TOKEN, MASK, text)
    text = re.sub(_SPOKEN, _without_spoken, text)
    return text if size <= most else f"{text}… ({size:,} characters)"


def _without_url(found: re.Match[str]) -> str:
    """Leave out a URL that has lost its end: its password is known by what follows."""
    return re.sub(_URL, rf"\g<head>{MASK}", found[0])


_URL = r"(?is)(?P<head>://|%3A%2F%2F|:thin:).*"
# Whatever stands before the last "@" of a run without white space.
_UP_TO_AT = r"(?<!\S)\S*(?:@|%40)"
# The user part may hold no "/", so that the authority ends where the path begins; the
# password runs to the *last* "@" before white space, because drivers accept raw ones.
_URL_PASSWORD = r"(?P<head>://[^/:]*):.*@"
_QUOTED_URL_PASSWORD = r"(?i)(?P<head>%3A%2F%2F(?:(?!%3A|%2F).)*+)%3A.*%40"
_ORACLE_PASSWORD = r"(?P<head>jdbc:oracle:\w+:[^/@]+)/.*@"


def _without_password(found: re.Match[str]) -> str:
    if ":" not in found[0] and "%3A" not in found[0].upper():
        return found[0]
    run = re.sub(_URL_PASSWORD, rf"\g<head>:{MASK}@", found[0])
    run = re.sub(_QUOTED_URL_PASSWORD, rf"\g<head>%3A{MASK}%40", run)
    return re.sub(_ORACLE_PASSWORD, rf"\g<head>/{MASK}@", run)


_PEM = r"(?s)(?P<head>-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)"

# A key that may be secret, and what parts it from its value. It may be quoted, and the
# quotes be escaped (JSON in JSON). The ends of all that is secret sort out most others.
_ENDS = "al|as|de|en|et|ey|ie|ig|ls|on|rd|re|se|sk|ss|th|ts|wd|wt"
_PAIR = (
    rf"(?<![\w.-])(?P<key>[\w.-]++)(?i:(?<={_ENDS}))(?:"
    r"(?P<close>\\*+[\"']\]?|\])?\s*+(?P<sign>=>|:=|=|:|%3[Dd])\s*+"
    r"|\\*+[\"'](?P<comma>,\s*+)(?=b?\\*+[\"'])"
    r"|(?P<tag>>)(?=[^<])"
    r")"
)
# What is secret by its end, and what is so as a word of its own (`bypass` is none).
_SECRET_KEY = (
    r"(?i)(?:"
    r"password|passwd|passphrase|passcode|secrets?|token|credentials?|jwt|pwd"
    r"|(?:api|access|account|private|secret|shared|storage)[_.-]?key"
    r"|authorization|(?<![a-z])cookie|(?<![a-z])(?:db|user|require)?pass"
    r"|(?-i:(?<=[a-z])Pass)"
    r"|(?:app|auth|client|encryption|license|master|service|sign(?:ing)?|ssh"
    r"|subscription)[_.-]key"
    r"|(?-i:(?<![A-Za-z])(?<!PUBLIC_)(?<!PRIMARY_)(?<!FOREIGN_)KEY)"
    r")\Z"
)
_SECRET_KEY_BEFORE_EQUALS = (
    r"(?i)(?:(?<![a-z])(?:auth|sig|sas|psk)|signature|(?<=[?&])key)\Z"
)
_HEADER = r"(?i)(?:authorization|cookie)\Z"

_QUOTED = (
    r"(?s)b?(?:'''.*?(?:'''|\Z)|\"\"\".*?(?:\"\"\"|\Z)"
    r"|'(?:\\.|[^'\\])*+'?|\"(?:\\.|[^\"\\])*+\"?"
    r"|(?P<quote>\\++[\"']).*?(?:(?P=quote)|\Z))"
)
# ODBC's braces may hold what ends a value elsewhere; so may the block of YAML.
_BRACED = r"\{(?:\}\}|[^}])*+\}?"
_GROUPED = r"\([^()]{0,500}+(?:\)|\Z)|\[[^][]{0,500}+(?:\]|\Z)"
_BLOCK = r"[|>][+-]?[ \t]*+(?:\n[ \t]++[^\n]*+)++"
_WORD = r"[^\s&;]++"
_ITEM = r"[^\s,}\])&;]++"
_REST_OF_LINE = r"[^\r\n]++"
_ELEMENT = r"[^<]++"
# "password: it was refused" is no secret, but "password: letmein" and what ends there.
_PROSE = r"[a-z]++[,;.]?[ \t]++[a-z]++(?!\s*+[:=])"
_SHOWN = r"(?i)\W*+(?:none|null|true|false|\*+)?+\W*+\Z"


def _without_values(text: str) -> Iterator[str]:
    """Yield *text* in pieces, with a mask for each value that follows a secret key."""
    written = 0
    for pair in re.finditer(_PAIR, text):
        if pair.start() >= written and _is_secret(text, pair):
            value = _value_after(text, pair)
            if value is not None and not re.match(_SHOWN, value[0]):
                is_item = pair["comma"] or (pair["close"] and pair["sign"] != "=")
                yield text[written : pair.end()]
                yield f"'{MASK}'" if is_item else MASK
                written = value.end()
    yield text[written:]


def _is_secret(text: str, pair: re.Match[str]) -> bool:
    start, end = pair.span("key")
    if pair["comma"] and not (text[start] == "-" or text.endswith(_TUPLES, 0, start)):
        return False  # A list of names.
    if pair["sign"] == ":" and text.endswith("//", 0, start):
        return False  # A URL's user: done already.
    tail = text[max(0, start - 1, end - 40) : end]
    if re.search(_SECRET_KEY, tail):
        return True
    equals = pair["sign"] is not None and pair["sign"] != ":"
    return equals and re.search(_SECRET_KEY_BEFORE_EQUALS, tail) is not None


_TUPLES = ("('", '("', "(b'", '(b"')


def _value_after(text: str, pair: re.Match[str]) -> re.Match[str] | None:
    """Return the value that *pair* leads to; ``None``: there is none to be hidden."""
    if pair["tag"]:
        return re.compile(_ELEMENT).match(text, pair.end())
    quoted = re.compile(_QUOTED).match(text, pair.end())
    if quoted:
        return quoted
    if re.search(_HEADER, pair["key"]):
        return re.compile(_REST_OF_LINE).match(text, pair.end())
    if pair["sign"] != ":":
        shapes = rf"{_BRACED}|{_GROUPED}|{_WORD}"
    elif pair["close"]:
        shapes = rf"{_BRACED}|{_GROUPED}|{_ITEM}"
    elif re.compile(_PROSE).match(text, pair.end()):
        return None
    else:
        shapes = rf"{_BLOCK}|{_ITEM}"
    return re.compile(shapes).match(text, pair.end())


_TOKEN = (
    r"(?<![\w-])(?:eyJ[\w-]{8,}+\.[\w-]++\.[\w-]*+|gh[opsur]_\w{16,}+"
    r"|github_pat_\w{16,}+|glpat-[\w-]{16,}+|xox[abeoprs]-[\w-]{10,}+"
    r"|sk[-_][\w-]{16,}+|AIza[\w-]{30,}+|hvs\.[\w-]{16,}+|npm_\w{16,}+)"
)
# What is said without a sign between: a header's value, SQL, .netrc, an option.
_SPOKEN = (
    r"(?i)(?<![\w-])(?P<head>"
    r"(?:bearer|basic|token)[ \t]++(?=[\w.~+/-]{0,500}?[\d=+/])(?=[\w.~+/=-]{6})"
    r"|(?:password|identified[ \t]++by)[ \t]++(?=')"
    r"|login[ \t]++\S++[ \t]++password[ \t]++"
    r"|--?[\w-]*?(?:password|passwd|passphrase|secret|token|api-?key)[ \t]++(?![-\s=:])"
    r")(?P<value>'(?:\\.|[^'\\])*+'?|[^\s,;\"']++)"
)


def _without_spoken(found: re.Match[str]) -> str:
    return found["head"] + MASK


# Telling what went wrong


def describe(error: BaseException) -> str:
    """Return *error* as one redacted line: its type, and its text where it has one.

    An exception group is told by its leaves, because its own text names nothing.
    """
    found = leaves(error)
    told = [_line(leaf) for leaf in found[:LEAVES]]
    if len(found) > LEAVES:
        told.append(f"and {len(found) - LEAVES} more")
    return "; ".join(told)


def leaves(error: BaseException) -> list[BaseException]:
    """Return the errors inside a group, however deep, or *error* itself."""
    found: list[BaseException] = []
    ahead = [error]
    while ahead:
        next_one = ahead.pop()
        if isinstance(next_one, BaseExceptionGroup):
            ahead.extend(reversed(next_one.exceptions))
        else:
            found.append(next_one)
    return found


def show(thing: T, how: Callable[[T], str]) -> str:
    """Return ``how(thing)``, or where that raises, a text that says so."""
    try:
        return how(thing)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        kind, raised = type(thing).__name__, type(error).__name__
        return f"<{kind} whose text cannot be shown: {raised}>"


def quote(text: str) -> str:
    """Return *text* as a part of one line: what ends or rewrites a line is escaped."""
    return re.sub(r"[^ -~]", _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    sign = found[0]
    return sign if sign.isprintable() else sign.encode("unicode_escape").decode()


def render_traceback(error: BaseException) -> str:
    """Return the traceback of *error*, redacted: its innermost frames, its causes."""
    return show(error, _traceback).rstrip()


def _traceback(error: BaseException) -> str:
    shown = traceback.TracebackException.from_exception(
        error,
        limit=-FRAMES,
        lookup_lines=False,
        compact=True,
        max_group_width=WIDTH,
    )
    _bound(shown)
    # One by one, so that a quote without an end hides no more than its own message.
    parts = (redact(part) for part in shown.format())
    return "".join(re.sub(r"[^ -~\n\t]", _escaped, part) for part in parts)


def _bound(shown: traceback.TracebackException) -> None:
    """Cut the messages of what is shown, and the chain of causes."""
    ahead = [(shown, LINKS)]
    while ahead:
        one, links = ahead.pop()
        fields = vars(one)
        # It has no public name; where it should lose this one, the parts are cut still.
        fields["_str"] = redact(fields.get("_str", ""), MESSAGE)
        notes: object = one.__notes__
        if isinstance(notes, list):
            shown_notes = islice(notes, LEAVES)
            one.__notes__ = [redact(show(note, str), LINE) for note in shown_notes]
        if not links:
            one.__cause__ = one.__context__ = None
        members = islice(one.exceptions or (), WIDTH)
        linked = (one.__cause__, one.__context__, *members)
        ahead.extend((other, links - 1) for other in linked if other is not None)


def _line(error: BaseException) -> str:
    text = quote(" ".join(redact(show(error, str), LINE).split()))
    kind = type(error).__name__
    if text.startswith(f"<{kind} whose text"):
        return text
    return f"{kind}: {text}" if text else kind
