"""The notes on Django, in a single file: ``uvicorn examples.django_app:app``.

The guard goes around the ASGI application. Views that get an ``ASGIRequest`` find the
resources in its scope, async and sync views alike.
"""

import json

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.http import JsonResponse
from django.urls import path

from asgi_lifespan_guard import LifespanGuard
from examples.notes import ABOUT, add_note, list_notes
from examples.resources import GATE, RESOURCES, db, http, model


settings.configure(ALLOWED_HOSTS=["127.0.0.1", "localhost"], ROOT_URLCONF=__name__)


async def notes(request: ASGIRequest) -> JsonResponse:
    if request.method == "POST":
        text = json.loads(request.body)["text"]
        note = await add_note(db.get(request), model.get(request), text)
        return JsonResponse(note, status=201)
    return JsonResponse(await list_notes(db.get(request)), safe=False)


async def upstream(request: ASGIRequest) -> JsonResponse:
    answer = await http.get(request).get("/")
    return JsonResponse({"upstream": answer.status_code})


async def about(request: ASGIRequest) -> JsonResponse:
    return JsonResponse(ABOUT)


urlpatterns = [
    path("notes", notes),
    path("upstream", upstream),
    path("about", about),
]
app = LifespanGuard(get_asgi_application(), resources=RESOURCES, gate=GATE)
