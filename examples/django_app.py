"""The notes on Django, in a single file: ``uvicorn examples.django_app:app``.

The guard goes around the ASGI application. Views that get an ``ASGIRequest`` find the
resources in its scope, async and sync views alike. The WebSocket is served by channels.
"""

import json
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path

from asgi_lifespan_guard import LifespanGuard
from examples.notes import ABOUT, add_note, list_notes, watch
from examples.resources import GATE, RESOURCES, db, http, model


settings.configure(ALLOWED_HOSTS=["127.0.0.1", "localhost"], ROOT_URLCONF=__name__)


async def notes(request: ASGIRequest) -> JsonResponse:
    if request.method == "POST":
        text = json.loads(request.body)["text"]
        note = await add_note(db.get(request), model.get(request), text)
        return JsonResponse(note, status=201)
    return JsonResponse(await list_notes(db.get(request)), safe=False)


async def events(request: ASGIRequest) -> StreamingHttpResponse:
    counts = (f"data: {count}\n\n" async for count in watch(db.get(request)))
    return StreamingHttpResponse(counts, content_type="text/event-stream")


class Live(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Keeps each text that comes, and answers with its note."""

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        note = await add_note(db.get(self.scope), model.get(self.scope), text_data)
        await self.send(json.dumps(note))


async def upstream(request: ASGIRequest) -> JsonResponse:
    answer = await http.get(request).get("/")
    return JsonResponse({"upstream": answer.status_code})


async def about(request: ASGIRequest) -> JsonResponse:
    return JsonResponse(ABOUT)


urlpatterns = [
    path("notes", notes),
    path("notes/events", events),
    path("upstream", upstream),
    path("about", about),
]
django = get_asgi_application()
router = ProtocolTypeRouter({"http": django, "websocket": Live.as_asgi()})
app = LifespanGuard(router, resources=RESOURCES, gate=GATE)
