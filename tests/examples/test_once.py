"""Several workers, and what only one of them does at a time: real processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from examples.demo import wait_until
from examples.demo.postgres import Postgres
from examples.demo.servers import ServerProcess


pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PATIENCE = 30


class Cluster:
    """Three workers of one service."""

    def __init__(self, postgres: Postgres, words: Path) -> None:
        self.postgres = postgres
        env = {"DATABASE_URL": postgres.dsn, "WORDS": str(words)}
        self.workers = [
            ServerProcess("uvicorn", "examples.once:app", env=env, cwd=ROOT)
            for _ in range(3)
        ]

    def said(self) -> list[Any]:
        """Ask all who are alive, and answer."""
        answers = []
        for worker in self.workers:
            try:
                answer = httpx.get(worker.url(), trust_env=False, timeout=PATIENCE)
            except httpx.TransportError:
                continue
            if answer.is_success:
                answers.append(answer.json())
        return answers

    def leaders(self) -> list[int]:
        """Return the process IDs of those who say that they lead."""
        return [answer["worker"] for answer in self.said() if answer["leads"]]

    def wait_leader(self, *before: int) -> int:
        """Wait until one leads that is not among *before*."""
        found: list[int] = []

        def leads() -> bool:
            found[:] = self.leaders()
            return len(found) == 1 and found[0] not in before

        assert wait_until(leads, PATIENCE), [w.output for w in self.workers]
        return found[0]

    def rows(self, query: str) -> list[Any]:
        """Ask the database."""

        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(self.postgres.dsn)
            try:
                return [tuple(row) for row in await connection.fetch(query)]
            finally:
                await connection.close()

        return asyncio.run(fetch())


@pytest.fixture
def cluster(postgres: Postgres, tmp_path: Path) -> Iterator[Cluster]:
    """Start three workers at once, with a database that is there."""
    postgres.start()
    cluster = Cluster(postgres, tmp_path / "words.json")
    with ExitStack() as stack:
        for worker in cluster.workers:
            stack.enter_context(worker)
        assert wait_until(lambda: len(cluster.said()) == 3, PATIENCE), [
            worker.output for worker in cluster.workers
        ]
        yield cluster


def test_what_is_done_once(cluster: Cluster) -> None:
    """Each migration by one worker, and the file by one, however many begin at once."""
    versions = cluster.rows("SELECT version FROM migrated ORDER BY version")
    assert versions == [(1,), (2,)]
    assert len({tuple(answer["words"]) for answer in cluster.said()}) == 1


def test_one_leads(cluster: Cluster) -> None:
    """When it is killed another one takes over; after an outage one leads again."""
    first = cluster.wait_leader()
    worker_of = {w: s["worker"] for w in cluster.workers for s in [_ask(w)]}
    (process,) = (w for w, pid in worker_of.items() if pid == first)
    process.kill()
    second = cluster.wait_leader(first)
    cluster.postgres.kill()
    assert wait_until(lambda: not cluster.leaders(), PATIENCE)
    cluster.postgres.start()
    third = cluster.wait_leader()
    turns = [pid for (pid,) in cluster.rows("SELECT worker FROM turns ORDER BY id")]
    in_a_row = [pid for pid, _ in groupby(turns)]
    expected = [first, second, third] if third != second else [first, second]
    assert in_a_row == expected


def _ask(worker: ServerProcess) -> Any:
    return httpx.get(worker.url(), trust_env=False).json()
