"""Somebody who looks at one of the servers, and says what can be seen there.

Each method looks for one thing. It returns what it saw in a word or two, and raises
where it did not see it.
"""

import re
from dataclasses import dataclass, field
from signal import SIGTERM

import httpx

from examples.demo import wait_until
from examples.demo.servers import ServerProcess


PATIENCE = 10.0
ENOUGH_ATTEMPTS = 4


class NotSeenError(AssertionError):
    """Raised when something else was seen than what is expected."""


@dataclass
class Visitor:
    """Looks at one server, with HTTP and in its log.

    ``gate_wait`` is how long the server holds a request; ``refusal`` is how it then
    answered, in a line.
    """

    server: ServerProcess
    gate_wait: float
    refusal: str = field(default="", init=False)

    def port(self) -> str:
        """Connect."""
        return f"{self.server.wait_bound(PATIENCE):.1f} s"

    def alive(self) -> str:
        """Ask whether it should be restarted."""
        return str(self._expect(200, self._get("/livez")).status_code)

    def unready(self) -> str:
        """Ask whether traffic should come."""
        return str(self._expect(503, self._get("/readyz")).status_code)

    def open_page(self) -> str:
        """Ask for the page that needs nothing."""
        return str(self._expect(200, self._get("/about")).status_code)

    def attempts(self) -> str:
        """Read in the log of some attempts to reach the database."""
        line = rf"db: attempt {ENOUGH_ATTEMPTS} failed"
        self.server.wait_output(line, PATIENCE)
        return f"{len(self.attempt_lines())} ×"

    def refused(self) -> str:
        """Ask for the notes as a browser does, and be told to come back later."""
        answer = self._expect(503, self._get("/notes", accept="text/html"))
        seconds = answer.headers.get("retry-after", "")
        page = f'http-equiv="refresh" content="{seconds}"'
        if not seconds.isdecimal() or page not in answer.text:
            raise NotSeenError(f"no Retry-After in {dict(answer.headers)}")
        kind = answer.headers["content-type"]
        self.refusal = f"HTTP/1.1 503, Retry-After: {seconds}, Content-Type: {kind}"
        return f"{seconds} s"

    def held(self, text: str) -> str:
        """Post a note, and be answered after a while, but well."""
        answer = self._client().post("/notes", json={"text": text})
        note = self._expect(201, answer).json()
        if note["text"] != text:
            raise NotSeenError(f"another note than was posted: {note}")
        return f"{answer.elapsed.total_seconds():.1f} s"

    def ready(self) -> str:
        """Wait until traffic may come."""
        if not wait_until(lambda: self._get("/readyz").is_success, PATIENCE):
            raise NotSeenError("still not ready")
        return "200"

    def rows(self, *texts: str) -> str:
        """Ask for the notes, and find all of those that were posted."""
        notes = self._expect(200, self._get("/notes")).json()
        missing = set(texts) - {note["text"] for note in notes}
        if missing:
            raise NotSeenError(f"no row for {sorted(missing)}")
        return str(len(notes))

    def stopped(self) -> str:
        """Send SIGTERM, and see everything closed and the processes gone."""
        self.server.terminate()
        status = self.server.wait(PATIENCE)
        if status not in (0, -SIGTERM):
            raise NotSeenError(f"exit status {status}")
        if "Traceback" in self.server.output:
            raise NotSeenError(f"an error in its log:\n{self.server.output}")
        if not wait_until(lambda: not self.server.processes(), PATIENCE):
            raise NotSeenError("a process of it lives on")
        return "SIGTERM" if status else "exit 0"

    def attempt_lines(self) -> list[str]:
        """Return what the log says of attempts that failed."""
        return re.findall(r"db: attempt .*", self.server.output)

    def _get(self, path: str, accept: str = "*/*") -> httpx.Response:
        return self._client().get(path, headers={"accept": accept})

    def _client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.server.url(""),
            timeout=self.gate_wait + PATIENCE,
            trust_env=False,  # to 127.0.0.1 there is no proxy
            verify=False,  # nor TLS: no certificates to load for each request
        )

    @staticmethod
    def _expect(status: int, answer: httpx.Response) -> httpx.Response:
        if answer.status_code != status:
            raise NotSeenError(f"{answer.status_code} instead of {status}")
        return answer
