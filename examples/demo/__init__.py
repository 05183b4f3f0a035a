"""Real databases and real servers, for the demo and for the tests.

Here is what they share: ports that are free or mute, waiting, and a promise that no
process outlives this one.
"""

import secrets
import select
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self


def free_port() -> int:
    """Find a TCP port of 127.0.0.1 that nobody is bound to."""
    # Not by binding to 0: such an ephemeral port may be given to any client before
    # our server starts, even to one that is trying to connect to this very port.
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Poll every 5 ms, up to ``timeout`` seconds; say whether it came true."""
    deadline = time.monotonic() + timeout
    while not (done := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return done


class Watchdog:
    """Runs a shell command as soon as this process is gone, however it went."""

    def __init__(self, command: str) -> None:
        """Watch from now on; ``command`` is for ``sh``."""
        # The pipe's other end closes with us. PR_SET_PDEATHSIG would not do: it
        # fires when the *thread* ends that started the child.
        self._shell = subprocess.Popen(
            ["sh", "-c", f"read _; {command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Stop watching, and run nothing."""
        self._shell.kill()
        self._shell.communicate()


class BlackHole:
    """A port of 127.0.0.1 where nobody ever answers.

    With ``accepts`` a client connects, and waits for a first byte for ever. Without,
    it waits for the connection, as behind a firewall that drops packets.
    """

    def __init__(self, *, accepts: bool = True) -> None:
        """Listen from now on, until closed."""
        self._listener = socket.create_server(
            ("127.0.0.1", 0), backlog=128 if accepts else 0
        )
        self.port: int = self._listener.getsockname()[1]
        self._clients: list[socket.socket] = []
        while not accepts and self._admits_another():
            pass

    def close(self) -> None:
        """Stop listening; from now on connections are refused."""
        for each in (self._listener, *self._clients):
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _admits_another(self) -> bool:
        """Put one more connection into the backlog, unless it is full."""
        client = socket.socket()
        self._clients.append(client)
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", self.port))
        return bool(select.select([], [client], [], 0.2)[1])
