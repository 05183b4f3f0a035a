"""The notes on FastAPI: ``uvicorn examples.fastapi_app:app``.

The guard is a middleware, added last and so outermost. A dependency for each resource
serves HTTP and WebSockets alike, and can be overridden.
"""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket
from fastapi.requests import HTTPConnection
from fastapi.sse import EventSourceResponse
from httpx import AsyncClient
from pydantic import BaseModel

from asgi_lifespan_guard import LifespanGuard
from examples.notes import ABOUT, Model, Note, add_note, list_notes, watch
from examples.resources import GATE, RESOURCES, Pool, db, http, model


async def get_db(connection: HTTPConnection) -> Pool:
    return db.get(connection)


async def get_http(connection: HTTPConnection) -> AsyncClient:
    return http.get(connection)


async def get_model(connection: HTTPConnection) -> Model:
    return model.get(connection)


Db = Annotated[Pool, Depends(get_db)]
Http = Annotated[AsyncClient, Depends(get_http)]
Tagger = Annotated[Model, Depends(get_model)]


class NewNote(BaseModel):
    """What a client sends."""

    text: str


app = FastAPI()


@app.get("/notes")
async def read(pool: Db) -> list[Note]:
    return await list_notes(pool)


@app.post("/notes", status_code=201)
async def write(new: NewNote, pool: Db, tagger: Tagger) -> Note:
    return await add_note(pool, tagger, new.text)


@app.get("/notes/events", response_class=EventSourceResponse)
async def events(pool: Db) -> AsyncIterator[int]:
    async for count in watch(pool):
        yield count


@app.websocket("/notes/live")
async def live(socket: WebSocket, pool: Db, tagger: Tagger) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_json(await add_note(pool, tagger, text))


@app.get("/upstream")
async def upstream(client: Http) -> dict[str, int]:
    return {"upstream": (await client.get("/")).status_code}


@app.get("/about")
async def about() -> dict[str, str]:
    return ABOUT


app.add_middleware(LifespanGuard, resources=RESOURCES, gate=GATE)
