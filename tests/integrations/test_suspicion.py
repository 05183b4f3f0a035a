"""An outage of a real PostgreSQL, noticed by the first request that runs into it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import asyncpg
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from asgi_lifespan_guard import Check, Gate, LifespanGuard, Resource, integrations
from asgi_lifespan_guard import resource as as_resource
from asgi_lifespan_guard.events import ResourceDown, ResourceOpened, ResourceRecovered
from examples.demo.postgres import Postgres
from tests.recorder import Recorder
from tests.support.memory_server import MemoryServer


pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]
QUERY = "SELECT 'a row'"
Make = Callable[[Resource[Any]], Any]


def fastapi(db: Resource[Any]) -> Any:
    """Let exceptions out, as FastAPI and Starlette do."""
    app = FastAPI()

    async def rows(request: Request) -> Any:
        return await db.get(request).fetchval(QUERY)

    app.get("/")(rows)
    return app


def fastapi_that_answers(db: Resource[Any]) -> Any:
    """Answer the exception, and tell of it."""
    app = FastAPI()

    async def rows(request: Request) -> Any:
        return await db.get(request).fetchval(QUERY)

    async def answer(request: Request, error: Exception) -> JSONResponse:
        integrations.suspect(error, request)
        return JSONResponse({"error": "try again"}, 500)

    app.get("/")(rows)
    app.exception_handler(asyncpg.PostgresError)(answer)
    app.exception_handler(OSError)(answer)
    app.exception_handler(asyncpg.InterfaceError)(answer)
    return app


def starlette(db: Resource[Any]) -> Any:
    """Let exceptions out."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def rows(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await db.get(request).fetchval(QUERY))

    return Starlette(routes=[Route("/", rows)])


def litestar(db: Resource[Any]) -> Any:
    """Use Litestar's hook."""
    from litestar import Litestar, get
    from litestar import Request as LitestarRequest

    from asgi_lifespan_guard.integrations.litestar import after_exception

    async def rows(request: Any) -> str:
        return str(await db.get(request).fetchval(QUERY))

    rows.__annotations__["request"] = LitestarRequest
    return Litestar([get("/")(rows)], after_exception=[after_exception])


def quart(db: Resource[Any]) -> Any:
    """Use Quart's signals."""
    from quart import Quart, request

    from asgi_lifespan_guard.integrations.quart import connect

    app = Quart(__name__)
    connect(app)

    async def rows() -> str:
        return str(await db.get(request).fetchval(QUERY))

    app.get("/")(rows)
    return app


def django(db: Resource[Any]) -> Any:
    """Use Django's signal."""
    from django.http import HttpResponse

    from asgi_lifespan_guard.integrations.django import connect
    from tests.support.django_site import application_of

    async def rows(request: Any) -> HttpResponse:
        return HttpResponse(await db.get(request).fetchval(QUERY))

    connect()
    connect()
    return application_of(rows)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    """Run a PostgreSQL."""
    with Postgres(tmp_path) as server:
        server.start()
        yield server


def pool_of(postgres: Postgres) -> Resource[Any]:
    """Return a pool that nobody asks how it is, for an hour."""

    @asynccontextmanager
    async def pool() -> AsyncGenerator[asyncpg.Pool, None]:
        async with asyncpg.create_pool(postgres.dsn, min_size=1, max_size=2) as opened:
            yield opened

    check = Check(lambda opened: opened.fetchval("SELECT 1"), every=3600)
    return as_resource(pool, name="db", check=check)


@pytest.mark.parametrize(
    "make", [fastapi, fastapi_that_answers, starlette, litestar, quart, django]
)
async def test_one_failed_request_closes_the_gate(
    make: Make, postgres: Postgres, recorder: Recorder
) -> None:
    """Those after it are held, and get their rows when the database is back."""
    answers: list[Any] = []
    db = pool_of(postgres)
    guard = LifespanGuard(make(db), [db], gate=Gate(wait=30), observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_until(lambda: guard.ready)
        assert "a row" in (await server.get("/")).body.decode()
        await anyio.to_thread.run_sync(postgres.kill)
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            assert (await server.get("/")).status == 500
        await recorder.wait_for(ResourceDown)
        assert not guard.ready

        async def ask() -> None:
            answers.append(await server.get("/"))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.to_thread.run_sync(postgres.start)
        assert answers[0].status == 200
        assert "a row" in answers[0].body.decode()
    assert len(recorder.of(ResourceRecovered)) == 1
    opened = [e.resource for e in recorder.of(ResourceOpened) if e.resource == "db"]
    assert opened == ["db"]


async def test_without_a_guard_nothing_is_suspected() -> None:
    """A hook that is connected may serve other apps, too."""
    integrations.suspect(OSError(), {"type": "http", "path": "/"})


async def test_a_request_of_djangos_that_has_no_scope_is_left_alone() -> None:
    """Under WSGI there is nobody to be asked."""
    from django.core.signals import got_request_exception

    from asgi_lifespan_guard.integrations.django import connect

    connect()
    answers = got_request_exception.send(sender=None, request=object())
    assert all(answer is None for _, answer in answers)
