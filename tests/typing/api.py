"""Every public signature, used as its documentation says; never executed.

mypy --strict and pyright must accept it, and see the types that are asserted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, assert_never, assert_type

import asyncpg
import httpx
import tenacity
from fastapi import FastAPI
from fastapi import Request as FastAPIRequest
from litestar import Request as LitestarRequest
from quart import Request as QuartRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.websockets import WebSocket

from asgi_lifespan_guard import (
    Gate,
    LifespanGuard,
    Observer,
    Phase,
    Probes,
    Report,
    Resource,
    ResourcePhase,
    ResourceReport,
    Retry,
    lifespan_of,
    resource,
)
from asgi_lifespan_guard.events import Event, PhaseChanged


class Pool:
    """What the resources below are about."""

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *exc_info: object) -> None: ...


class Model:
    """The same, synchronously."""

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exc_info: object) -> None: ...


# Forms


@resource
async def of_async_generator() -> AsyncGenerator[Pool, None]:
    """Yield the value."""
    yield Pool()


@resource
@asynccontextmanager
async def of_async_manager() -> AsyncGenerator[Pool, None]:
    """Yield the value."""
    yield Pool()


@resource
def of_generator() -> Generator[Model, None, None]:
    """Yield the value in a thread."""
    yield Model()


@resource
@contextmanager
def of_manager() -> Generator[Model, None, None]:
    """Yield the value in a thread."""
    yield Model()


@resource
async def of_coroutine() -> int:
    """Return the value."""
    return 1


@resource(name="optioned", needs=[of_async_generator, of_coroutine], timeout=None)
async def of_options(pool: Pool, step: int) -> AsyncGenerator[str, None]:
    """Take the values of its needs."""
    yield "value"


@resource()
async def of_no_options() -> AsyncGenerator[str, None]:
    """Have no options, and brackets."""
    yield "value"


async def _connect() -> AsyncGenerator[Pool, None]:
    yield Pool()


of_class = resource(Pool, name="pool")
of_sync_class = resource(Model, name="model")
of_lambda = resource(lambda: Pool(), name="pool")
of_client = resource(httpx.AsyncClient, name="client")
of_asyncpg = resource(lambda: asyncpg.create_pool("postgres://"), name="pg")

assert_type(of_async_generator, Resource[Pool])
assert_type(of_async_manager, Resource[Pool])
assert_type(of_generator, Resource[Model])
assert_type(of_manager, Resource[Model])
assert_type(of_coroutine, Resource[int])
assert_type(of_options, Resource[str])
assert_type(of_no_options, Resource[str])
assert_type(of_class, Resource[Pool])
assert_type(of_sync_class, Resource[Model])
assert_type(of_lambda, Resource[Pool])
assert_type(of_client, Resource[httpx.AsyncClient])

everything = resource(
    _connect,
    name="everything",
    needs=(),
    startup="blocking",
    required=False,
    enabled=lambda: True,
    timeout=5,
    retry=Retry(
        wait=tenacity.wait_fixed(1) + tenacity.wait_random(0, 1),
        stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(10),
        when=tenacity.retry_if_exception_type(OSError),
    ),
    close_timeout=1.0,
    on_give_up="unready",
)
assert_type(everything, Resource[Pool])
covariant: Resource[object] = everything

# Guards


def observe(event: Event, /) -> None:
    """Be an observer."""
    if isinstance(event, PhaseChanged):
        assert_type(event.new, Phase)


observer: Observer = observe
app_recipe = lifespan_of(
    needs=[everything],
    startup="blocking",
    enabled=False,
    timeout=3,
    retry=None,
    close_timeout=1,
    on_give_up="unready",
)
assert_type(app_recipe, Resource[Mapping[str, Any]])
guard = LifespanGuard(
    FastAPI(),
    resources=[everything, of_client],
    app_lifespan=app_recipe,
    gate=Gate(wait=1, max_waiting=10, needs={"/docs": (), "/search": [of_client]}),
    probes=Probes(live="/l", ready="/r", startup=None, details=True),
    shutdown_timeout=10,
    observers=[observer],
)
bare = LifespanGuard(FastAPI(), probes=None)
starlette = Starlette()
starlette.add_middleware(LifespanGuard, resources=[everything])
fastapi = FastAPI()
fastapi.add_middleware(LifespanGuard, resources=[everything], app_lifespan="off")

report = guard.report()
assert_type(report, Report)
assert_type(report.resources, tuple[ResourceReport, ...])
assert_type(report.ready, bool)
assert_type(report.ready_without({"db"}), bool)
assert_type(report.resource("db"), ResourceReport | None)
assert_type(guard.phase, Phase)
assert_type(guard.ready, bool)
assert_type(guard.state, Mapping[str, Any])


def every_phase(phase: ResourcePhase) -> str:
    """Show that the phases are a closed set."""
    match phase:
        case ResourcePhase.PENDING | ResourcePhase.OPENING | ResourcePhase.WAITING:
            return "not yet"
        case ResourcePhase.UP | ResourcePhase.FAILING | ResourcePhase.SKIPPED:
            return "open"
        case ResourcePhase.CLOSING | ResourcePhase.CLOSED | ResourcePhase.FAILED:
            return "gone"
        case _:
            assert_never(phase)


# Handlers


def in_handlers(
    starlette_request: Request,
    fastapi_request: FastAPIRequest,
    litestar_request: LitestarRequest[Any, Any, Any],
    quart_request: QuartRequest,
    websocket: WebSocket,
    scope: dict[str, Any],
) -> None:
    """Ask for a value with whatever is at hand."""
    assert_type(everything.get(starlette_request), Pool)
    assert_type(everything.get(fastapi_request), Pool)
    assert_type(everything.get(litestar_request), Pool)
    assert_type(everything.get(quart_request), Pool)
    assert_type(everything.get(websocket), Pool)
    assert_type(everything.get(scope), Pool)
    assert_type(everything.get(guard), Pool)
    assert_type(everything.get(scope, None), Pool | None)
    assert_type(everything.get(scope, default=7), Pool | int)
    assert_type(LifespanGuard.of(starlette_request), LifespanGuard)
    assert_type(LifespanGuard.of(scope), LifespanGuard)


# Mistakes, which the checkers must see: an ignore too many is an error, too


def mistakes(scope: dict[str, Any]) -> None:
    """Show what is not accepted."""
    resource(7, name="db")  # type: ignore[call-overload] # pyright: ignore
    resource(_connect, startup="later")  # type: ignore[call-overload] # pyright: ignore
    resource(_connect, needs="db")  # type: ignore[arg-type] # pyright: ignore
    LifespanGuard(FastAPI(), [Pool()])  # type: ignore[list-item] # pyright: ignore
