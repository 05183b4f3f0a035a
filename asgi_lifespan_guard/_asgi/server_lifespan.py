"""The lifespan conversation, on the server's side of the wrapper.

One task holds it from the first message to the last, and never returns early: a
server may take that for a crash (hypercorn on trio does).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from anyio.lowlevel import checkpoint

from .._errors import AppLifespanError, LifespanGuardError, StartupFailedError
from .._redaction import redact, show
from .._tasks.backend import must_pass
from ..events import ConversationBroken, Observer, StartupFailed
from .reading import type_of
from .types import Message, Receive, Send


async def converse(
    receive: Receive,
    send: Send,
    service: AbstractAsyncContextManager[Callable[[], None]],
    observe: Observer,
) -> None:
    """Hold *service* open from ``lifespan.startup`` to ``lifespan.shutdown``.

    Args:
        receive: The server's.
        send: The server's.
        service: Entered at startup, left at shutdown; what it gives is called once
            the server has been told that the startup is complete.
        observe: Told what is odd about the conversation.

    Raises:
        BaseException: What entering or leaving *service* raised, after the server was
            told, as frameworks do it: an error of ours as a copy without its causes.
            And whatever the server's own callables raise.
    """
    if await _next_of(receive, observe, _BEFORE) == "lifespan.shutdown":
        await send({"type": "lifespan.shutdown.complete"})
        return
    await _hold(receive, send, service, observe)


_BEFORE = frozenset({"lifespan.startup", "lifespan.shutdown"})
_AFTER = frozenset({"lifespan.shutdown"})


async def _hold(
    receive: Receive,
    send: Send,
    service: AbstractAsyncContextManager[Callable[[], None]],
    observe: Observer,
) -> None:
    stage = "startup"
    failure: BaseException | None = None
    try:
        async with service as begin:
            stage = "serving"
            await send({"type": "lifespan.startup.complete"})
            begin()
            await _next_of(receive, observe, _AFTER)
            stage = "shutdown"
    except BaseException as error:
        if stage == "serving" or must_pass(error):
            raise
        failure = error
    if failure is None:
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await _confess(send, observe, stage, failure)


async def _confess(
    send: Send, observe: Observer, stage: str, failure: BaseException
) -> None:
    """Tell the server of *failure*, and raise what an unwrapped app would have raised.

    Not inside an ``except``, which would leave its mark on the app's own exception.
    """
    if stage == "startup":
        observe(StartupFailed(failure, isinstance(failure, StartupFailedError)))
    await send(_failed(stage, failure))
    to_raise = _to_raise(failure)
    if to_raise is not None:
        raise to_raise


async def _next_of(
    receive: Receive, observe: Observer, expected: frozenset[str]
) -> str:
    """Receive until one of *expected* comes; test clients send types of their own."""
    problems: set[str] = set()
    while True:
        kind = str(type_of(await receive()))
        if kind in expected:
            return kind
        problem = f"expected {' or '.join(sorted(expected))}, got {kind!r}; ignored"
        if problem not in problems:
            problems.add(problem)
            observe(ConversationBroken(problem))
        await checkpoint()  # A receive() that never waits must not hold the loop.


def _failed(stage: str, error: BaseException) -> Message:
    reply: Message = {"type": f"lifespan.{stage}.failed"}
    said = _said_by_app(error)
    message = show(error, str) if said is None or not said.told else said.message
    if message is not None:
        reply["message"] = redact(message)
    return reply


def _to_raise(error: BaseException) -> BaseException | None:
    """Return what an unwrapped app would have raised; ``None``, if it only said so."""
    said = _said_by_app(error)
    if said is None:
        return _alone(error) if isinstance(error, LifespanGuardError) else error
    if said.cause is None and not said.told:
        return said
    return said.cause


def _alone(error: LifespanGuardError) -> LifespanGuardError:
    """Return a copy of an error of ours without what it came from.

    It has to be raised, because some who run a lifespan go by that alone (Starlette's
    `TestClient`). But servers print what is raised (granian), and the texts of its
    causes are not redacted. The log has shown them, redacted.
    """
    alone = type(error).__new__(type(error), *error.args)
    vars(alone).update(vars(error))
    return alone


def _said_by_app(error: BaseException) -> AppLifespanError | None:
    cause = error.cause if isinstance(error, StartupFailedError) else error
    return cause if isinstance(cause, AppLifespanError) else None
