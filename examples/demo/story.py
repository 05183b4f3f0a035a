"""The story: servers start before their database, wait for it, serve, and stop."""

import tempfile
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import httpx

from examples.demo.checklist import Checklist, Expectation, Sight
from examples.demo.postgres import Postgres
from examples.demo.screen import Screen
from examples.demo.servers import ServerProcess
from examples.demo.visitor import Visitor


FRAMEWORKS = {
    "FastAPI": "fastapi_app",
    "Litestar": "litestar_app",
    "Quart": "quart_app",
}
KINDS = ("uvicorn", "hypercorn")
SERVERS = [f"{framework} on {kind}" for framework in FRAMEWORKS for kind in KINDS]

# More than the 5 s that lie between two attempts at most: a note that is posted as
# the database comes up is held long enough.
GATE_WAIT = 7.0

_ROOT = Path(__file__).parents[2]
_NOT_SEEN = (AssertionError, OSError, httpx.HTTPError)

Look = Callable[[Visitor], str]


class Story:
    """Everything that happens, once: ``checklist`` and ``screen`` get to know of it."""

    def __init__(self, checklist: Checklist, screen: Screen) -> None:
        """Prepare to be told."""
        self._checklist = checklist
        self._screen = screen

    def tell(self) -> None:
        """Let all of it happen; whatever was started is gone when this returns."""
        with (
            # Left last: its threads end because what they look at is gone.
            ThreadPoolExecutor(2 * len(SERVERS)) as self._pool,
            tempfile.TemporaryDirectory() as directory,
            Postgres(directory) as postgres,
            ExitStack() as servers,
        ):
            postgres.initialise()
            self._visitors = {each: _plan(each, postgres.dsn) for each in SERVERS}
            self._servers_start(servers)
            self._a_browser_comes()
            self._the_database_comes_up(postgres)
            self._all_are_ready()
            self._all_stop()
            postgres.stop()

    def _servers_start(self, servers: ExitStack) -> None:
        self._screen.chapter("The database is down. Six servers start.")
        for visitor in self._visitors.values():
            servers.enter_context(visitor.server)
        self._look_for(Expectation.PORT, Visitor.port)
        self._look_for(Expectation.ALIVE, Visitor.alive)
        self._look_for(Expectation.UNREADY, Visitor.unready)
        self._look_for(Expectation.OPEN_PAGE, Visitor.open_page)

    def _a_browser_comes(self) -> None:
        self._screen.chapter("A browser asks each of them for the notes.")
        looks = self._send(Visitor.refused)
        self._quote_attempts(looks)
        self._look_for(Expectation.ATTEMPTS, Visitor.attempts)
        self._await(Expectation.REFUSED, looks)
        self._screen.quote(self._first.refusal)

    def _the_database_comes_up(self, postgres: Postgres) -> None:
        self._screen.chapter("A note is posted to each. All are held.")
        posts = {
            server: self._pool.submit(visitor.held, f"buy milk for {server}")
            for server, visitor in self._visitors.items()
        }
        wait(posts.values(), timeout=0.5, return_when=FIRST_COMPLETED)
        too_early = [server for server, post in posts.items() if post.done()]
        for server in too_early:
            del posts[server]
            self._miss(server, Expectation.HELD, "answered while the database was down")
        self._screen.quote(f"{len(too_early)} answered, {len(posts)} waiting")
        self._screen.chapter("The database comes up.")
        postgres.start()
        self._await(Expectation.HELD, posts)

    def _all_are_ready(self) -> None:
        self._screen.chapter("Traffic may come.")
        texts = [f"buy milk for {server}" for server in self._visitors]
        self._look_for(Expectation.READY, Visitor.ready)
        self._look_for(Expectation.ROWS, lambda visitor: visitor.rows(*texts))

    def _all_stop(self) -> None:
        self._screen.chapter("All are told to stop.")
        self._look_for(Expectation.STOPPED, Visitor.stopped)

    @property
    def _first(self) -> Visitor:
        return next(iter(self._visitors.values()))

    def _look_for(self, expectation: Expectation, look: Look) -> None:
        self._await(expectation, self._send(look))

    def _send(self, look: Look) -> dict[str, Future[str]]:
        return {
            server: self._pool.submit(look, visitor)
            for server, visitor in self._visitors.items()
        }

    def _await(self, expectation: Expectation, looks: dict[str, Future[str]]) -> None:
        for server, look in looks.items():
            try:
                sight = Sight(True, look.result())
                self._checklist.sights[server, expectation] = sight
            except _NOT_SEEN as error:
                self._miss(server, expectation, f"{type(error).__name__}: {error}")
        self._screen.result(expectation)

    def _miss(self, server: str, expectation: Expectation, why: str) -> None:
        self._checklist.sights[server, expectation] = Sight(False, why)

    def _quote_attempts(self, looks: dict[str, Future[str]]) -> None:
        """Show what the first server logs, until all have been looked at."""
        shown = 0
        while wait(looks.values(), timeout=0.1).not_done:
            lines = self._first.attempt_lines()[shown:]
            for line in lines:
                self._screen.quote(line)
            shown += len(lines)


def _plan(server: str, dsn: str) -> Visitor:
    framework, kind = server.split(" on ")
    env = {"DATABASE_URL": dsn, "GATE_WAIT": str(GATE_WAIT)}
    app = f"examples.{FRAMEWORKS[framework]}:app"
    return Visitor(ServerProcess(kind, app, env=env, cwd=_ROOT), GATE_WAIT)
