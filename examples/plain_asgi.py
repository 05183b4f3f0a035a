"""The notes on no framework at all: ``uvicorn examples.plain_asgi:app``.

The guard goes around the function, and takes all that lifespan asks of an app off it.
Events end with a goodbye here, because their sender watches the guard's ``draining``.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio

from asgi_lifespan_guard import LifespanGuard
from examples.notes import ABOUT, add_note, list_notes, watch
from examples.resources import GATE, RESOURCES, db, http, model


Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def serve(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await live(scope, receive, send)
    elif scope["path"] == "/notes/events":
        await events(scope, receive, send)
    else:
        status, content = await answer(scope, receive)
        await start(send, status, b"application/json")
        body = json.dumps(content).encode()
        await send({"type": "http.response.body", "body": body})


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


async def live(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        note = await add_note(db.get(scope), model.get(scope), message["text"])
        await send({"type": "websocket.send", "text": json.dumps(note)})


async def events(scope: Message, receive: Receive, send: Send) -> None:
    """Send counts until the client is gone, or the service goes: then say goodbye."""
    await start(send, 200, b"text/event-stream")
    async with anyio.create_task_group() as tasks:

        async def send_counts() -> None:
            async for count in watch(db.get(scope)):
                body = f"data: {count}\n\n".encode()
                part = {"type": "http.response.body", "body": body, "more_body": True}
                await send(part)

        async def hang_up() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(send_counts)
        tasks.start_soon(hang_up)
        await LifespanGuard.of(scope).draining.wait()
        tasks.cancel_scope.cancel()
    await send({"type": "http.response.body", "body": b"event: goodbye\ndata:\n\n"})


async def start(send: Send, status: int, content_type: bytes) -> None:
    headers = [(b"content-type", content_type)]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def read_body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


app = LifespanGuard(serve, resources=RESOURCES, gate=GATE, app_lifespan="off")
