"""What a guard was told at construction, judged and worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from ._app import lifespan_of
from ._asgi.loading import LoadedApp
from ._asgi.paths import longest_prefix
from ._errors import ConfigurationError, OpenedTwiceError
from ._phases import ResourcePhase
from ._report import ResourceReport
from ._resources.graph import check_resources
from ._resources.resource import Resource
from ._settings import Drain, Gate, Probes, check_flag, check_seconds
from ._state import APP


AppLifespan: TypeAlias = Literal["blocking", "background", "off"]
DEFAULT_PROBES = Probes()
DEFAULT_DRAIN = Drain()


class Plan:
    """The settings of one guard, and what follows from them.

    Args:
        resources: As given to `LifespanGuard`; so are the others.
        app_lifespan: What becomes of the app's own lifespan.
        gate: ``None``: the default one.
        probes: ``None``: none.
        drain: ``None``: none.
        shutdown_timeout: Seconds for closing everything.
        app: What is wrapped, where that matters: it may have to be loaded first.
        lazy_start: Whether the first request starts it.

    Attributes:
        resources: What was registered.
        recipes: The same, and the app's own lifespan where it is run.
        names: Their names.
        needed_anywhere: Every name that some path may need.
        forwards_app: Whether the app's own lifespan is forwarded as messages come.
        takes_paths: Whether the probes' paths are answered by the guard itself.
        transparent: Whether requests and their state are as they were without us.

    Raises:
        ConfigurationError: When anything of it is wrong.
    """

    def __init__(
        self,
        resources: Sequence[Resource[Any]],
        app_lifespan: AppLifespan | Resource[Any],
        gate: Gate | None,
        probes: Probes | None,
        drain: Drain | None,
        shutdown_timeout: float,
        app: LoadedApp | None = None,
        *,
        lazy_start: bool = False,
    ) -> None:
        _check_kind("gate", gate, Gate)
        _check_kind("probes", probes, Probes)
        _check_kind("drain", drain, Drain)
        check_flag("LifespanGuard", "lazy_start", lazy_start)
        check_seconds("LifespanGuard", "shutdown_timeout", shutdown_timeout)
        self.gate = gate or Gate()
        self.probes = probes or DEFAULT_PROBES
        self.drain = drain
        self.shutdown_timeout = shutdown_timeout
        self.resources = check_resources(resources)
        self.lazy_start = lazy_start
        self._app = app
        self.recipes = self._with_app_lifespan(app_lifespan)
        self.names = tuple(recipe.name for recipe in self.recipes)
        self.takes_paths = probes is not None
        always = frozenset({APP} if self._is_never_without_its_app() else ())
        self._by_default = always.union(r.name for r in self.recipes if _gates(r))
        self._by_prefix = {
            prefix: always.union(named.name for named in needs)
            for prefix, needs in self.gate.needs.items()
        }
        self._check_needed()
        self.needed_anywhere = self._by_default.union(*self._by_prefix.values())
        self.forwards_app = any(starts_as_without_us(r) for r in self.recipes)
        as_without_us = all(starts_as_without_us(r) for r in self.recipes)
        self.transparent = as_without_us and not lazy_start

    def key_of(self, path: str) -> str | None:
        """Return the listed prefix that *path* lies under."""
        return longest_prefix(self._by_prefix, path) if self._by_prefix else None

    def needed_by(self, path: str) -> tuple[str | None, frozenset[str]]:
        """Return the listed prefix that *path* lies under, and what it needs."""
        prefix = self.key_of(path)
        return prefix, self._by_default if prefix is None else self._by_prefix[prefix]

    def check_beside(self, other: Plan) -> None:
        """Judge it beside the plan of a guard around the same app.

        Raises:
            OpenedTwiceError: When both have the same resources.
        """
        twice = [recipe.name for recipe in self.resources if recipe in other.resources]
        if twice:
            raise OpenedTwiceError(twice)

    def unopened(self) -> tuple[ResourceReport, ...]:
        """Return the reports of resources of which none was ever asked for."""
        return tuple(_unopened(recipe) for recipe in self.recipes)

    @property
    def _is_late(self) -> bool:
        return self._app is not None and self._app.is_late

    def _is_never_without_its_app(self) -> bool:
        """Whether no path, however open, is served before the app is up.

        There may be no app yet; or no server that would have waited for its startup.
        """
        return self._is_late or (self.lazy_start and APP in self.names)

    def _with_app_lifespan(
        self, app_lifespan: AppLifespan | Resource[Any]
    ) -> tuple[Resource[Any], ...]:
        if app_lifespan == "off":
            if not self._is_late:
                return self.resources
            app_lifespan = "background"  # Its loading; its lifespan is not run.
        if app_lifespan == "blocking" and self._app is not None and self._app.blocks:
            app_lifespan = "background"
        hosted = self._recipe_for(app_lifespan)
        if self._is_late and not (hosted.required and hosted.enabled is True):
            raise ConfigurationError(
                "app_lifespan=lifespan_of(...): an app that has to be imported or made"
                " first can neither be optional (required=False) nor be switched off"
                " (enabled=...); app_lifespan='off' leaves out its lifespan only"
            )
        return check_resources((*self.resources, hosted))

    def _recipe_for(self, app_lifespan: AppLifespan | Resource[Any]) -> Resource[Any]:
        if app_lifespan == "background":
            return lifespan_of()
        if app_lifespan == "blocking":
            blocking = (r for r in self.resources if r.startup == "blocking")
            return lifespan_of(
                startup="blocking", needs=[r for r in blocking if r.required]
            )
        if isinstance(app_lifespan, Resource) and app_lifespan.name == APP:
            return app_lifespan
        raise ConfigurationError(
            f"app_lifespan={app_lifespan!r} must be 'blocking', 'background', 'off', or"
            " a recipe: lifespan_of(needs=[...])"
        )

    def _check_needed(self) -> None:
        known = {recipe.name for recipe in self.recipes}
        for prefix, names in self._by_prefix.items():
            unknown = sorted(names - known)
            if unknown:
                raise ConfigurationError(
                    f"Gate(needs={{{prefix!r}: ...}}) names {', '.join(unknown)}, which"
                    " the guard does not know; add it to resources=[...]"
                )


def starts_as_without_us(recipe: Resource[Any]) -> bool:
    """Whether it is the app's own lifespan, forwarded as the server's messages come."""
    return recipe.name == APP and recipe.startup == "blocking"


def _gates(recipe: Resource[Any]) -> bool:
    """Whether requests wait for it; not for an app that started as without us."""
    return recipe.required and not starts_as_without_us(recipe)


def _unopened(recipe: Resource[Any]) -> ResourceReport:
    return ResourceReport(
        name=recipe.name,
        phase=ResourcePhase.PENDING,
        required=recipe.required,
        startup=recipe.startup,
    )


def _check_kind(option: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise ConfigurationError(
            f"LifespanGuard({option}={value!r}): must be {kind.__name__}(...)"
        )
