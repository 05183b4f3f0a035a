"""The notes on Starlette: ``uvicorn examples.starlette_app:app``.

The guard is the first middleware, and so outermost. ``request.state.db`` works, too;
``db.get(request)`` has a type.
"""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_lifespan_guard import LifespanGuard
from examples.notes import ABOUT, add_note, list_notes, watch
from examples.resources import GATE, RESOURCES, db, http, model


async def read(request: Request) -> JSONResponse:
    return JSONResponse(await list_notes(db.get(request)))


async def write(request: Request) -> JSONResponse:
    text = (await request.json())["text"]
    note = await add_note(db.get(request), model.get(request), text)
    return JSONResponse(note, status_code=201)


async def events(request: Request) -> StreamingResponse:
    counts = (f"data: {count}\n\n" async for count in watch(db.get(request)))
    return StreamingResponse(counts, media_type="text/event-stream")


async def live(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_json(await add_note(db.get(socket), model.get(socket), text))


async def upstream(request: Request) -> JSONResponse:
    answer = await http.get(request).get("/")
    return JSONResponse({"upstream": answer.status_code})


async def about(request: Request) -> JSONResponse:
    return JSONResponse(ABOUT)


routes = [
    Route("/notes", read),
    Route("/notes", write, methods=["POST"]),
    Route("/notes/events", events),
    WebSocketRoute("/notes/live", live),
    Route("/upstream", upstream),
    Route("/about", about),
]
guard = Middleware(LifespanGuard, resources=RESOURCES, gate=GATE)
app = Starlette(routes=routes, middleware=[guard])
