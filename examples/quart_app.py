"""The notes on Quart: ``uvicorn examples.quart_app:app``.

The guard goes around ``app.asgi_app``, Quart's own place for middleware: ``app`` stays
a Quart, and its ``test_app()`` goes through the guard.
"""

from quart import Quart, request

from asgi_lifespan_guard import LifespanGuard
from examples.notes import ABOUT, Note, add_note, list_notes
from examples.resources import GATE, RESOURCES, db, http, model


app = Quart(__name__)


@app.get("/notes")
async def read() -> list[Note]:
    return await list_notes(db.get(request))


@app.post("/notes")
async def write() -> tuple[Note, int]:
    text = (await request.get_json())["text"]
    return await add_note(db.get(request), model.get(request), text), 201


@app.get("/upstream")
async def upstream() -> dict[str, int]:
    return {"upstream": (await http.get(request).get("/")).status_code}


@app.get("/about")
async def about() -> dict[str, str]:
    return ABOUT


guard = LifespanGuard(app.asgi_app, resources=RESOURCES, gate=GATE)
app.asgi_app = guard  # type: ignore[method-assign]
