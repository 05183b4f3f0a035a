"""Where an error comes from, as a person would say it: ``shop/db.py:12``.

That is the innermost line of the program itself. What only carries a call on (this
package, tenacity, event loops, the standard library) names nothing that anybody could
mend, and neither do installed packages, where the program is not one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType, TracebackType

from .._errors import AppLifespanError, CheckFailedError, CrashedError, culprits
from .._redaction import LINKS, quote, redact


_CARRIERS = sys.stdlib_module_names | {
    "anyio",
    "outcome",
    "sniffio",
    "tenacity",
    "trio",
    "uvloop",
    __name__.partition(".")[0],
}
_INSTALLED = ("/site-packages/", "/dist-packages/")

_TELLS_ITSELF = (OSError, CheckFailedError, CrashedError, AppLifespanError)
"""What says all there is to say in one line."""


def needs_traceback(error: BaseException) -> bool:
    """Whether *error* may be a mistake of the program: the world's are told briefly."""
    return not all(
        isinstance(culprit, _TELLS_ITSELF) or _is_timeout(culprit)
        for culprit in culprits(error)
    )


def _is_timeout(error: BaseException) -> bool:
    return any("Timeout" in kind.__name__ for kind in type(error).__mro__)


def place_of(error: BaseException) -> str | None:
    """Return the line where *error*, or what caused it, comes from; redacted.

    ``None`` where no line outside of what carries calls on is known.
    """
    found = (_place_in(one.__traceback__) for one in _with_causes(error))
    return next((place for place in found if place is not None), None)


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = next(culprits(error))
    for _ in range(LINKS):
        if one is None:
            return
        yield one
        one = one.__cause__ or one.__context__


def _place_in(traceback: TracebackType | None) -> str | None:
    first = own = None
    while traceback is not None:
        frame, line = traceback.tb_frame, traceback.tb_lineno
        if not _is_carrier(frame):
            first = first or (frame, line)
            own = own if _is_installed(frame) else (frame, line)
        traceback = traceback.tb_next
    found = own or first
    return None if found is None else _shown(*found)


def _is_carrier(frame: FrameType) -> bool:
    return _module_of(frame).partition(".")[0] in _CARRIERS


def _is_installed(frame: FrameType) -> bool:
    path = _path_of(frame)
    return any(folder in path for folder in _INSTALLED)


def _shown(frame: FrameType, line: int) -> str:
    """Return the path from where the import began, whatever folder that was."""
    parts = _path_of(frame).split("/")
    depth = _module_of(frame).count(".") + 1 + (parts[-1] == "__init__.py")
    return quote(redact(f"{'/'.join(parts[-depth:])}:{line}"))


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _path_of(frame: FrameType) -> str:
    return frame.f_code.co_filename.replace("\\", "/")
