"""Plays the server to an app, so that its own lifespan becomes a context manager.

What ends or raises *before its first* ``receive()`` has no lifespan, and needs none;
what does so afterwards has failed. This rule was right for every framework that we
know; "raised, hence unsupported" (what servers do) is not. What begins with a message
that is not about a lifespan has none either, whenever that comes: it takes every scope
for a request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio

from .._errors import AppLifespanError, CloseTimeoutError
from .._redaction import show
from .._tasks.backend import must_pass
from .._tasks.groups import transparent_task_group
from .._tasks.interruption import Interruption, interruptible
from .._tasks.waiting import Waiters
from .reading import type_of
from .types import ASGIApp, Message, Scope


OnUnsupported = Callable[[BaseException | None], None]

GOODBYE = 1.0
"""Of the seconds for a shutdown, those kept to clean up after one that hangs."""


@asynccontextmanager
async def hosted_lifespan(
    name: str,
    app: ASGIApp,
    scope: Scope,
    time_left: Callable[[], float],
    on_unsupported: OnUnsupported,
) -> AsyncGenerator[None, None]:
    """Run *app*'s lifespan: its startup on entering, its shutdown on leaving.

    Args:
        name: For error texts.
        app: Called once, in a task of its own.
        scope: A lifespan scope of its own.
        time_left: Returns the seconds that are left for a call that is over to return
            by itself, and for one that is cancelled to clean up.
        on_unsupported: Called where the app has no lifespan, with what it raised, or
            what was raised into it.

    Raises:
        AppLifespanError: When its startup or shutdown failed, or when it crashed in
            between (then out of the body, which is cancelled).
    """
    call = _Call(name, app, scope, time_left)
    async with transparent_task_group() as group:
        group.start_soon(call.run)
        try:
            if await call.startup():
                yield
                await call.shutdown()
            else:
                on_unsupported(call.error)
                yield
        finally:
            await call.end()


SILENT = "it failed without a reason, as Quart's while_serving does when used up"


def restart_obstacle(error: BaseException) -> str | None:
    """Return how *error* shows that an app cannot be started twice, or ``None``.

    Only to be asked about a second attempt. The signs were measured: Quart's
    ``while_serving`` generators and a context manager *instance* in Litestar's
    ``lifespan=`` are used up, and the MCP SDK's session manager says so.
    """
    if not isinstance(error, AppLifespanError) or error.during != "startup":
        return None
    text = f"{error.message or ''} {error.cause or ''}"
    if error.told and not text.strip():
        return SILENT
    signs = ("can only be called once", "generator didn't yield", "attribute 'args'")
    return next((sign for sign in signs if sign in text), None)


def is_refusal(error: BaseException) -> bool:
    """Whether *error*, raised before any ``receive()``, says "lifespan: not here".

    Anything else says so by accident: Starlette builds its middleware in that call,
    and one that lacks an argument makes every request fail, too.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_refusal, error.exceptions))
    if isinstance(error, KeyError):
        return bool(error.args) and error.args[0] in _KEYS_OF_REQUESTS
    if isinstance(error, AssertionError | NotImplementedError | _ForeignMessageError):
        return True
    text = show(error, str).lower()
    return not isinstance(error, TypeError) and ("lifespan" in text or "scope" in text)


_KEYS_OF_REQUESTS = frozenset(
    (
        *("http_version", "method", "scheme", "path", "raw_path", "query_string"),
        *("root_path", "headers", "client", "server", "extensions", "subprotocols"),
    )
)
"""What the scope of a request has, and that of a lifespan has not."""


class _ForeignMessageError(Exception):
    """Raised into an app that answers its lifespan with something else."""

    def __init__(self, kind: object) -> None:
        super().__init__(f"the app sent {kind!r} to a lifespan scope")


class _Call:
    """One call of the app with a lifespan scope.

    Attributes:
        error: What the call raised, if it has.
    """

    def __init__(
        self, name: str, app: ASGIApp, scope: Scope, time_left: Callable[[], float]
    ) -> None:
        self._name = name
        self.error: BaseException | None = None
        self._app = app
        self._scope = scope
        self._time_left = time_left
        self._waiters = Waiters()
        self._shutdown_sent = anyio.Event()
        self._received = 0
        self._foreign: _ForeignMessageError | None = None
        self._startup: Message | None = None
        self._shutdown: Message | None = None
        self._end_by: float | None = None
        self._idle = False
        self._ended = False
        self._over = False
        self._work: Interruption | None = None

    async def run(self) -> None:
        """Make the call.

        Raises:
            AppLifespanError: When it crashed after a complete startup.
        """
        try:
            async with interruptible(self._time_left()) as self._work:
                self._waiters.wake()
                if not self._over:
                    await self._app(self._scope, self._receive, self._send)
        except BaseException as error:
            if must_pass(error):
                raise
            self.error = error
        finally:
            self._ended = True
            self._waiters.wake()
        if self._is_serving() and (self.error is not None or self._shutdown_failed()):
            # Starlette says shutdown.failed of its own accord when a task group that
            # its lifespan holds has crashed.
            said = self._shutdown if self._shutdown_failed() else None
            raise self._failure("serving", said)

    async def startup(self) -> bool:
        """Wait until the app has started; ``False``: it has no lifespan.

        Raises:
            AppLifespanError: When its startup failed.
        """
        await self._waiters.wait_until(self._is_decided)
        if self._completed():
            return True
        if self._foreign is not None:
            await self.end()
            self.error = self._foreign
            return False
        grave = self.error is not None and not isinstance(self.error, Exception)
        if self._startup is None and not self._received and not grave:
            return False
        await self._wait_for_return()
        raise self._failure("startup", self._startup)

    async def shutdown(self) -> None:
        """Have the app shut down, and wait until it has.

        Raises:
            AppLifespanError: When its shutdown failed.
            CloseTimeoutError: When it was not done in time.
        """
        was_over = self._ended
        left = self._time_left()
        self._end_by = anyio.current_time() + left
        self._shutdown_sent.set()
        polite = left - min(GOODBYE, left / 4)
        with anyio.move_on_after(polite) as scope:
            await self._waiters.wait_until(lambda: self._ended or self._idle)
        if scope.cancelled_caught:
            raise CloseTimeoutError(self._name, polite)
        failed = self._shutdown_failed()
        if failed or (self.error is not None and not was_over):
            raise self._failure("shutdown", self._shutdown if failed else None)

    async def end(self) -> None:
        """Cancel the call if it still runs, and wait until it has cleaned up."""
        self._over = True
        if self._work is None:
            return  # It has not begun, and will not call the app; or never begins.
        self._work.interrupt()
        self._work.bound(self._time_to_clean_up())
        try:
            await self._waiters.wait_until(lambda: self._ended)
        except anyio.get_cancelled_exc_class():
            self._work.bound(self._time_left())  # It may have become less.
            raise
        finally:
            await self._waiters.wait_through(lambda: self._ended)

    def _time_to_clean_up(self) -> float:
        if self._end_by is None:
            return self._time_left()
        return max(0.0, self._end_by - anyio.current_time())

    async def _wait_for_return(self) -> None:
        self._shutdown_sent.set()
        with anyio.move_on_after(self._time_left()):
            await self._waiters.wait_until(lambda: self._ended or self._idle)

    async def _receive(self) -> Message:
        self._received += 1
        if self._received == 1:
            return {"type": "lifespan.startup"}
        if self._received > 2:
            self._idle = True
            self._waiters.wake()
            await anyio.sleep_forever()
        await self._shutdown_sent.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        if _is(message, "startup.complete") or _is(message, "startup.failed"):
            self._startup = self._startup or message
        elif _is(message, "shutdown.complete") or _is(message, "shutdown.failed"):
            self._shutdown = message
        else:
            error = _ForeignMessageError(type_of(message))
            if self._startup is None:
                self._foreign = error
                self._waiters.wake()
            raise error
        self._waiters.wake()

    def _is_decided(self) -> bool:
        answered = self._startup is not None or self._foreign is not None
        return answered or self._ended

    def _is_serving(self) -> bool:
        return self._completed() and not (self._over or self._shutdown_sent.is_set())

    def _shutdown_failed(self) -> bool:
        return self._shutdown is not None and _is(self._shutdown, "shutdown.failed")

    def _completed(self) -> bool:
        return self._startup is not None and _is(self._startup, "startup.complete")

    def _failure(self, during: str, said: Message | None) -> AppLifespanError:
        if said is None:
            error = self.error or RuntimeError("it ended without an answer")
            failure = AppLifespanError(during, error)
        else:
            message = said.get("message")
            failure = AppLifespanError(during, self.error, told=True, message=message)
        failure.__cause__ = self.error
        return failure


def _is(message: Message, kind: str) -> bool:
    return type_of(message) == f"lifespan.{kind}"
