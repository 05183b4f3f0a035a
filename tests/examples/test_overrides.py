"""The ways of examples/README.md to test an example without what it needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from asgi_lifespan_guard.testing import Flaky, override, running
from examples import (
    fastapi_app,
    litestar_app,
    plain_asgi,
    quart_app,
    resources,
    starlette_app,
)
from examples.demo.postgres import Postgres
from examples.notes import Model


NOTE = {"id": 7, "text": "from a fake", "tag": "other"}
APPS = {
    "fastapi": fastapi_app.app,
    "litestar": litestar_app.app,
    "plain": plain_asgi.app,
    "quart": quart_app.app,
    "starlette": starlette_app.app,
}
EACH = pytest.mark.parametrize("app", APPS.values(), ids=APPS)


class FakePool:
    """Holds one note."""

    async def fetch(self, _statement: str) -> Sequence[Mapping[str, Any]]:
        return [NOTE]


class FakeModel(Model):
    def __init__(self) -> None:
        """Learn nothing."""

    def tag(self, text: str) -> str:
        return "fake"


async def note_of(app: Any) -> Any:
    """Return the first note that an app serves to httpx."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return (await client.get("/notes")).json()[0]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@EACH
async def test_a_fake_is_opened_instead(app: Any) -> None:
    """The app as it is, guard and all, opens the fake; its steps are done with it."""
    fakes = override(resources.db, value=FakePool())
    with fakes, override(resources.cleanup, value=None):
        async with running(app) as served:
            assert await note_of(served) == NOTE


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@EACH
async def test_values_do_without_a_lifespan(app: Any) -> None:
    """With values for all that is required nothing need be started."""
    with (
        override(resources.db, value=FakePool()),
        override(resources.http, value=None),
        override(resources.model, value=FakeModel()),
    ):
        assert await note_of(app) == NOTE


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_database_that_comes_late() -> None:
    """A flaky one shows what happens while it is away, and that it is tried again."""
    late = Flaky(OSError("refused"), FakePool())
    with override(resources.db, late.recipe), override(resources.cleanup, value=None):
        async with running(fastapi_app.app) as served:
            assert await note_of(served) == NOTE
    assert (late.attempts, late.closed) == (2, 1)


def test_django() -> None:
    """Django, too; in a process of its own, for its settings are for ever."""
    program = (
        "from starlette.testclient import TestClient\n"
        "from asgi_lifespan_guard.testing import override\n"
        "from examples import django_app, resources\n"
        "from tests.examples.test_overrides import FakePool, NOTE\n"
        "with override(resources.db, value=FakePool()),"
        " override(resources.cleanup, value=None),"
        " TestClient(django_app.app, base_url='http://localhost') as client:\n"
        "    assert client.get('/notes').json() == [NOTE]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_fastapis_own_overrides(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI's overrides work behind the guard, beside the real database."""
    app = fastapi_app.app
    overrides = {fastapi_app.get_model: FakeModel}
    monkeypatch.setattr(resources, "DATABASE_URL", postgres.dsn)
    monkeypatch.setattr(app, "dependency_overrides", overrides)
    postgres.start()
    with TestClient(app) as client:
        note = client.post("/notes", json={"text": "send milk"}).json()
        assert note == {"id": 1, "text": "send milk", "tag": "fake"}
        assert client.get("/notes").json() == [note]
