"""Once per cluster and once per host: a migration, a file, and a leader.

Start as many as you like, here or elsewhere: ``uvicorn examples.once:app --workers 3``.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import psycopg
from filelock import FileLock

from asgi_lifespan_guard import LifespanGuard, Resource, resource


DATABASE_URL = os.environ.get("DATABASE_URL", "postgresql://app@127.0.0.1/app")
WORDS = Path(os.environ.get("WORDS", "/tmp/words.json"))
PID = os.getpid()

# Any two numbers, as long as every worker of this service has the same.
MIGRATION, LEADER = 20_261, 20_262

CREATE = """
CREATE TABLE IF NOT EXISTS migrated (version int, worker int);
CREATE TABLE IF NOT EXISTS turns (id bigserial PRIMARY KEY, worker int);
"""
IS_MIGRATED = "SELECT EXISTS (SELECT FROM migrated WHERE version = 1)"


@resource
async def migrate() -> None:
    """Migrate once per cluster: others wait for the lock, and find nothing to do.

    The lock goes with the transaction, however that ends.
    """
    connection = await asyncpg.connect(DATABASE_URL)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION)
            await connection.execute(CREATE)
            if not await connection.fetchval(IS_MIGRATED):
                await connection.execute("INSERT INTO migrated VALUES (1, $1)", PID)
    finally:
        await connection.close()


@resource(needs=[migrate])
async def migrate_more(_: None) -> None:
    """Do the same with psycopg."""
    async with await psycopg.AsyncConnection.connect(DATABASE_URL) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION])
        await connection.execute(
            "INSERT INTO migrated SELECT 2, %s WHERE NOT EXISTS"
            " (SELECT FROM migrated WHERE version = 2)",
            [PID],
        )


@resource
def words() -> Iterator[list[str]]:
    """Make a file once per host: it is there whole, or not at all.

    A plain generator, so that waiting for the lock blocks a thread and no event loop.
    The system lets the lock go with the process that holds it.
    """
    with FileLock(f"{WORDS}.lock"):
        if not WORDS.exists():
            unfinished = WORDS.with_suffix(".part")
            unfinished.write_text(json.dumps(["made", "by", str(PID)]))
            unfinished.rename(WORDS)
    yield json.loads(WORDS.read_text())


@resource(needs=[migrate_more], required=False, timeout=None)
async def leader(_: None) -> AsyncIterator[int]:
    """Be the one of all workers that does what must not be done twice at a time.

    The others stand in line for the lock, which PostgreSQL gives to the next one as
    soon as the leader's connection is gone. The work goes through that connection, so
    that who has lost it can do no more. ``required=False``: whoever waits is ready.
    """
    connection = await asyncpg.connect(DATABASE_URL)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LEADER)
        async with anyio.create_task_group() as group:
            group.start_soon(_work, connection)
            yield PID
            group.cancel_scope.cancel()
    finally:
        connection.terminate()


async def _work(connection: asyncpg.Connection) -> None:
    while True:
        await connection.execute("INSERT INTO turns (worker) VALUES ($1)", PID)
        await anyio.sleep(0.02)


RESOURCES: list[Resource[Any]] = [migrate, migrate_more, words, leader]


async def site(scope: Any, receive: Any, send: Any) -> None:
    """Say who this is."""
    assert scope["type"] == "http"
    leads = leader.get(scope, None) is not None
    said = {"worker": PID, "leads": leads, "words": words.get(scope)}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


app = LifespanGuard(site, RESOURCES, app_lifespan="off")
