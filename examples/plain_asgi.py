"""The notes on no framework at all: ``uvicorn examples.plain_asgi:app``.

The guard goes around the function, and takes all that lifespan asks of an app off it.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asgi_lifespan_guard import LifespanGuard
from examples.notes import ABOUT, add_note, list_notes
from examples.resources import GATE, RESOURCES, db, http, model


Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def serve(scope: Message, receive: Receive, send: Send) -> None:
    status, content = await answer(scope, receive)
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


async def answer(scope: Message, receive: Receive) -> tuple[int, object]:
    match scope["method"], scope["path"]:
        case "GET", "/notes":
            return 200, await list_notes(db.get(scope))
        case "POST", "/notes":
            text = json.loads(await read_body(receive))["text"]
            return 201, await add_note(db.get(scope), model.get(scope), text)
        case "GET", "/upstream":
            return 200, {"upstream": (await http.get(scope).get("/")).status_code}
        case "GET", "/about":
            return 200, ABOUT
        case _:
            return 404, {"detail": "Not Found"}


async def read_body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


app = LifespanGuard(serve, resources=RESOURCES, gate=GATE, app_lifespan="off")
