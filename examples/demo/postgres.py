"""A real PostgreSQL to start, stop, kill and freeze, and a port that never answers.

Everything listens on 127.0.0.1 only. Every wait is bounded, and an error carries the
end of the server's log. No process outlives this one, however it ends.
"""

import ctypes
import os
import shutil
import subprocess
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGQUIT, SIGSTOP, SIGTERM, Signals
from typing import Any, Literal, Self

import psutil

from examples.demo import BlackHole, Watchdog, free_port, wait_until
from examples.demo.programs import (
    IS_ROOT,
    PostgresError,
    program,
    temporary_folder,
    user,
)


__all__ = ["BlackHole", "Postgres", "PostgresError", "free_port"]

USER, PASSWORD, DATABASE = "app", "s3cret-pa55", "app"

_TIMEOUT = 30.0
_LOG_TAIL_LINES = 20
_STOP_SIGNALS = {"smart": SIGTERM, "fast": SIGINT, "immediate": SIGQUIT}
_SETTINGS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",
    "io_method=sync",
    "shared_buffers=16MB",
    # In the data directory, and so gone with it, even after a SIGKILL.
    "dynamic_shared_memory_type=mmap",
)

# The user it runs as for root may be unable to walk down to a directory that is
# root's. It is put there, and names it by this.
_HERE = "/proc/self/cwd" if IS_ROOT else "."


class Postgres:
    """One PostgreSQL server, with user, password and database made for the app.

    Its port is chosen at once, so that ``dsn`` can be given away while it is down.
    Leaving it as a context manager kills it and removes its data; entering does not
    start it. Not for use from two threads at the same time.
    """

    def __init__(self, directory: Path | str) -> None:
        """Plan a server whose files will be in a new folder in ``directory``."""
        self.port = free_port()
        self._home = Path(directory).resolve() / f"postgres-{self.port}"
        self._data, self._log = self._home / "data", self._home / "postgres.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None

    @property
    def dsn(self) -> str:
        """The URL to connect to, password included."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def running(self) -> bool:
        """Whether the server's main process is alive, even if paused."""
        return self._server is not None and self._server.poll() is None

    @staticmethod
    def template() -> Path:
        """Return the directory that all data is copied from, made once per process."""
        with _template_lock:
            return _template()

    def initialise(self) -> None:
        """Make the data directory, unless there is one."""
        if not self._data.exists():
            shutil.copytree(self.template(), self._data)
            _give_away(self._data)

    def start(self) -> None:
        """Start, and return when connections are accepted, within 30 s."""
        if self.running:
            return
        self.initialise()
        self._clear_remains()
        self._spawn()
        self._wait_ready()

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Shut down in PostgreSQL's own way, and return when done, within 30 s."""
        if self._server is None or not self.running:
            return
        self._server.send_signal(_STOP_SIGNALS[mode])
        try:
            self._server.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise self._failure(f"did not stop in {_TIMEOUT:g} s ({mode})") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End all processes of the server with SIGKILL; the data stays."""
        if self._server is None:
            return
        children = self._signal(SIGSTOP)  # stopped, it forks no more of them
        for process in (*children, self._server):
            process.kill()
        self._server.wait(_TIMEOUT)
        wait_until(lambda: not any(map(_is_alive, children)), _TIMEOUT)
        self._clear_remains()

    def pause(self) -> None:
        """Freeze the server: what is connected, or connects now, hangs."""
        self._signal(SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on where it was."""
        self._signal(SIGCONT)

    def log_tail(self) -> str:
        """Return the last 20 lines that the server has logged."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-_LOG_TAIL_LINES:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def _spawn(self) -> None:
        settings = [f"-c{setting}" for setting in (*_SETTINGS, f"port={self.port}")]
        with self._log.open("ab") as log:
            self._server = subprocess.Popen[bytes](
                [*_command("postgres"), *settings],
                stdout=log,
                stderr=log,
                **_at(self._data),
            )
        pid = self._server.pid
        self._watchdog = Watchdog(f"kill -QUIT {pid}; kill -CONT {pid}")

    def _wait_ready(self) -> None:
        wait_until(lambda: self._ready() or not self.running, _TIMEOUT)
        if not self._ready():
            self.kill()
            raise self._failure("did not start")

    def _ready(self) -> bool:
        return self._status_file()[-1:] == ["ready   "]

    def _status_file(self) -> list[str]:
        """Read ``postmaster.pid``, from which ``pg_ctl`` learns the state, too."""
        with suppress(FileNotFoundError):
            return (self._data / "postmaster.pid").read_text().splitlines()
        return []

    def _signal(self, signum: Signals) -> list[psutil.Process]:
        """Signal the main process first, then its children, and return those."""
        if self._server is None or not self.running:
            return []
        self._server.send_signal(signum)
        children: list[psutil.Process] = psutil.Process(self._server.pid).children()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signum)
        return children

    def _clear_remains(self) -> None:
        """Remove what a server that was killed could not remove itself."""
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None
        shared_memory = "".join(self._status_file()[6:7])  # its key and its id
        for segment in shared_memory.split()[1:]:
            ctypes.CDLL(None).shmctl(int(segment), 0, None)  # 0 is IPC_RMID
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _failure(self, what: str) -> PostgresError:
        about = f"PostgreSQL on port {self.port} {what}"
        return PostgresError(f"{about}; its log ends with:\n{self.log_tail()}")


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


_template_lock = threading.Lock()


@cache
def _template() -> Path:
    data = temporary_folder("postgres-template-")
    _give_away(data)
    options = f"-U {USER} -A trust --locale=C --encoding=UTF8 --wal-segsize=1 -N"
    _run(data, [*_command("initdb"), *options.split()])
    # One more database would be 8 MB more to copy.
    rename = f"ALTER DATABASE postgres RENAME TO {DATABASE}"
    statements = f"ALTER ROLE {USER} PASSWORD '{PASSWORD}'\n{rename}"
    _run(data, [*_command("postgres", "--single", "-F"), "template1"], statements)
    (data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    return data


def _command(name: str, *first: str) -> list[str]:
    return [str(program(name)), *first, "-D", _HERE]


def _at(data: Path) -> dict[str, Any]:
    """Say where and as whom PostgreSQL runs, out of reach of a terminal's Ctrl-C."""
    return {"cwd": data, "start_new_session": True, **user()}


def _run(data: Path, command: list[str], stdin: str = "") -> None:
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=60, **_at(data)
    )
    if done.returncode:
        raise PostgresError(f"{command} failed:\n{done.stdout}{done.stderr}")


def _give_away(data: Path) -> None:
    """Make it the property of whom PostgreSQL runs as."""
    if to := user():
        for path in (data, *data.rglob("*")):
            os.chown(path, to["user"], to["group"])
