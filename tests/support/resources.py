"""Resources that do what a test says, and apps to put behind a guard."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Any

import anyio
from tenacity import wait_fixed, wait_none

from asgi_lifespan_guard import Resource, Retry, resource
from tests.recorder import Recorder


SOON = Retry(wait=wait_none())
LATER = Retry(wait=wait_fixed(3600))


class Tap:
    """A resource that opens when the test lets it, and crashes when told to.

    Attributes:
        recipe: What a guard is given; its value is ``<name> <number of the opening>``.
        errors: Raised by the attempts to come, one each.
    """

    def __init__(
        self,
        recorder: Recorder,
        name: str = "db",
        *,
        errors: Iterable[Exception] = (),
        shut: bool = False,
        **options: Any,
    ) -> None:
        self.errors = list(errors)
        self._recorder = recorder
        self._name = name
        self._openings = 0
        self._allowed = anyio.Event()
        self._crash = anyio.Event()
        self.recipe: Resource[str] = resource(self._open, name=name, **options)
        if not shut:
            self.let()

    def let(self) -> None:
        """Let the attempts go on, from now on."""
        self._allowed.set()

    def crash(self) -> None:
        """End the context manager while it is up."""
        self._crash.set()

    async def close(self) -> None:
        """Be overridden by taps that do not close cleanly."""

    async def _open(self, *needs: Any) -> AsyncGenerator[str, None]:
        await self._allowed.wait()
        if self.errors:
            raise self.errors.pop(0)
        self._openings += 1
        self._recorder.mark(f"open {self._name}")
        async with anyio.create_task_group() as group:
            group.start_soon(self._wait_for_crash)
            try:
                yield f"{self._name} {self._openings}"
            finally:
                group.cancel_scope.cancel()
                self._recorder.mark(f"close {self._name}")
        await self.close()

    async def _wait_for_crash(self) -> None:
        await self._crash.wait()
        self._crash = anyio.Event()
        raise ConnectionResetError(f"{self._name} is gone")


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Say hello, to HTTP and to WebSockets; have no lifespan."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


class Watcher:
    """An app that says hello, and keeps every scope that it was called with."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await hello(scope, receive, send)

    @property
    def state(self) -> dict[str, Any]:
        """The state of the last scope, without the guard's own entry."""
        state = dict(self.scopes[-1]["state"])
        state.pop("asgi_lifespan_guard", None)
        return state


class LivedIn:
    """An app with a lifespan, of which each attempt may go wrong in its own way.

    Args:
        recorder: Where it marks its startup and its shutdown.
        errors: Raised by its startups to come, one each, after saying so.
        last_words: Raised by its shutdown, after saying so.
        yields: What it puts into its state.

    Attributes:
        states: The state of each startup, as it was given, without the guard's entry.
        crash: Ends the lifespan when set while it is up.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        errors: Iterable[Exception] = (),
        last_words: Exception | None = None,
        **yields: Any,
    ) -> None:
        self.errors = list(errors)
        self.states: list[dict[str, Any]] = []
        self.scopes: list[Any] = []
        self.crash = anyio.Event()
        self._recorder = recorder
        self._last_words = last_words
        self._yields = yields

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] != "lifespan":
            await hello(scope, receive, send)
            return
        assert (await receive())["type"] == "lifespan.startup"
        self._recorder.mark("app starts")
        state = dict(scope.get("state", {}))
        state.pop("asgi_lifespan_guard", None)
        self.states.append(state)
        if self.errors:
            await _fail("startup", self.errors.pop(0), send)
        if self._yields:
            scope["state"].update(self._yields)
        await send({"type": "lifespan.startup.complete"})
        await self._stay(receive)
        self._recorder.mark("app shuts down")
        if self._last_words is not None:
            await _fail("shutdown", self._last_words, send)
        await send({"type": "lifespan.shutdown.complete"})

    async def _stay(self, receive: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._wait_for_crash)
            assert (await receive())["type"] == "lifespan.shutdown"
            group.cancel_scope.cancel()

    async def _wait_for_crash(self) -> None:
        await self.crash.wait()
        self.crash = anyio.Event()
        raise ConnectionResetError("a consumer is gone")


async def _fail(stage: str, error: Exception, send: Any) -> None:
    await send({"type": f"lifespan.{stage}.failed", "message": f"{stage}: {error}"})
    raise error
