"""The forms that a resource's factory may take, and how each is opened.

What can be seen on the factory itself is judged at construction; what only the thing
that it returns can show is judged at the first attempt, and never retried.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from enum import Enum
from functools import lru_cache, partial
from types import CodeType
from typing import Any, NoReturn, TypeAlias, TypeVar

from .._errors import ConfigurationError, FactoryError
from .threads import ThreadedContext


T = TypeVar("T")

Factory: TypeAlias = Callable[
    ...,
    AbstractAsyncContextManager[T, Any]
    | AsyncIterator[T]
    | AbstractContextManager[T, Any]
    | Iterator[T]
    | Awaitable[T],
]


class Form(Enum):
    """What a factory is; the value says it in an error text."""

    ASYNC_GENERATOR = "an async generator function"
    SYNC_GENERATOR = "a generator function"
    SYNC_CONTEXT = "a callable that returns a context manager"
    STEP = "a coroutine function"
    CALLABLE = "a callable"
    APP_LIFESPAN = "an ASGI app's lifespan"

    @property
    def threaded(self) -> bool:
        """Whether it is entered in a worker thread, which nothing can cancel."""
        return self in (Form.SYNC_GENERATOR, Form.SYNC_CONTEXT)


def _nothing() -> Any: ...


_ASYNC_HELPER: CodeType = asynccontextmanager(_nothing).__code__
_SYNC_HELPER: CodeType = contextmanager(_nothing).__code__


def form_of(factory: object) -> Form:
    """Say which form *factory* has.

    Raises:
        ConfigurationError: When it cannot be opened, as far as can be seen from here.
    """
    _reject_instances(factory)
    _reject_misused_decorators(factory)
    call = factory if isinstance(factory, type) else _call_of(factory)
    if inspect.isasyncgenfunction(call):
        return Form.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(call):
        return Form.SYNC_GENERATOR
    if inspect.iscoroutinefunction(call):
        return Form.STEP
    return Form.SYNC_CONTEXT if _returns_sync_context(call) else Form.CALLABLE


def check_arity(name: str, factory: Callable[..., Any], needs: Sequence[str]) -> None:
    """Raise unless *factory* takes the values of its *needs*, positionally.

    Raises:
        ConfigurationError: When it takes more or fewer.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*needs)
    except TypeError as error:
        told = f"needs=[{', '.join(needs)}]" if needs else "no needs="
        raise ConfigurationError(
            f"resource {name!r} has {told}, and its factory cannot be called with"
            f" {len(needs)} positional arguments ({error}); it is given one for each"
            " of its needs, in their order"
        ) from None


def context_of(
    name: str, form: Form, factory: Callable[..., Any], values: Sequence[Any]
) -> AbstractAsyncContextManager[Any]:
    """Return the context manager that opens *factory* once.

    Raises:
        FactoryError: When calling it is impossible, or what it returned cannot be
            opened.
    """
    if form.threaded:
        make = contextmanager(factory) if form is Form.SYNC_GENERATOR else factory
        return ThreadedContext(name, partial(_called, name, make, values))
    if form is Form.ASYNC_GENERATOR:
        factory = _decorated(factory)
    return _as_context(name, _called(name, factory, values))


@lru_cache(maxsize=256)
def _decorated(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Return *factory* as a context manager; once, for it is opened again and again."""
    return asynccontextmanager(factory)


def _called(name: str, factory: Callable[..., Any], values: Sequence[Any]) -> Any:
    try:
        return factory(*values)
    except TypeError as error:
        raise FactoryError(
            name, f"calling its factory failed: {error}", "see the traceback"
        ) from error


def _as_context(name: str, made: Any) -> AbstractAsyncContextManager[Any]:
    kind = type(made)
    if hasattr(kind, "__aenter__"):
        return made  # type: ignore[no-any-return]
    if inspect.isasyncgen(made):
        return asynccontextmanager(lambda: made)()
    if hasattr(kind, "__enter__"):
        return ThreadedContext(name, lambda: made)
    if inspect.isgenerator(made):
        return ThreadedContext(name, contextmanager(lambda: made))
    if inspect.isawaitable(made):
        return Step(name, made)
    raise FactoryError(
        name,
        f"its factory returned {_shown(made)}, which is no context manager",
        "yield it from a generator function, or make the factory `async def`",
    )


class Step(AbstractAsyncContextManager[Any, None]):
    """A coroutine as a context manager: its result is the value, nothing to close."""

    def __init__(self, name: str, awaitable: Awaitable[Any]) -> None:
        self._name = name
        self._awaitable = awaitable

    async def __aenter__(self) -> Any:
        """Run the step.

        Raises:
            FactoryError: When it returned something that wants closing.
        """
        value = await self._awaitable
        if hasattr(type(value), "__aexit__") or hasattr(type(value), "aclose"):
            raise FactoryError(
                self._name,
                f"its coroutine returned {_shown(value)}, which nobody would close",
                "did you mean `yield`? (an async generator function is left again)",
            )
        return value

    async def __aexit__(self, *exc_info: object) -> None:
        """Do nothing."""

    def refuse_reopening(self) -> NoReturn:
        """Raise for a step that is to be run again: it is known only by its call.

        Raises:
            FactoryError: Always.
        """
        if inspect.iscoroutine(self._awaitable):
            self._awaitable.close()
        raise FactoryError(
            self._name,
            "its factory returned a coroutine, and a step is not run again",
            "Check(then='reopen') is for what can be closed and opened",
        )


def _reject_instances(factory: object) -> None:
    kind = type(factory)
    if not isinstance(factory, type):
        if hasattr(kind, "__aenter__") or hasattr(kind, "__enter__"):
            raise ConfigurationError(
                f"{_shown(factory)} is a context manager that exists already and can be"
                " entered only once; give the callable that makes it, so that each"
                " attempt gets a new one"
            )
        if inspect.isawaitable(factory) or inspect.isasyncgen(factory):
            raise ConfigurationError(
                f"{_shown(factory)} was called already; give the function itself,"
                " without the parentheses"
            )
    if not callable(factory):
        raise ConfigurationError(
            f"{_shown(factory)} is not callable; give a function that yields the"
            " resource, or a callable that returns a context manager"
        )


def _reject_misused_decorators(factory: object) -> None:
    code = getattr(factory, "__code__", None)
    wrapped = getattr(factory, "__wrapped__", None)
    if code is _ASYNC_HELPER:
        _check_decorated("asynccontextmanager", "async def", wrapped)
    elif code is _SYNC_HELPER:
        _check_decorated("contextmanager", "def", wrapped)


def _check_decorated(decorator: str, keyword: str, wrapped: Any) -> None:
    wanted = {
        "asynccontextmanager": inspect.isasyncgenfunction,
        "contextmanager": inspect.isgeneratorfunction,
    }
    if inspect.isfunction(wrapped) and not wanted[decorator](wrapped):
        raise ConfigurationError(
            f"{wrapped.__qualname__}() is decorated with @{decorator} but is no"
            f" {keyword} function with a `yield`; add the yield, or drop the decorator"
        )


def _returns_sync_context(call: object) -> bool:
    if getattr(call, "__code__", None) is _SYNC_HELPER:
        return True
    kind = isinstance(call, type)
    return kind and hasattr(call, "__enter__") and not hasattr(call, "__aenter__")


def _call_of(factory: object) -> object:
    """Return what decides the form of a partial or of an object with `__call__`."""
    while isinstance(factory, partial):
        factory = factory.func
    if inspect.isroutine(factory) or isinstance(factory, type):
        return factory
    return type(factory).__call__


def _shown(thing: object) -> str:
    article = "an" if type(thing).__name__[0].lower() in "aeiou" else "a"
    return f"{article} {type(thing).__name__}"
