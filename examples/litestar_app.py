"""The notes on Litestar: ``uvicorn examples.litestar_app:app``.

The guard goes around the app, because Litestar's own middleware sees no lifespan. A
dependency that takes the scope serves HTTP and WebSockets alike.
"""

from dataclasses import dataclass
from typing import TypeAlias

from httpx import AsyncClient
from litestar import Litestar, get, post, websocket_listener
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody, SkipValidation
from litestar.response import ServerSentEvent
from litestar.types import Scope

from asgi_lifespan_guard import LifespanGuard
from examples.notes import ABOUT, Model, Note, add_note, list_notes, watch
from examples.resources import GATE, RESOURCES, Pool, db, http, model


# Not validated, so that a test may provide something that only looks like a pool.
Db: TypeAlias = NamedDependency[SkipValidation[Pool]]


async def provide_pool(scope: Scope) -> Pool:
    return db.get(scope)


async def provide_client(scope: Scope) -> AsyncClient:
    return http.get(scope)


async def provide_tagger(scope: Scope) -> Model:
    return model.get(scope)


@dataclass
class NewNote:
    """What a client sends."""

    text: str


@get("/notes")
async def read(pool: Db) -> list[Note]:
    return await list_notes(pool)


@post("/notes")
async def write(
    data: JSONBody[NewNote], pool: Db, tagger: NamedDependency[Model]
) -> Note:
    return await add_note(pool, tagger, data.text)


@get("/notes/events")
async def events(pool: Db) -> ServerSentEvent:
    return ServerSentEvent(watch(pool))


@websocket_listener("/notes/live")
async def live(data: str, pool: Db, tagger: NamedDependency[Model]) -> Note:
    return await add_note(pool, tagger, data)


@get("/upstream")
async def upstream(client: NamedDependency[AsyncClient]) -> dict[str, int]:
    return {"upstream": (await client.get("/")).status_code}


@get("/about")
async def about() -> dict[str, str]:
    return ABOUT


litestar = Litestar(
    [read, write, events, live, upstream, about],
    dependencies={
        "pool": Provide(provide_pool),
        "client": Provide(provide_client),
        "tagger": Provide(provide_tagger),
    },
)
app = LifespanGuard(litestar, resources=RESOURCES, gate=GATE)
