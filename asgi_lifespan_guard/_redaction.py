"""Passwords never leave the process: every text that we emit goes through here.

Three shapes are known: the password of a URL, a secret-looking parameter of a URL's
query or of a libpq keyword string (``password=...``), and what a mapping's repr shows
(``'password': '...'``).
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from typing import TypeVar


T = TypeVar("T")

MASK = "***"
# Patterns begin with what is rare and never with a repetition: a text may be long.
# Compiled by `re` when the first text is redacted, and kept there.
_SECRET_KEY = (
    r"(?:password|passwd|passphrase|token|secret(?:[_\-]?(?:access[_\-]?)?key)?"
    r"|(?:access|api|private)[_\-]?key|(?<![a-z0-9])pwd)"
)
# Whatever stands before the last "@" of a run without white space. It begins only where
# the run does, so that each is read once.
_UP_TO_AT = r"(?<!\S)\S*@"
# The user part may hold no "/", so that the authority ends where the path begins; the
# password runs to the *last* "@" before white space, because drivers accept raw ones.
_URL_PASSWORD = r"(?P<head>://[^/:]*):.*@"
# A quoted value may hold escaped quotes, and may have lost its end.
_QUOTED = r"b?'(?:\\.|[^'\\])*'?|b?\"(?:\\.|[^\"\\])*\"?"
_PARAMETER = rf"(?P<head>{_SECRET_KEY}\s*=\s*)(?:{_QUOTED}|[^\s&;]+)"
_ITEM = rf"(?P<head>{_SECRET_KEY}['\"]\s*:\s*)(?:{_QUOTED}|[^\s,}}\])]+)"


def redact(text: str) -> str:
    """Return *text* with what looks like a password replaced by ``***``."""
    text = re.sub(_UP_TO_AT, _without_password, text)
    text = re.sub(_PARAMETER, rf"\g<head>{MASK}", text, flags=re.I)
    return re.sub(_ITEM, rf"\g<head>'{MASK}'", text, flags=re.I)


def _without_password(found: re.Match[str]) -> str:
    return re.sub(_URL_PASSWORD, rf"\g<head>:{MASK}@", found[0])


def describe(error: BaseException) -> str:
    """Return *error* as one redacted line: its type, and its text where it has one.

    An exception group is told by its leaves, because its own text names nothing.
    """
    return redact("; ".join(_line(leaf) for leaf in leaves(error)))


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
    except Exception as error:
        kind, raised = type(thing).__name__, type(error).__name__
        return f"<{kind} whose text cannot be shown: {raised}>"


def render_traceback(error: BaseException) -> str:
    """Return the whole traceback of *error*, redacted."""
    return redact(show(error, _traceback))


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def _line(error: BaseException) -> str:
    return show(error, _name_and_text)


def _name_and_text(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
