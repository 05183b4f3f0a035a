"""The values that requests see in ``scope["state"]``, and how they get there.

Servers copy the lifespan's own state dict for each request, so a value written into
that dict reaches every later request for free. Where that does not work (no dict, a
copy from before the last change, or no copy at all: some test clients hand out the
lifespan's dict itself, and Litestar keeps a request's body in it), the request gets a
fresh dict. A version tells: it is replaced at every change, and a request whose state
carries the current one is up to date.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any

from .._state import KEY
from .reading import state_in
from .types import Scope


class Version:
    """Marks a state as made by *guard*, at one moment; a copy of a state keeps it."""

    __slots__ = ("guard",)

    def __init__(self, guard: object) -> None:
        self.guard = guard

    def __deepcopy__(self, _memo: object) -> Version:
        return self


class PublishedState:
    """What is up, by name; kept in step with the lifespan's state dict.

    Our own reference to the values matters: granian empties the dict before shutdown.

    Attributes:
        shared: The lifespan's own dict, between startup and shutdown.
        version: In every state that is up to date.
    """

    def __init__(self, guard: object) -> None:
        self._guard = guard
        self._values: dict[str, Any] = {}
        self._names: set[str] = set()
        self.shared: MutableMapping[str, Any] | None = None
        self.version = Version(guard)

    @property
    def values(self) -> Mapping[str, Any]:
        """Every value that is up now."""
        return MappingProxyType(self._values)

    def attach(self, shared: MutableMapping[str, Any] | None) -> None:
        """Write into *shared* from now on; ``None``: there is none."""
        self.shared = shared
        self._renew()

    def detach(self) -> None:
        """Forget the lifespan's dict and every value."""
        self._values.clear()
        self.shared = None
        self.version = Version(self._guard)

    def publish(self, values: Mapping[str, Any]) -> None:
        """Let requests see *values*."""
        self._values.update(values)
        self._names.update(values)
        if self.shared is not None:
            self.shared.update(values)
        self._renew()

    def withdraw(self, names: Iterable[str]) -> None:
        """Let requests see the values of *names* no longer."""
        for name in names:
            self._values.pop(name, None)
            if self.shared is not None:
                self.shared.pop(name, None)
        self._renew()

    def refreshed(self, scope: Scope) -> Scope:
        """Return a copy of *scope* with a state of its own that is up to date."""
        old = state_in(scope) or {}
        kept = {key: old[key] for key in old if key not in self._names}
        return {**scope, "state": {**kept, **self._values, KEY: self.version}}

    def _renew(self) -> None:
        self.version = Version(self._guard)
        if self.shared is not None:
            self.shared[KEY] = self.version
