"""What the service needs, as recipes: written once, whatever the framework.

Everything here opens behind an open port, and is tried again until it works. Except
the model: without it serving is pointless, so the port waits for it, and a model that
cannot be loaded fails the startup.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TypeAlias

import asyncpg
import httpx

from asgi_lifespan_guard import Gate, resource
from examples.notes import CREATE_TABLE, DELETE_ORPHANS, Model


DATABASE_URL = os.environ.get("DATABASE_URL", "postgresql://app@127.0.0.1/app")
UPSTREAM_URL = os.environ.get("UPSTREAM_URL", "http://127.0.0.1:9000")
MODEL_FILE = os.environ.get("MODEL_FILE", Path(__file__).with_name("model.json"))

Pool: TypeAlias = asyncpg.Pool


@resource
async def db() -> AsyncIterator[Pool]:
    """A pool of connections, and the table in which the notes are."""
    async with asyncpg.create_pool(DATABASE_URL, min_size=1) as pool:
        await pool.execute(CREATE_TABLE)
        yield pool


@resource(needs=[db], required=False, retry=None)
async def cleanup(pool: Pool) -> None:
    """Delete what a former life left behind; if that fails, the next one will."""
    await pool.execute(DELETE_ORPHANS)


@resource(startup="blocking")
def model() -> Iterator[Model]:
    """The model; not async, so it is loaded in a thread, and blocks no loop."""
    yield Model(json.loads(Path(MODEL_FILE).read_text()))


# Any callable that returns a context manager will do.
http = resource(lambda: httpx.AsyncClient(base_url=UPSTREAM_URL), name="http")

RESOURCES = [db, cleanup, model, http]

GATE = Gate(
    # How long a request is held before it is told to come back later.
    wait=float(os.environ.get("GATE_WAIT", "5")),
    # What is not listed needs all that is required.
    needs={"/about": (), "/upstream": [http]},
)
