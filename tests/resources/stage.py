"""A stage for resources: what a guard is to the supervisor, without the guard."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from anyio.lowlevel import checkpoint

from asgi_lifespan_guard import (
    CloseFailedError,
    Resource,
    ResourcePhase,
    resource,
)
from asgi_lifespan_guard._resources.supervisor import Supervisor
from asgi_lifespan_guard._resources.upcalls import Upcalls
from asgi_lifespan_guard._tasks.waiting import Waiters
from asgi_lifespan_guard.events import Event
from tests.recorder import Recorder


class Stage:
    """Runs resources and keeps what became of them.

    Attributes:
        recorder: Its marks are the transcript.
        values: What requests would see now.
        gave_up: Names of resources that will not be tried again.
        supervisor: Of the current, or the last, run.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.values: dict[str, Any] = {}
        self.gave_up: list[str] = []
        self.supervisor: Supervisor
        self.mark = recorder.mark
        self.marks = recorder.marks

    def observe(self, event: Event, /) -> None:
        self.recorder(event)

    def publish(self, recipe: Resource[Any], value: Any, /) -> None:
        self.values[recipe.name] = value

    def withdraw(self, recipe: Resource[Any], /) -> None:
        del self.values[recipe.name]

    @asynccontextmanager
    async def running(
        self,
        *recipes: Resource[Any],
        timeout: float = 5.0,
        first_to_close: str | None = None,
    ) -> AsyncGenerator[Supervisor, None]:
        """Open *recipes*, the background ones too, and close them when left."""
        news = Waiters()
        upcalls = Upcalls(
            observe=self.observe,
            publish=self.publish,
            withdraw=self.withdraw,
            changed=news.wake,
            gave_up=lambda recipe: self.gave_up.append(recipe.name),
        )
        opened = [replace(r, closes_first=r.name == first_to_close) for r in recipes]
        self.supervisor = Supervisor(opened, upcalls, news)
        with suppress(CloseFailedError):
            async with self.supervisor.running(timeout) as begin:
                begin()
                yield self.supervisor

    def make(
        self,
        name: str,
        *,
        on_open: Callable[[], Any] | None = None,
        on_close: Callable[[], Any] | None = None,
        needs: Sequence[Resource[Any]] = (),
        **options: Any,
    ) -> Resource[Any]:
        """Make a resource that marks that it is opened and closed.

        What *on_open* and *on_close* return is awaited, where it can be.
        """

        async def factory(*values: Any) -> AsyncGenerator[str, None]:
            await _settle(on_open)
            self.mark(f"open {name}")
            try:
                yield name
            finally:
                self.mark(f"closing {name}")
                await checkpoint()
                await _settle(on_close)
                self.mark(f"close {name}")

        return resource(factory, name=name, needs=needs, **options)

    def phase(self, name: str) -> ResourcePhase:
        """Return the phase that a resource is in now."""
        return next(r.phase for r in self.supervisor.report() if r.name == name)

    async def until_phase(self, name: str, phase: ResourcePhase) -> None:
        """Return once a resource is in *phase*."""
        await self.recorder.wait_until(lambda: self.phase(name) is phase)

    async def until_up(self, *names: str) -> None:
        """Return once all *names* are up."""
        for name in names:
            await self.until_phase(name, ResourcePhase.UP)


async def _settle(call: Callable[[], Any] | None) -> None:
    made = call() if call is not None else None
    if made is not None:
        await made


def failing(*errors: BaseException) -> Callable[[], None]:
    """Return a callable that raises *errors*, one at each call, and then no more."""
    left = list(errors)

    def fail() -> None:
        if left:
            raise left.pop(0)

    return fail
