"""`Resource`: a recipe, frozen and judged when it is made; never a running thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from enum import Enum
from inspect import iscoroutinefunction
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    Protocol,
    TypeAlias,
    TypeGuard,
    TypeVar,
    cast,
    overload,
)

from .._errors import ConfigurationError, ResourceUnavailableError
from .._frozen import Frozen
from .._settings import check_seconds
from .._state import APP, KEY, HasScope, Source, state_of
from .checks import Check
from .factories import Factory, Form, check_arity, form_of
from .missing import why_missing
from .retry import Retry


T = TypeVar("T")
D = TypeVar("D")
T_co = TypeVar("T_co", covariant=True)

Startup: TypeAlias = Literal["blocking", "background"]
OnGiveUp: TypeAlias = Literal["unready", "exit"]


class Default(Enum):
    """Tells "not given" from ``None``."""

    DEFAULT = "the default"


DEFAULT: Final = Default.DEFAULT
OPEN_TIMEOUT = 30.0
_MISSING: Final = object()
_RESERVED = (APP, KEY)


class Resource(Frozen, Generic[T_co], kw_only=True):
    """A recipe for something that must be up before traffic. Made by `resource`.

    Attributes:
        name: Its key in ``scope["state"]``, in logs and in ``/readyz/<name>``.
        factory: What is called for each attempt, with the values of its needs.
        form: What kind of callable the factory is.
        needs: Resources that are opened before this one and closed after it.
        startup: ``"blocking"``: opened before the port is; ``"background"``: after.
        required: Whether readiness and startup ask for it.
        enabled: Whether it is opened at all; a callable is asked at each startup.
        timeout: Seconds for one attempt; ``None``: no limit.
        retry: When a failed attempt is followed by another; ``None``: never.
        close_timeout: Seconds to close it.
        check: How it is asked whether it works, the first time within the attempt.
        on_give_up: What becomes of the process when it gives up.
        outlasts_needs: Whether it stays open while what it needs is opened again.
        merges: Whether its value is a mapping that is merged into the state.
        closes_first: Whether it is closed before what it does not need, too.
    """

    name: str
    factory: Callable[..., Any] = field(repr=False)
    form: Form
    needs: tuple[Resource[Any], ...] = field(default=(), repr=False)
    startup: Startup = "background"
    required: bool = True
    enabled: bool | Callable[[], bool] = True
    timeout: float | None = OPEN_TIMEOUT
    retry: Retry | None = field(default_factory=Retry)
    close_timeout: float = 10.0
    check: Check | None = None
    on_give_up: OnGiveUp = "unready"
    outlasts_needs: bool = field(default=False, repr=False)
    merges: bool = field(default=False, repr=False)
    closes_first: bool = field(default=False, repr=False)

    def __eq__(self, other: object) -> bool:
        return self is other  # Two with the same options are two.

    def __hash__(self) -> int:
        return id(self)

    if TYPE_CHECKING:
        pass  # No type checker is to take it for one of its methods.
    else:

        def __call__(self, request: HasScope, /):  # noqa: ARG002 - to be read
            """Name the remedy, to people and (by *request*) to FastAPI's Depends."""
            raise TypeError(
                f"resource {self.name!r} is a recipe, and cannot be called;"
                f" {self.name}.get(request) returns its value"
            )

    @overload
    def get(self, source: Source) -> T_co: ...
    @overload
    def get(self, source: Source, default: D) -> T_co | D: ...
    def get(self, source: Source, default: object = _MISSING) -> object:
        """Return this resource's value.

        Args:
            source: A request or WebSocket of any framework (anything with
                ``.scope``), an ASGI scope, or a guard.
            default: Returned instead of raising where the value is away.

        Raises:
            ResourceUnavailableError: When it is away and no *default* was given; says
                why.
        """
        value = state_of(source).get(self.name, default)
        if value is _MISSING:
            reason = why_missing(source, self.name, merges=self.merges)
            raise ResourceUnavailableError(self.name, reason)
        return value

    def suspect(self, source: Source) -> None:
        """Have this resource checked now, by the guard that let a request in.

        For a handler that answers the exception itself; one that leaves the app does
        so by itself. Nothing happens where there is no guard.

        Args:
            source: As in `get`.
        """
        version = state_of(source).get(KEY)
        if version is not None:
            version.guard.suspect(self)


class _Decorator(Protocol):
    def __call__(self, factory: Factory[T], /) -> Resource[T]: ...


@overload
def resource(
    factory: Factory[T],
    /,
    *,
    name: str | None = ...,
    needs: Sequence[Resource[Any]] = ...,
    startup: Startup = ...,
    required: bool = ...,
    enabled: bool | Callable[[], bool] = ...,
    timeout: float | Default | None = ...,
    retry: Retry | Default | None = ...,
    close_timeout: float = ...,
    check: Check | Callable[[Any], Any] | None = ...,
    on_give_up: OnGiveUp = ...,
) -> Resource[T]: ...
@overload
def resource(
    *,
    name: str | None = ...,
    needs: Sequence[Resource[Any]] = ...,
    startup: Startup = ...,
    required: bool = ...,
    enabled: bool | Callable[[], bool] = ...,
    timeout: float | Default | None = ...,
    retry: Retry | Default | None = ...,
    close_timeout: float = ...,
    check: Check | Callable[[Any], Any] | None = ...,
    on_give_up: OnGiveUp = ...,
) -> _Decorator: ...
def resource(
    factory: Factory[Any] | Default = DEFAULT,
    /,
    *,
    name: str | None = None,
    needs: Sequence[Resource[Any]] = (),
    startup: Startup = "background",
    required: bool = True,
    enabled: bool | Callable[[], bool] = True,
    timeout: float | Default | None = DEFAULT,
    retry: Retry | Default | None = DEFAULT,
    close_timeout: float = 10.0,
    check: Check | Callable[[Any], Any] | None = None,
    on_give_up: OnGiveUp = "unready",
) -> Resource[Any] | _Decorator:
    """Make a recipe of a factory; a decorator, with or without options, or a call.

    Args:
        factory: An async generator function; an ``@asynccontextmanager`` function or
            another callable that returns an async context manager; a generator
            function, or a callable that returns a sync context manager (entered and
            left in a worker thread); or a coroutine function (a one-shot step).
        name: Key of the value in the state. Default: the function's name.
        needs: Opened before and closed after this one. Their values are passed to the
            factory positionally, in this order; ``None`` for a skipped one.
        startup: ``"blocking"`` opens it before ``lifespan.startup.complete``, and if
            it gives up the startup fails; ``"background"`` opens it after.
        required: ``False``: counts neither for readiness nor for startup.
        enabled: ``False``, or a callable that returns it at each startup: skipped.
        timeout: Seconds for one attempt to open; ``None``: no limit. Default: 30, and
            no limit where a worker thread opens it.
        retry: Default: `Retry()`; for a blocking resource ``None``, one attempt.
        close_timeout: Seconds to close it.
        check: Called with the value, or a `Check`; the first one belongs to the
            attempt, so that nothing is up without it, the others follow while it is.
        on_give_up: ``"unready"``: the guard stays unready; ``"exit"``: it drains,
            closes everything and ends the process with status 1.

    Raises:
        ConfigurationError: When the factory cannot be opened, or an option is wrong.
    """

    def make(factory: Factory[Any]) -> Resource[Any]:
        if isinstance(factory, Resource):
            raise ConfigurationError(f"resource {factory.name!r} is a resource already")
        form = form_of(factory)
        return build(
            name=_name_of(factory) if name is None else name,
            factory=factory,
            form=form,
            needs=needs,
            startup=startup,
            required=required,
            enabled=enabled,
            timeout=_default_timeout(form) if timeout is DEFAULT else timeout,
            retry=retry,
            close_timeout=close_timeout,
            check=_check_of(check),
            on_give_up=on_give_up,
        )

    return make if isinstance(factory, Default) else make(factory)


def build(
    *, retry: Retry | Default | None, needs: Sequence[Resource[Any]], **options: Any
) -> Resource[Any]:
    """Judge the options and return the recipe.

    Raises:
        ConfigurationError: When one is wrong.
    """
    if isinstance(retry, Default):
        retry = None if options["startup"] == "blocking" else Retry()
    recipe: Resource[Any] = Resource(
        needs=_tuple_of(options["name"], needs), retry=retry, **options
    )
    _check_name(recipe)
    _check_choices(recipe)
    _check_times(recipe)
    _check_needs(recipe)
    return recipe


def _check_of(check: Check | Callable[[Any], Any] | None) -> Check | None:
    return check if check is None or isinstance(check, Check) else Check(check)


def _default_timeout(form: Form) -> float | None:
    return None if form.threaded else OPEN_TIMEOUT


def _name_of(factory: object) -> str:
    name = getattr(factory, "__name__", "<lambda>")
    if isinstance(factory, type) or name == "<lambda>":
        raise ConfigurationError(
            f"{factory!r} has no telling name; say resource(..., name='...')"
        )
    return cast("str", name)


def _tuple_of(name: str, needs: object) -> tuple[Resource[Any], ...]:
    if not _is_list(needs) or not all(isinstance(need, Resource) for need in needs):
        raise ConfigurationError(
            f"resource {name!r}: needs={needs!r} must be a list of resources (the"
            " objects that @resource made)"
        )
    return tuple(needs)


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _check_name(recipe: Resource[Any]) -> None:
    name: object = recipe.name
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigurationError(
            f"resource name {name!r} is no Python identifier; it is to be read as"
            " request.state.<name>"
        )
    reserved = name in _RESERVED and recipe.form is not Form.APP_LIFESPAN
    if reserved or name.startswith("_"):
        raise ConfigurationError(
            f"resource name {name!r} is reserved (as is every name that begins with"
            " an underscore); choose another with name='...'"
        )


def _check_choices(recipe: Resource[Any]) -> None:
    for option, choices in (
        ("startup", ("background", "blocking")),
        ("required", (True, False)),
        ("on_give_up", ("unready", "exit")),
    ):
        value = getattr(recipe, option)
        if value not in choices:
            listed = " or ".join(map(repr, choices))
            raise ConfigurationError(
                f"resource {recipe.name!r}: {option}={value!r} must be {listed}"
            )
    retry: object = recipe.retry
    if not isinstance(retry, Retry | None):
        raise ConfigurationError(
            f"resource {recipe.name!r}: retry={recipe.retry!r} must be"
            " Retry(wait=..., stop=..., when=...), or None for a single attempt"
        )
    if recipe.form is Form.STEP and recipe.check and recipe.check.then == "reopen":
        raise ConfigurationError(
            f"resource {recipe.name!r} is a step, which is not run again:"
            " Check(then='reopen') is for what can be closed and opened"
        )
    plain = callable(recipe.enabled) and not iscoroutinefunction(recipe.enabled)
    if not isinstance(recipe.enabled, bool) and not plain:
        raise ConfigurationError(
            f"resource {recipe.name!r}: enabled={recipe.enabled!r} must be a bool, or"
            " a callable that returns one (not a coroutine function)"
        )


def _check_times(recipe: Resource[Any]) -> None:
    owner = f"resource {recipe.name!r}"
    check_seconds(owner, "close_timeout", recipe.close_timeout, zero=False)
    if recipe.timeout is not None:
        check_seconds(owner, "timeout", recipe.timeout, zero=False)


def _check_needs(recipe: Resource[Any]) -> None:
    for need in recipe.needs:
        if recipe.startup == "blocking" and need.startup != "blocking":
            raise ConfigurationError(
                f"resource {recipe.name!r} is blocking and needs {need.name!r}, which"
                f" opens in the background, after the port; make {need.name!r}"
                f" blocking too, or {recipe.name!r} background"
            )
        if recipe.required and not need.required:
            raise ConfigurationError(
                f"resource {recipe.name!r} is required and needs {need.name!r}, which"
                f" is optional; make {need.name!r} required, or {recipe.name!r}"
                " required=False"
            )
    if recipe.form is not Form.APP_LIFESPAN:
        check_arity(recipe.name, recipe.factory, [n.name for n in recipe.needs])
