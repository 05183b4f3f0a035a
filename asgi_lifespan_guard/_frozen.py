"""What the plain vocabulary is made of: values that never change.

`Frozen` is a frozen dataclass in all but its making. For each of those Python writes
and compiles up to six functions at import; that takes half a millisecond, and there are
some forty in this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from inspect import Parameter, Signature
from typing import Any, ClassVar, Never, dataclass_transform


class _SignatureOfFields:
    def __get__(self, thing: object, kind: type[Frozen]) -> Signature:
        """Return the signature of *kind*, for `inspect`, `help()` and wrong calls.

        Raises:
            AttributeError: When a value is asked, and not its class.
        """
        if thing is not None:
            raise AttributeError("__signature__")
        parameters = map(_parameter, fields(kind))  # type: ignore[arg-type]
        return Signature(sorted(parameters, key=lambda parameter: parameter.kind))


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Frozen:
    """Base of what has fields that never change, and is compared by value.

    Subclasses are written as dataclasses are. They are dataclasses: `fields`, `asdict`
    and `replace` of `dataclasses` take them, and `__post_init__` is called.
    """

    __match_args__: ClassVar[tuple[str, ...]] = ()
    __signature__ = _SignatureOfFields()
    _fields: ClassVar[tuple[str, ...]] = ()
    _positional: ClassVar[int | None] = 0
    _defaults: ClassVar[dict[str, object]] = {}
    _factories: ClassVar[dict[str, Callable[[], object]]] = {}

    def __init_subclass__(cls, *, kw_only: bool = False) -> None:
        super().__init_subclass__()
        dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)
        own = fields(cls)  # type: ignore[arg-type]
        cls._fields = tuple(f.name for f in own)
        # How many there are, if all of them may be given by their order.
        cls._positional = None if any(f.kw_only for f in own) else len(own)
        cls._defaults = {f.name: f.default for f in own if f.default is not MISSING}
        cls._factories = {
            f.name: f.default_factory for f in own if f.default_factory is not MISSING
        }

    def __init__(self, *args: object, **kwargs: object) -> None:
        values: dict[str, object] | Iterable[tuple[str, object]]
        if kwargs or len(args) != self._positional:
            values = self._bound(args, kwargs)
        else:  # As events are made; strict= would take a fifth of the time.
            values = zip(self._fields, args)  # noqa: B905
        self.__dict__.update(values)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Judge the values; for subclasses."""

    def _bound(
        self, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> dict[str, object]:
        names = self.__match_args__
        in_order = dict(zip(names, args, strict=False))
        values = {**self._defaults, **in_order, **kwargs}
        for name, make in self._factories.items():
            if name not in values:
                values[name] = make()
        twice = in_order.keys() & kwargs.keys()
        if twice or len(args) > len(names) or values.keys() != set(self._fields):
            self._refuse(args, kwargs)
        return values

    def _refuse(self, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        try:
            type(self).__signature__.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None

    def __setattr__(self, name: str, value: Never) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frozen) or other.__class__ is not self.__class__:
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((self.__class__, self._values()))

    def __repr__(self) -> str:
        own = [f.name for f in fields(self) if f.repr]  # type: ignore[arg-type]
        shown = (f"{name}={getattr(self, name)!r}" for name in own)
        return f"{self.__class__.__qualname__}({', '.join(shown)})"

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self._fields)


def _parameter(of: Field[Any]) -> Parameter:
    default = of.default if of.default_factory is MISSING else of.default_factory
    return Parameter(
        of.name,
        Parameter.KEYWORD_ONLY if of.kw_only else Parameter.POSITIONAL_OR_KEYWORD,
        default=Parameter.empty if default is MISSING else default,
    )
