"""What requests see while PostgreSQL goes away again and again: ``make outage``.

A real server under a steady load of reads and inserts; a real PostgreSQL that is
stopped for two seconds every ten. Counted is what a client sees, whether what was
acknowledged is there afterwards, and how long readiness lags behind.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import asyncpg
import httpx

from examples.demo.postgres import Postgres
from examples.demo.servers import ServerProcess


ROOT = Path(__file__).parent.parent
SERVERS = ("uvicorn", "hypercorn", "granian")
MODES = ("none", "report", "hold", "reopen")
AWAY = 2.0
"""Seconds that an outage lasts."""
EVERY = 10.0
"""Seconds from the beginning of one outage to that of the next."""
QUIET = {"uvicorn": ["--no-access-log"]}


@dataclass
class Answer:
    """What became of one request; times in seconds on `time.monotonic`."""

    key: str | None
    began: float
    took: float
    status: int

    @property
    def failed(self) -> bool:
        """Whether the client has nothing of it."""
        return self.status >= 400 or self.status == 0


@dataclass
class Story:
    """What was seen of one server in one mode.

    Attributes:
        outages: Begin and end of each, on `time.monotonic`.
        readiness: When it changed, and to what.
        lines: What the server wrote meanwhile.
        lost: Keys that were acknowledged and are not there.
    """

    server: str
    mode: str
    answers: list[Answer] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    readiness: list[tuple[float, bool]] = field(default_factory=list)
    lines: int = 0
    lost: list[str] = field(default_factory=list)
    output: str = ""

    @property
    def failures(self) -> int:
        """How many requests failed."""
        return sum(answer.failed for answer in self.answers)

    def slowest(self) -> float:
        """Return the longest time that any answer took."""
        return max(answer.took for answer in self.answers)

    def lag(self, *, ready: bool) -> float | None:
        """Return the longest time from an outage's end (begin) to (un)readiness."""
        lags: list[float] = []
        for begin, end in self.outages:
            since = end if ready else begin
            seen = [at for at, is_ready in self.readiness if is_ready is ready]
            after = [at - since for at in seen if at >= since - 0.05]
            if not after or after[0] > EVERY - AWAY:
                return None
            lags.append(after[0])
        return max(lags)


async def watch(
    server: str, mode: str, seconds: float, rate: float, database: Postgres
) -> Story:
    """Run one server in one mode for *seconds* at *rate* requests a second."""
    story = Story(server, mode)
    env = {"DSN": database.dsn, "GUARD": mode}
    app = "benchmarks.outage_app:app"
    process = ServerProcess(server, app, env=env, cwd=ROOT, args=QUIET.get(server, []))
    with process:
        await asyncio.to_thread(process.wait_bound)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
        async with httpx.AsyncClient(
            base_url=process.url(), limits=limits, timeout=30
        ) as client:
            await _until_ready(client)
            written = process.output.count("\n")
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_watch_readiness(client, story))
                load = group.create_task(_load(client, story, seconds, rate))
                await _take_away(database, story, seconds)
                await load
                watching.cancel()
        story.lines = process.output.count("\n") - written
        story.output = process.output
        await asyncio.to_thread(process.terminate)
        await asyncio.to_thread(process.wait)
    story.lost = await _lost(database, story)
    return story


async def _until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while (await client.get("/notes")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _load(
    client: httpx.AsyncClient, story: Story, seconds: float, rate: float
) -> None:
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds * rate)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            key = f"{story.server}-{story.mode}-{number}" if number % 2 else None
            group.create_task(_ask(client, story, key))


async def _ask(client: httpx.AsyncClient, story: Story, key: str | None) -> None:
    began = time.monotonic()
    try:
        if key is None:
            status = (await client.get("/notes")).status_code
        else:
            status = (await client.post(f"/notes/{key}")).status_code
    except httpx.HTTPError:
        status = 0
    story.answers.append(Answer(key, began, time.monotonic() - began, status))


async def _take_away(database: Postgres, story: Story, seconds: float) -> None:
    began = time.monotonic()
    due = began + EVERY / 2
    while due + AWAY < began + seconds - 1:
        await asyncio.sleep(due - time.monotonic())
        gone = time.monotonic()
        await asyncio.to_thread(database.stop)
        await asyncio.sleep(max(0.0, gone + AWAY - time.monotonic()))
        await asyncio.to_thread(database.start)
        story.outages.append((gone, time.monotonic()))
        due += EVERY


async def _watch_readiness(client: httpx.AsyncClient, story: Story) -> None:
    last: bool | None = None
    while True:
        try:
            ready = (await client.get("/readyz")).status_code == 200
        except httpx.HTTPError:
            ready = False
        if ready is not last:
            story.readiness.append((time.monotonic(), ready))
            last = ready
        await asyncio.sleep(0.02)


async def _lost(database: Postgres, story: Story) -> list[str]:
    said = {a.key for a in story.answers if a.key is not None and a.status == 201}
    connection = await asyncpg.connect(database.dsn)
    try:
        there = {row["key"] for row in await connection.fetch("SELECT key FROM outage")}
    finally:
        await connection.close()
    return sorted(said - there)


def _line(story: Story, seconds: float) -> str:
    answers = story.answers
    percent = 100 * story.failures / len(answers)
    slow = quantiles([answer.took for answer in answers], n=100)[98]
    down, up = story.lag(ready=False), story.lag(ready=True)
    return (
        f"{story.server:9} {story.mode:7} {len(answers):6} {percent:6.2f} %"
        f" {slow:7.2f} s {story.slowest():6.2f} s {_seconds(down)} {_seconds(up)}"
        f" {story.lines * 60 / seconds:6.0f} {len(story.lost):5}"
    )


def _seconds(lag: float | None) -> str:
    return "  never" if lag is None else f"{lag:5.2f} s"


def _show(story: Story) -> None:
    """Print what was slowest, when it came in an outage, and the log."""
    for answer in sorted(story.answers, key=lambda a: -a.took)[:10]:
        after = min(
            (answer.began - begin for begin, _ in story.outages), key=abs, default=0.0
        )
        what = "read" if answer.key is None else "insert"
        print(
            f"  {what} {after:+.2f} s after PostgreSQL went away:"
            f" {answer.status} after {answer.took:.2f} s"
        )
    print(story.output)


HEAD = (
    "server    guard   requests  failed     p99  slowest unready   ready lines/min lost"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for, and print one line each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outage")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--servers", nargs="*", default=SERVERS, choices=SERVERS)
    parser.add_argument("--modes", nargs="*", default=MODES, choices=MODES)
    parser.add_argument("--output", action="store_true", help="show what it logs")
    asked = parser.parse_args(arguments)
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for server in asked.servers:
            for mode in asked.modes:
                with Postgres(folder) as database:
                    database.start()
                    story = asyncio.run(
                        watch(server, mode, asked.seconds, asked.rate, database)
                    )
                print(_line(story, asked.seconds), flush=True)
                if asked.output:
                    _show(story)


if __name__ == "__main__":
    main()
