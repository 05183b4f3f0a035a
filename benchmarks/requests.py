"""What one HTTP request costs more with a guard around the app.

Coroutines are driven by hand: ``coroutine.send(None)`` until `StopIteration`. Nothing
here ever waits, and the bounds are about tens of nanoseconds; an event loop would add
some 5 µs of its own to each call, and a server far more, in which they would be lost.
The loop is there all the same, standing still meanwhile: the guard's lifespan lives in
one of its tasks, and a refusal asks it for the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeAlias

from asgi_lifespan_guard import LifespanGuard, Resource, Retry, resource

from .measure import Row, Times, in_turns, no_collection, serving, until


Message: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
App: TypeAlias = Callable[[Any, Receive, Send], Coroutine[Any, Any, None]]
Scope: TypeAlias = dict[str, Any]

_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"5")]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as the smallest app does: two messages, without waiting."""
    start = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
    await send(start)
    await send({"type": "http.response.body", "body": b"hello"})


class Minimal:
    """The least that a wrapper can be: what every middleware costs."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def run(quick: bool) -> list[Row]:
    """Measure all variants in turns."""
    return asyncio.run(_run(rounds=4 if quick else 400, calls=200 if quick else 2000))


async def _run(rounds: int, calls: int) -> list[Row]:
    async with AsyncExitStack() as stack:
        calling = await _variants(stack)
        variants = {
            name: partial(_nanoseconds, app, scope, _fewer(calls, scope, name))
            for name, (app, scope) in calling.items()
        }
        with no_collection():
            return _rows(in_turns(variants, rounds))


async def _variants(stack: AsyncExitStack) -> dict[str, tuple[App, Scope]]:
    nothing, state = await _serving(stack, [], drain=None)
    three, state_of_three = await _serving(stack, _resources(3), drain=None)
    fifty, state_of_fifty = await _serving(stack, _resources(50), drain=None)
    draining, state_of_draining = await _serving(stack, _resources(3))
    default, state_of_default = await _serving(stack, [])
    closed, state_of_closed = await _serving(stack, [_away()])
    return {
        "bare": (hello, _scope("/", {})),
        "minimal": (Minimal(hello), _scope("/", {})),
        "minimal again": (Minimal(hello), _scope("/", {})),
        "guard": (nothing, _scope("/", state)),
        "guard, 3": (three, _scope("/", state_of_three)),
        "guard, 3, root": (three, _scope("/api/", state_of_three, "/api")),
        "guard, 50": (fifty, _scope("/", state_of_fifty)),
        "drain": (default, _scope("/", state_of_default)),
        "drain, 3": (draining, _scope("/", state_of_draining)),
        "livez": (nothing, _scope("/livez", state)),
        "livez, 50": (fifty, _scope("/livez", state_of_fifty)),
        "refusal": (closed, _scope("/", state_of_closed)),
    }


async def _serving(
    stack: AsyncExitStack, resources: list[Resource[Any]], **options: Any
) -> tuple[App, dict[str, Any]]:
    guard = LifespanGuard(hello, resources, app_lifespan="off", **options)
    state = await stack.enter_async_context(serving(guard))
    if resources and resources[0].name != "away":
        await until(lambda: guard.ready)
    else:
        await asyncio.sleep(0.01)  # The first attempt fails in this time.
    return guard, state


def _resources(number: int) -> list[Resource[Any]]:
    return [resource(_trivial, name=f"r{index}") for index in range(number)]


async def _trivial() -> AsyncGenerator[object, None]:
    yield object()


def _away() -> Resource[Any]:
    """Make a resource whose next attempt is too far away to hold requests for it."""
    return resource(_fail, name="away", retry=Retry(wait=lambda _state: 600.0))


async def _fail() -> None:
    raise ConnectionRefusedError("away")


def _scope(path: str, state: dict[str, Any], root_path: str = "") -> Scope:
    """Make an HTTP scope with a copy of the lifespan's state, as uvicorn does."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": root_path,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost:8000"), (b"user-agent", b"wrk")],
        "state": state.copy(),
    }


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    pass


def _nanoseconds(app: App, scope: Scope, calls: int) -> float:
    """Return what one call takes, the loop around it included."""
    begun = time.perf_counter_ns()
    for _ in range(calls):
        try:
            app(scope, _receive, _send).send(None)
        except StopIteration:
            continue
        raise AssertionError("the call waits for something")
    return (time.perf_counter_ns() - begun) / calls


def _fewer(calls: int, scope: Scope, name: str) -> int:
    """Return how often to call what takes microseconds, where *calls* is for less."""
    return calls // 20 if name == "refusal" or scope["path"] == "/livez" else calls


def _rows(times: Mapping[str, Times]) -> list[Row]:
    return [
        *(
            _over_minimal(times, what, name, bound)
            for what, name, bound in (
                ("`drain=None`, nothing registered", "guard", 2.0),
                ("`drain=None`, 3 resources up", "guard, 3", 2.0),
                ("`drain=None`, 50 resources up", "guard, 50", 2.0),
                ("default drain, nothing registered", "drain", 2.6),
                ("default drain, 3 resources up", "drain, 3", 2.6),
                ("A/A: another minimal wrapper", "minimal again", None),
            )
        ),
        _to_three(times, "pass-through, 50 resources / 3", "guard, 50"),
        _to_three(
            times, "pass-through, behind a root path / without", "guard, 3, root"
        ),
        _over_bare(times, "`/livez`, nothing registered", "livez", 3.0),
        _over_bare(times, "`/livez`, 50 resources up", "livez, 50", 3.0),
        _over_bare(times, "a refusal (503)", "refusal", 5.0),
    ]


def _over_minimal(
    times: Mapping[str, Times], what: str, name: str, bound: float | None
) -> Row:
    def ratio(of: Callable[[Times], float]) -> float:
        bare = of(times["bare"])
        return (of(times[name]) - bare) / (of(times["minimal"]) - bare)

    best, usual = ratio(lambda t: t.best), ratio(lambda t: t.median)
    overhead = times[name].best - times["bare"].best
    note = f"{overhead:.0f} ns; by medians {usual:.2f}"
    return Row(f"{what} / minimal wrapper", best, "×", bound, note)


def _to_three(times: Mapping[str, Times], what: str, name: str) -> Row:
    bare, three, other = (times[key].best for key in ("bare", "guard, 3", name))
    return Row(what, (other - bare) / (three - bare), "×", 1.1)


def _over_bare(times: Mapping[str, Times], what: str, name: str, bound: float) -> Row:
    cost, bare = times[name], times["bare"]
    usual = cost.median / bare.median
    note = f"{cost.best:.0f} ns over {bare.best:.0f}; by medians {usual:.2f}"
    return Row(f"{what} / bare request", cost.best / bare.best, "×", bound, note)
