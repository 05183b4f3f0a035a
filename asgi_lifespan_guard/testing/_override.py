"""`override`: a fake instead of a resource, in the manner of `dependency_overrides`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing
from functools import wraps
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

from .._errors import ConfigurationError
from .._resources.factories import Factory
from .._resources.overrides import StandIn, opening, put, showing, take_away
from .._resources.resource import DEFAULT, Default, Resource


V = TypeVar("V")
Function = TypeVar("Function", bound=Callable[..., Any])


class Override(Generic[V]):
    """What `override` returns: a context manager and a decorator, to be used again.

    As a decorator it takes test functions and fixtures, async and generators too.
    """

    def __init__(
        self, stand_ins: Sequence[tuple[Resource[Any], StandIn]], shown: V
    ) -> None:
        self._stand_ins = tuple(stand_ins)
        self._shown = shown

    def __enter__(self) -> V:
        for recipe, stand_in in self._stand_ins:
            put(recipe, stand_in)
        return self._shown

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for recipe, stand_in in self._stand_ins:
            take_away(recipe, stand_in)

    def __call__(self, function: Function) -> Function:
        """Return *function* with every call of it inside the override."""
        if inspect.isasyncgenfunction(function):
            return self._async_fixture(function)  # type: ignore[return-value]
        if inspect.isgeneratorfunction(function):
            return self._fixture(function)  # type: ignore[return-value]
        if inspect.iscoroutinefunction(function):
            return self._async_test(function)  # type: ignore[return-value]

        @wraps(function)
        def test(*args: Any, **options: Any) -> Any:
            with self:
                return function(*args, **options)

        return test  # type: ignore[return-value]

    def _async_test(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def test(*args: Any, **options: Any) -> Any:
            with self:
                return await function(*args, **options)

        return test

    def _fixture(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def fixture(*args: Any, **options: Any) -> Generator[Any, Any, Any]:
            with self:
                return (yield from function(*args, **options))

        return fixture

    def _async_fixture(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def fixture(*args: Any, **options: Any) -> AsyncGenerator[Any, None]:
            with self:
                async with aclosing(function(*args, **options)) as values:
                    async for value in values:
                        yield value

        return fixture


@overload
def override(recipe: Resource[Any], /, *, value: V) -> Override[V]: ...
@overload
def override(
    recipe: Resource[Any], factory: Factory[Any] | Resource[Any], /
) -> Override[None]: ...
@overload
def override(values: Mapping[Resource[Any], V], /) -> Override[Mapping[Any, V]]: ...
def override(
    recipe: Resource[Any] | Mapping[Resource[Any], Any],
    factory: Factory[Any] | Resource[Any] | Default = DEFAULT,
    /,
    *,
    value: Any = DEFAULT,
) -> Override[Any]:
    """Have a fake opened instead of a resource, inside a block or a decorated function.

    Every guard that *starts* there opens the fake, also one that was built before. The
    fake has the resource's name, ``startup`` and ``required``. It is opened even where
    the resource is not ``enabled``, in one attempt and without checks; if it fails the
    resource gives up, and the process goes on. Overrides may be nested; the innermost
    one counts, and the others are back when it ends.

    Where no lifespan runs at all (``httpx.ASGITransport``, ``TestClient(app)`` outside
    ``with``, Quart's ``test_client()``), a request passes if *value* was given for
    everything that its path needs; it sees those values.

    Args:
        recipe: The resource; what ``resources=`` has, not a copy. Or a mapping of
            resources to the values that are shown of them, many at once.
        factory: Called instead of the resource's; any form that `resource` takes. It
            is given the values of the resource's needs if it takes them, and opens
            without waiting for them if not. A recipe, such as ``Flaky().recipe``,
            keeps its own ``retry``, ``timeout``, ``check`` and the like.
        value: Shown as it is, opened and closed by nobody. Returned by ``with``.

    Raises:
        ConfigurationError: When both or neither are given, or the factory is of no
            form that can be opened.
    """
    if isinstance(recipe, Mapping):
        if not (isinstance(factory, Default) and value is DEFAULT):
            raise ConfigurationError(
                "override({resource: value, ...}) takes no more than that"
            )
        shown = recipe.items()
        return Override([(each, showing(each, it)) for each, it in shown], recipe)
    if isinstance(factory, Default) is (value is DEFAULT):
        raise ConfigurationError(
            "override(resource, ...): give either a factory or value=..."
        )
    if isinstance(factory, Default):
        return Override([(recipe, showing(recipe, value))], value)
    return Override([(recipe, opening(recipe, factory))], None)
