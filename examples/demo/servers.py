"""Real ASGI servers, each a process of its own that answers on 127.0.0.1.

``COMMANDS`` is all that differs between them. Whatever a server starts lives in its
process group, and ends with it: when the block is left, or when this process is gone.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

import psutil

from examples.demo import Watchdog, free_port, wait_until


_UVICORN = "uvicorn {app} --host 127.0.0.1 --port {port}"
_HYPERCORN = "hypercorn {app} --bind 127.0.0.1:{port}"
_GRANIAN = "granian {app} --host 127.0.0.1 --port {port} --interface asgi"

COMMANDS = {
    "uvicorn": _UVICORN,
    "uvicorn-asyncio": f"{_UVICORN} --loop asyncio",
    "uvicorn-uvloop": f"{_UVICORN} --loop uvloop",
    "hypercorn": _HYPERCORN,
    "hypercorn-uvloop": f"{_HYPERCORN} --worker-class uvloop",
    "hypercorn-trio": f"{_HYPERCORN} --worker-class trio",
    # Without a worker process: the app runs where the signals arrive.
    "hypercorn-w0": f"{_HYPERCORN} --workers 0",
    "hypercorn-uvloop-w0": f"{_HYPERCORN} --workers 0 --worker-class uvloop",
    "hypercorn-trio-w0": f"{_HYPERCORN} --workers 0 --worker-class trio",
    "granian": _GRANIAN,
}

_PROBE_INTERVAL = 0.005
_END_TIMEOUT = 30.0


class ServerProcess:
    """One server that serves one app, started when its block is entered.

    ``bound_at`` says when its port accepted the first connection, in seconds since
    the process was started; ``None`` as long as it has not.
    """

    def __init__(
        self,
        kind: str,
        app: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        args: Sequence[str] = (),
        python: str = sys.executable,
    ) -> None:
        """Plan a server of a ``kind`` in ``COMMANDS`` for an app ``module:name``.

        The module is looked for in ``cwd``. ``env`` is added to this process's
        environment, ``args`` to the command.
        """
        self.port = free_port()
        self.bound_at: float | None = None
        command = COMMANDS[kind].format(app=app, port=self.port)
        self._command = [python, "-m", *command.split(), *args]
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._cwd = cwd
        self._chunks: list[str] = []
        self._ended = False
        self._news = threading.Condition()

    @property
    def output(self) -> str:
        """What it has written so far, to standard output and error alike."""
        return "".join(self._chunks)

    @property
    def pid(self) -> int:
        """The process that gets the signals; also the id of its process group."""
        return self._process.pid

    def processes(self) -> list[psutil.Process]:
        """Return the processes that are alive in its group: it and its workers."""
        return [psutil.Process(pid) for pid in psutil.pids() if self._is_ours(pid)]

    def url(self, path: str = "/") -> str:
        """Return the URL of a path of the app."""
        return f"http://127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        """Start the process, and return at once."""
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            env=self._env,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._watchdog = Watchdog(f"kill -KILL -{self.pid}")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._prober = threading.Thread(target=self._probe, daemon=True)
        self._reader.start()
        self._prober.start()

    def wait_bound(self, timeout: float = 30.0) -> float:
        """Wait until the port accepts, up to ``timeout`` seconds; say when it did."""
        self._wait_for(lambda: self.bound_at is not None, timeout, "an open port")
        assert self.bound_at is not None
        return self.bound_at

    def wait_output(self, regex: str, timeout: float = 30.0) -> re.Match[str]:
        """Wait up to ``timeout`` seconds for a match in the output, old or new.

        ``^`` and ``$`` match at each line.
        """
        find = re.compile(regex, re.MULTILINE).search
        self._wait_for(lambda: bool(find(self.output)), timeout, f"output {regex!r}")
        match = find(self.output)
        assert match is not None
        return match

    def signal(self, signum: int) -> None:
        """Send a signal to the server's main process, as an orchestrator does."""
        self._process.send_signal(signum)

    def terminate(self) -> None:
        """Send SIGTERM, and do not wait."""
        self.signal(signal.SIGTERM)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait up to ``timeout`` seconds for its end; return its exit status.

        That is ``-n`` if signal ``n`` ended it. What it wrote is in ``output`` then.
        """
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._timeout("its end", timeout) from None
        self._read_the_rest()
        return status

    def _read_the_rest(self) -> None:
        """Wait for what it has written; no longer if one of its workers lives on."""
        read = -1
        while self._reader.is_alive() and read < len(self._chunks):
            read = len(self._chunks)
            self._reader.join(1.0)

    def kill(self) -> None:
        """Send SIGKILL to the whole process group, and wait until it is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(_END_TIMEOUT)
        wait_until(lambda: not self.processes(), _END_TIMEOUT)
        self._watchdog.dismiss()
        self._reader.join(_END_TIMEOUT)
        self._prober.join(_END_TIMEOUT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def _is_ours(self, pid: int) -> bool:
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getpgid(pid) == self.pid:
                return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
        return False

    def _read(self) -> None:
        """Collect the output until the last process that can write any is gone."""
        stream: IO[str] | None = self._process.stdout
        assert stream is not None
        with stream:
            for line in stream:
                with self._news:
                    self._chunks.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _probe(self) -> None:
        """Connect again and again until it works."""
        while not self._ended:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                with self._news:
                    self.bound_at = time.monotonic() - self._started
                    self._news.notify_all()
                return
            time.sleep(_PROBE_INTERVAL)

    def _wait_for(
        self, condition: Callable[[], bool], timeout: float, what: str
    ) -> None:
        with self._news:
            self._news.wait_for(lambda: condition() or self._ended, timeout)
            if not condition():
                raise self._timeout(what, timeout)

    def _timeout(self, what: str, timeout: float) -> TimeoutError:
        why = "it ended" if self._ended else f"{timeout:g} s have passed"
        command = " ".join(self._command)
        return TimeoutError(
            f"waited for {what}, but {why}: {command}\n--- its output:\n{self.output}"
        )
