"""One Django site for all tests: its settings can be made but once in a process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def application_of(view: Callable[[Any], Any]) -> Any:
    """Make an ASGI application with *view* at every path below ``/``."""
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.test import override_settings
    from django.urls import re_path

    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"], SECRET_KEY="tests", ROOT_URLCONF=__name__
        )
    urls: Any = ModuleType("tests_django_views")
    urls.urlpatterns = [re_path(".*", view)]
    sys.modules[urls.__name__] = urls
    application = get_asgi_application()
    settings_here = override_settings(ROOT_URLCONF=urls.__name__, ALLOWED_HOSTS=["*"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with settings_here:
            await application(scope, receive, send)

    return app
