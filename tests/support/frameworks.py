"""The same small app in each framework, whose lifespan may go wrong.

Each answers ``GET /`` with its lifespan's story so far, a WebSocket at ``/ws`` with
one message, and reads the state, where its framework shows it one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from asgi_lifespan_guard import LifespanGuard


class Story:
    """What an app's lifespan does, and what it has done.

    Attributes:
        told: Its steps so far.
        startup: Raised by the startups to come, one each.
        shutdown: Raised by the shutdown, if anything.
    """

    def __init__(self, *startup: Exception, shutdown: Exception | None = None) -> None:
        self.told: list[str] = []
        self.startup = list(startup)
        self.shutdown = shutdown

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncGenerator[dict[str, Any], None]:
        """Be a lifespan, as Starlette, FastAPI and Litestar take it."""
        self.begin()
        yield {"own": "yielded"}
        self.end()

    def begin(self) -> None:
        """Start, or raise what is to be raised."""
        self.told.append("starts")
        if self.startup:
            raise self.startup.pop(0)

    def end(self) -> None:
        """Stop, or raise what is to be raised."""
        self.told.append("stops")
        if self.shutdown is not None:
            raise self.shutdown


def _shown(state: Any) -> dict[str, str]:
    return {key: value for key, value in state.items() if isinstance(value, str)}


def starlette(story: Story) -> Any:
    """Make a Starlette app."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket

    async def home(request: Request) -> JSONResponse:
        return JSONResponse([story.told, _shown(request.scope["state"])])

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(_shown(websocket.scope["state"]))
        await websocket.close()

    routes = [Route("/", home), WebSocketRoute("/ws", talk)]
    return Starlette(routes=routes, lifespan=story.lifespan)


def fastapi(story: Story) -> Any:
    """Make a FastAPI app."""
    from fastapi import FastAPI, Request, WebSocket

    app = FastAPI(lifespan=story.lifespan)

    async def home(request: Request) -> list[Any]:
        return [story.told, _shown(request.scope["state"])]

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(_shown(websocket.scope["state"]))
        await websocket.close()

    # The annotations are strings here, and these names are this function's own.
    home.__annotations__ = {"request": Request, "return": list[Any]}
    talk.__annotations__ = {"websocket": WebSocket, "return": None}
    app.get("/")(home)
    app.websocket("/ws")(talk)
    return app


def litestar(story: Story) -> Any:
    """Make a Litestar app."""
    import litestar
    from litestar.types import Scope

    async def home(scope: Any) -> list[Any]:
        return [story.told, _shown(scope["state"])]

    async def talk(socket: Any) -> None:
        await socket.accept()
        await socket.send_json(_shown(socket.scope["state"]))
        await socket.close()

    home.__annotations__ = {"scope": Scope, "return": list[Any]}
    talk.__annotations__ = {"socket": litestar.WebSocket, "return": None}
    return litestar.Litestar(
        [litestar.get("/")(home), litestar.websocket("/ws")(talk)],
        lifespan=[story.lifespan],
    )


def quart(story: Story) -> Any:
    """Make a Quart app."""
    import quart

    app = quart.Quart(__name__)

    async def begin() -> None:
        story.begin()

    async def end() -> None:
        story.end()

    async def home() -> list[Any]:
        return [story.told, _shown(quart.request.scope["state"])]

    async def talk() -> None:
        await quart.websocket.send_json(_shown(quart.websocket.scope["state"]))

    app.before_serving(begin)
    app.after_serving(end)
    app.get("/")(home)
    app.websocket("/ws")(talk)
    return app


Make = Callable[[Story], Any]


def installed(app: Any, make: Make, **options: Any) -> LifespanGuard:
    """Put a guard around *app* in the way that its framework recommends."""
    if make is quart:
        app.asgi_app = LifespanGuard(app.asgi_app, **options)
        return app.asgi_app  # type: ignore[no-any-return]
    return LifespanGuard(app, **options)
