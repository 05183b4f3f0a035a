"""The service of the benchmark `outage`: notes in PostgreSQL, read and written.

``GUARD`` says what the database's check does, or ``none``: no guard, FastAPI's own
lifespan. Both are written as their documentation says.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
from fastapi import FastAPI, Request, Response

from asgi_lifespan_guard import Check, LifespanGuard, resource
from asgi_lifespan_guard._resources.checks import Then


DSN = os.environ["DSN"]
GUARD = os.environ["GUARD"]
TABLE = "CREATE TABLE IF NOT EXISTS outage (key text PRIMARY KEY)"


@asynccontextmanager
async def open_pool() -> AsyncGenerator[asyncpg.Pool, None]:
    """Open a pool as asyncpg does by itself, with the table that is used."""
    async with asyncpg.create_pool(DSN, min_size=2, max_size=10) as pool:
        await pool.execute(TABLE)
        yield pool


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[dict[str, Any], None]:
    """Open the pool before the port, as everybody does."""
    async with open_pool() as pool:
        yield {"db": pool}


app = FastAPI(lifespan=lifespan if GUARD == "none" else None)


@app.get("/notes")
async def count(request: Request) -> int:
    """Read."""
    found: int = await request.state.db.fetchval("SELECT count(*) FROM outage")
    return found


@app.post("/notes/{key}")
async def add(request: Request, key: str) -> Response:
    """Write what is there once."""
    await request.state.db.execute("INSERT INTO outage VALUES ($1)", key)
    return Response(status_code=201)


if GUARD == "none":

    @app.get("/readyz")
    async def readyz() -> str:
        """Say that the process runs, which is all that is known."""
        return "ok"

else:
    then = cast("Then", GUARD)
    check = Check(lambda pool: pool.fetchval("SELECT 1"), then=then)
    app.add_middleware(
        LifespanGuard, resources=[resource(open_pool, name="db", check=check)]
    )
