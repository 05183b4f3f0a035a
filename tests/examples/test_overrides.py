"""The ways of examples/README.md to test an example without what it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from fastapi.testclient import TestClient
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware import Middleware

from asgi_lifespan_guard import LifespanGuard, resource
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


class FakePool:
    """Holds one note."""

    async def fetch(self, _statement: str) -> Sequence[Mapping[str, Any]]:
        return [{"id": 7, "text": "from a fake", "tag": "other"}]


class FakeModel(Model):
    def __init__(self) -> None:
        """Learn nothing."""

    def tag(self, text: str) -> str:
        return "fake"


@resource(name="db")
async def fake_db() -> AsyncIterator[FakePool]:
    """Open nothing under the real one's name."""
    yield FakePool()


FAKES = [fake_db]
GUARDED = {
    "starlette": Starlette(
        routes=starlette_app.routes,
        middleware=[Middleware(LifespanGuard, resources=FAKES)],
    ),
    "litestar": LifespanGuard(litestar_app.litestar, resources=FAKES),
    "quart": LifespanGuard(partial(Quart.asgi_app, quart_app.app), resources=FAKES),
    "plain": LifespanGuard(plain_asgi.serve, resources=FAKES),
}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("app", GUARDED.values(), ids=GUARDED)
async def test_a_fake_takes_the_place_of_its_namesake(app: Any) -> None:
    """Under a guard that opens a fake of the same name, an example reads that."""
    async with (
        LifespanManager(app) as manager,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(manager.app), base_url="http://test"
        ) as client,
    ):
        assert (await client.get("/notes")).json()[0]["text"] == "from a fake"


def test_fastapi_without_a_guard() -> None:
    """FastAPI's routes serve without a guard, when all dependencies are overridden."""
    app = FastAPI()
    app.include_router(fastapi_app.app.router)
    app.dependency_overrides[fastapi_app.get_db] = FakePool
    answer = TestClient(app).get("/notes")
    assert answer.json() == [{"id": 7, "text": "from a fake", "tag": "other"}]


@pytest.mark.slow
def test_fastapi_behind_its_guard(
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
