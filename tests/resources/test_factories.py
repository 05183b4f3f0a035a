"""The forms of a factory: all are opened, every misuse is told with its remedy."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from typing import Any

import httpx
import pytest
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard import (
    ConfigurationError,
    FactoryError,
    ResourcePhase,
    resource,
)
from asgi_lifespan_guard._resources.factories import Form, form_of
from asgi_lifespan_guard.events import CloseFailed, ResourceGaveUp
from tests.resources.stage import Stage


async def async_generator() -> AsyncGenerator[str, None]:
    """Yield a value."""
    yield "value"


async_manager = contextlib.asynccontextmanager(async_generator)


def generator() -> Generator[str, None, None]:
    """Yield a value, synchronously."""
    yield "value"


manager = contextlib.contextmanager(generator)


async def step() -> str:
    """Return a value."""
    await checkpoint()
    return "value"


class AsyncManager:
    async def __aenter__(self) -> str:
        await checkpoint()
        return "value"

    async def __aexit__(self, *exc_info: object) -> None:
        await checkpoint()


class Manager:
    def __enter__(self) -> str:
        return "value"

    def __exit__(self, *exc_info: object) -> None:
        pass


class Closable:
    async def aclose(self) -> None: ...


class Both(Manager, AsyncManager):
    pass


class Awaitable:
    def __await__(self) -> Generator[Any, None, str]:
        return step().__await__()


class Factory:
    """An object with methods, and a call of its own."""

    async def __call__(self) -> AsyncGenerator[str, None]:
        yield "value"

    def sync(self) -> Generator[str, None, None]:
        yield "value"

    async def step(self) -> str:
        return "value"


FORMS: list[tuple[str, Any, Form]] = [
    ("async generator", async_generator, Form.ASYNC_GENERATOR),
    ("asynccontextmanager", async_manager, Form.CALLABLE),
    ("class", AsyncManager, Form.CALLABLE),
    ("class, both kinds", Both, Form.CALLABLE),
    ("lambda, class", lambda: AsyncManager(), Form.CALLABLE),
    ("lambda, async generator", lambda: async_generator(), Form.CALLABLE),
    ("lambda, sync class", lambda: Manager(), Form.CALLABLE),
    ("lambda, generator", lambda: generator(), Form.CALLABLE),
    ("lambda, coroutine", lambda: step(), Form.CALLABLE),
    ("lambda, awaitable", lambda: Awaitable(), Form.CALLABLE),
    ("generator", generator, Form.SYNC_GENERATOR),
    ("contextmanager", manager, Form.SYNC_CONTEXT),
    ("sync class", Manager, Form.SYNC_CONTEXT),
    ("coroutine", step, Form.STEP),
    ("partial", partial(partial(async_generator)), Form.ASYNC_GENERATOR),
    ("partial, class", partial(Manager), Form.SYNC_CONTEXT),
    ("object", Factory(), Form.ASYNC_GENERATOR),
    ("method", Factory().sync, Form.SYNC_GENERATOR),
    ("async method", Factory().step, Form.STEP),
]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("factory", "form"), [pytest.param(*rest, id=name) for name, *rest in FORMS]
)
async def test_every_form_is_known_and_opened(
    stage: Stage, factory: Any, form: Form
) -> None:
    """What it gives is the value, and it is closed again without a word."""
    assert form_of(factory) is form
    async with stage.running(resource(factory, name="db")):
        await stage.until_up("db")
        assert stage.values == {"db": "value"}
    assert stage.recorder.of(CloseFailed) == []
    assert stage.phase("db") is ResourcePhase.CLOSED


@pytest.mark.anyio
async def test_a_client_of_a_library_is_opened(stage: Stage) -> None:
    """A class of somebody else's is a factory as it is."""
    async with stage.running(resource(httpx.AsyncClient, name="client")):
        await stage.until_up("client")
        client = stage.values["client"]
        assert isinstance(client, httpx.AsyncClient)
        assert not client.is_closed
    assert client.is_closed


@pytest.mark.anyio
async def test_each_attempt_gets_a_fresh_one(stage: Stage) -> None:
    """The factory is called once for each run, not once for ever."""
    db = resource(async_manager, name="db")
    for _ in range(2):
        async with stage.running(db):
            await stage.until_up("db")


def _defers_to(value: object) -> Callable[[], Any]:
    async def coroutine() -> object:
        return value

    return coroutine


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("factory", "texts"),
    [
        pytest.param(
            lambda: 7,
            ["returned an int, which is no context manager", "`async def`"],
            id="a mere value",
        ),
        pytest.param(
            _defers_to(AsyncManager()),
            ["returned an AsyncManager", "did you mean `yield`?"],
            id="a step that returns a manager",
        ),
        pytest.param(
            _defers_to(Closable()),
            ["returned a Closable", "did you mean `yield`?"],
            id="a step that returns what wants closing",
        ),
    ],
)
async def test_what_only_calling_shows_is_permanent(
    stage: Stage, factory: Any, texts: list[str]
) -> None:
    """It is judged at the first attempt, told with the remedy, and not retried."""
    async with stage.running(resource(factory, name="db")):
        await stage.until_phase("db", ResourcePhase.FAILED)
    (gave_up,) = stage.recorder.of(ResourceGaveUp)
    assert isinstance(gave_up.error, FactoryError)
    assert (gave_up.attempts, gave_up.permanent) == (1, True)
    assert all(text in str(gave_up.error) for text in texts)


@contextlib.asynccontextmanager  # type: ignore[arg-type]
async def no_yield() -> None:
    """Yield nothing."""


@contextlib.contextmanager  # type: ignore[arg-type]
def no_sync_yield() -> None:
    """Yield nothing, synchronously."""


@contextlib.asynccontextmanager  # type: ignore[arg-type]
def no_async() -> Generator[None, None, None]:
    """Yield where `async` is wanted."""
    yield


MISUSES: list[tuple[str, Callable[[], Any], str]] = [
    ("async manager", AsyncManager, "give the callable that makes it"),
    ("sync manager", Manager, "can be entered only once"),
    ("called manager", async_manager, "give the callable that makes it"),
    ("called generator", async_generator, "without the parentheses"),
    ("called step", step, "without the parentheses"),
    ("value", lambda: 7, "an int is not callable; give a function that yields"),
    ("no yield", lambda: no_yield, "no async def function with a `yield`"),
    ("no sync yield", lambda: no_sync_yield, "no def function with a `yield`"),
    ("no async", lambda: no_async, "add the yield, or drop the decorator"),
]


@pytest.mark.parametrize(
    ("make", "text"), [pytest.param(*rest, id=name) for name, *rest in MISUSES]
)
def test_a_misuse_is_told_at_construction(make: Callable[[], Any], text: str) -> None:
    """The error says what was given, and what to give instead."""
    factory = make()
    with pytest.raises(ConfigurationError) as caught:
        resource(factory, name="db")
    assert text in str(caught.value)
    if hasattr(factory, "close"):
        factory.close()


@pytest.mark.parametrize("decorator", ["asynccontextmanager", "contextmanager"])
def test_a_decorated_callable_that_is_no_function_is_left_alone(decorator: str) -> None:
    """What cannot be judged from outside is judged at the first attempt."""

    class Wrapped:
        __name__ = "wrapped"

        def __call__(self) -> AsyncManager:
            return AsyncManager()

    assert form_of(getattr(contextlib, decorator)(Wrapped())) in Form
