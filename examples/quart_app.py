"""The notes on Quart: ``uvicorn examples.quart_app:app``.

The guard goes around ``app.asgi_app``, Quart's own way to add middleware: ``app`` stays
a Quart, and its ``test_app()`` goes through the guard.
"""

from quart import Quart, Response, request, websocket

from asgi_lifespan_guard import LifespanGuard
from examples.notes import ABOUT, Note, add_note, list_notes, watch
from examples.resources import GATE, RESOURCES, db, http, model


app = Quart(__name__)


@app.get("/notes")
async def read() -> list[Note]:
    return await list_notes(db.get(request))


@app.post("/notes")
async def write() -> tuple[Note, int]:
    text = (await request.get_json())["text"]
    return await add_note(db.get(request), model.get(request), text), 201


@app.get("/notes/events")
async def events() -> Response:
    counts = (f"data: {count}\n\n" async for count in watch(db.get(request)))
    response = Response(counts, content_type="text/event-stream")
    response.timeout = None  # else Quart ends it after a minute
    return response


@app.websocket("/notes/live")
async def live() -> None:
    while True:
        text = str(await websocket.receive())
        note = await add_note(db.get(websocket), model.get(websocket), text)
        await websocket.send_json(note)


@app.get("/upstream")
async def upstream() -> dict[str, int]:
    return {"upstream": (await http.get(request).get("/")).status_code}


@app.get("/about")
async def about() -> dict[str, str]:
    return ABOUT


guard = LifespanGuard(app.asgi_app, resources=RESOURCES, gate=GATE)
app.asgi_app = guard  # type: ignore[method-assign]
