"""What the examples do with a database, without a server around it."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from examples.demo.postgres import Postgres
from examples.notes import CREATE_TABLE, Model, add_note, watch


pytestmark = pytest.mark.slow


def test_watching_gives_the_connection_back(postgres: Postgres) -> None:
    """Whoever stops watching frees its connection for somebody else."""

    async def run() -> None:
        async with asyncpg.create_pool(postgres.dsn, min_size=1, max_size=2) as pool:
            await pool.execute(CREATE_TABLE)
            for count in range(3):
                counts = watch(pool)
                assert await anext(counts) == count
                await add_note(pool, Model({}), "buy milk")
                assert await anext(counts) == count + 1
                await counts.aclose()

    postgres.start()
    asyncio.run(run())


def test_watching_ends_with_the_database(postgres: Postgres) -> None:
    """A database that goes away ends the watching with an error, not with silence."""

    async def run() -> None:
        async with asyncpg.create_pool(postgres.dsn, min_size=1) as pool:
            await pool.execute(CREATE_TABLE)
            counts = watch(pool)
            assert await anext(counts) == 0
            next_count = asyncio.ensure_future(anext(counts))
            postgres.kill()
            with pytest.raises(asyncpg.InterfaceError):
                await asyncio.wait_for(next_count, timeout=30)

    postgres.start()
    asyncio.run(run())
