"""The resources of a scenario, and the lifespans of apps: what each does, and when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Protocol, cast

import anyio
import tenacity
from anyio.lowlevel import checkpoint

from asgi_lifespan_guard import Check, Resource, Retry, lifespan_of, resource
from asgi_lifespan_guard._resources.checks import Then
from tests.chaos.scenario import Node, name_of


LINGERS = 2.0
"""Seconds that a slow clean-up takes after a cancellation."""

FAR = 1e9


class InjectedError(Exception):
    """What goes wrong here on purpose."""


class HopelessError(ImportError):
    """The same, and another attempt cannot help."""


class Panic(BaseException):
    """What Rust raises through pyo3, and pytest where a test fails."""


class Onlooker(Protocol):
    """Who is told what actors do."""

    on_asyncio: bool

    def mark(self, what: str, actor: Actor, /) -> None: ...
    def inject(self, actor: Actor, error: BaseException, stage: str, /) -> None: ...
    def begins(self, actor: Actor, values: Sequence[Any] | None, /) -> bool: ...
    def comes_up(self, actor: Actor, /) -> None: ...
    def goes_down(self, actor: Actor, /) -> None: ...
    def is_down(self, actor: Actor, /) -> None: ...
    def is_cut(self, actor: Actor, /) -> None: ...
    def trouble(self) -> None: ...


def _fail(_state: object) -> float:
    raise InjectedError("the strategy fails")


def policy_of(key: str | None) -> Retry | None:
    """Return the policy that a node's *retry* means."""
    steady = tenacity.wait_fixed(2)
    return {
        None: None,
        "steady": Retry(wait=steady),
        "three": Retry(
            wait=tenacity.wait_fixed(1), stop=tenacity.stop_after_attempt(3)
        ),
        "zero": Retry(wait=tenacity.wait_none()),
        "usual": Retry(),
        "of its own kind": Retry(
            wait=steady, when=tenacity.retry_if_exception_type(InjectedError)
        ),
        "nan": Retry(wait=lambda _: float("nan")),
        "negative": Retry(wait=lambda _: -1.0),
        "raises": Retry(wait=_fail),
        "forever": Retry(wait=lambda _: float("inf")),
    }[key]


ILL_STRATEGIES = frozenset({"nan", "negative", "raises", "forever"})


class Actor:
    """One resource, and what becomes of it.

    Attributes:
        busy: Whether an attempt is on: from the factory's call to its end.
        live: Whether it is up as far as it knows: from the ``yield`` to its return.
        begun: How many attempts were begun in this cycle.
        task: The task (on asyncio) that made the last attempt.
        went: What may be told about it, because it did happen: "slow to open" ...
    """

    def __init__(self, look: Onlooker, number: int, node: Node, needs: Sequence[Actor]):
        self.node = node
        self.name = name_of(number)
        self.needs = list(needs)
        self.value: Any = None
        self.busy = self.live = False
        self.done = False
        self.begun = self.entered = self.left = 0
        self.task: asyncio.Task[Any] | None = None
        self.went: set[str] = set()
        self.look = look
        self._openings = list(node.openings)
        self._closings = list(node.closings)
        self._answers = list(node.ask.answers) if node.ask else []
        self._crash: anyio.Event | None = None
        self._how = ""
        self._where: object = None
        self.recipe = self._recipe()

    def below(self) -> Iterator[Actor]:
        """Yield what is to be open while it is, through steps that ran."""
        for need in self.needs:
            if need.node.kind != "step" and need.node.enabled == "yes":
                yield need
            if need.node.kind == "step" and need.node.enabled != "no":
                yield from need.below()

    def deep_needs(self) -> Iterator[Actor]:
        """Yield everything that it needs, directly or not."""
        for need in self.needs:
            yield need
            yield from need.deep_needs()

    def renew(self) -> None:
        """Make ready for another cycle."""
        self.begun = 0
        self.done = False

    def crash(self, how: str) -> None:
        """End it while it is up, if it holds something that can fail."""
        if self._crash is not None:
            self._how = how
            self._crash.set()

    # Its recipe

    def _recipe(self) -> Resource[Any]:
        node = self.node
        common: dict[str, Any] = {
            "name": self.name,
            "needs": [need.recipe for need in self.needs],
            "startup": "blocking" if node.blocking else "background",
            "required": node.required,
            "enabled": {"yes": True, "no": False}.get(node.enabled, self._enabled),
            "timeout": node.timeout,
            "close_timeout": node.close_timeout,
            "retry": policy_of(node.retry),
        }
        if node.kind == "lifespan":
            own = () if self.name == "app" else (self.lifespan,)
            return lifespan_of(*own, **common)
        factories: dict[str, Any] = {
            "context": self._context,
            "step": self._step,
            "thread": self._thread,
        }
        return resource(factories[node.kind], check=self._check_recipe(), **common)

    def _check_recipe(self) -> Check | None:
        ask = self.node.ask
        if ask is None:
            return None
        return Check(
            self._answer,
            every=ask.every,
            timeout=ask.timeout,
            failures=ask.failures,
            successes=ask.successes,
            then=cast("Then", ask.then),
        )

    def _enabled(self) -> bool:
        raise self._injected("cannot say whether it is enabled", stage="give up")

    # Its forms

    async def _context(self, *values: Any) -> AsyncGenerator[Any, None]:
        await self._begin(values)
        try:
            await self._suffer_opening()
            try:
                async with self._group():
                    yield self._up()
            except Exception:
                if not self.node.swallows:
                    raise
                self.look.mark("swallows", self)
        finally:
            await self._close()

    async def _step(self, *values: Any) -> str:
        await self._begin(values)
        try:
            await self._suffer_opening()
            self.done = True
            return str(self._new_value())
        finally:
            self.busy = False
            self.look.mark("step over", self)

    def _thread(self, *values: Any) -> Iterator[Any]:
        self._note_begin(values)
        try:
            fate = self._next(self._openings)
            if fate != "ok":
                raise self._injected(fate, stage="open")
            yield self._up()
        finally:
            was_live = self._goes_down()
            fate = self._next(self._closings) if was_live else "ok"
            self._is_down()
            if fate in ("fails", "panics"):
                raise self._injected(fate, stage="close")

    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        """Be an app with a lifespan."""
        assert (await receive())["type"] == "lifespan.startup"
        await self._begin(None)
        stage = "startup"
        try:
            await self._suffer_opening()
            self._up()
            await send({"type": "lifespan.startup.complete"})
            async with self._held_group():
                assert (await receive())["type"] == "lifespan.shutdown"
            stage = "shutdown"
            await self._suffer_closing()
            self._is_down()
            await send({"type": "lifespan.shutdown.complete"})
        except InjectedError as error:
            self._is_down()
            await send({"type": f"lifespan.{stage}.failed", "message": str(error)})
            raise
        finally:
            self._goes_down()
            self._is_down()

    # What becomes of it

    async def _begin(self, values: Sequence[Any] | None) -> None:
        if self.look.on_asyncio and self.node.kind != "lifespan":
            self.task = asyncio.current_task()
        if self._note_begin(values):
            await anyio.sleep_forever()
        if self.node.pauses:
            try:
                await checkpoint()
            except BaseException:
                self.busy = False
                raise

    def _note_begin(self, values: Sequence[Any] | None) -> bool:
        self._where = self._here()
        hot = self.look.begins(self, values)
        self.busy = True
        self.begun += 1
        return hot

    async def _suffer_opening(self) -> None:
        fate = self._next(self._openings)
        match fate:
            case "dawdles":
                self.went.add("slow to open")
                await anyio.sleep(1.5)
            case "fails late":
                self.went.add("slow to open")
                await anyio.sleep(0.7)
            case "hangs" | "lingers":
                self.went.add("slow to open")
                await self._hang(fate)
            case "leaves a cancellation":
                await leave_a_cancellation()
            case "awaits what is cancelled":
                self.went.add("cancelled")
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
        self._raise(fate, "open")

    async def _close(self) -> None:
        """Be closed; or leave, where it never came up."""
        was_live = self._goes_down()
        try:
            if was_live:
                await self._suffer_closing()
        finally:
            self._is_down()

    async def _suffer_closing(self) -> None:
        self._goes_down()
        fate = self._next(self._closings)
        if fate in ("dawdles", "hangs", "lingers", "swallows"):
            self.went.add("slow to open")  # if it does so after the first check
        try:
            match fate:
                case "dawdles":
                    await anyio.sleep(1.5)
                case "hangs" | "lingers":
                    await self._hang(fate)
                case "swallows":
                    try:
                        await anyio.sleep_forever()
                    except anyio.get_cancelled_exc_class():
                        self.look.is_cut(self)
                        await anyio.sleep(0.5)
                case _:
                    await checkpoint()
        except anyio.get_cancelled_exc_class():
            self.look.is_cut(self)
            raise
        self._raise(fate, "close")

    async def _hang(self, fate: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.look.trouble()
            if fate == "lingers":
                await anyio.sleep(LINGERS)

    def _raise(self, fate: str, stage: str) -> None:
        if fate in ("fails", "fails late", "is hopeless", "panics"):
            raise self._injected(fate, stage=stage)
        if fate == "fails in a group":
            raise ExceptionGroup("a group", [self._injected(fate, stage=stage)])
        if fate == "panics in a group":
            others = [self._injected("fails", stage=stage)]
            panic = self._injected(fate, stage=stage)
            raise BaseExceptionGroup("a group", [*others, panic])

    def _injected(self, fate: str, *, stage: str) -> Any:
        kind: type[BaseException] = InjectedError
        if fate == "is hopeless":
            kind = HopelessError
        if "panic" in fate:
            kind = Panic
        error = kind(f"{self.name} {fate} ({stage})")
        self.look.inject(self, error, stage)
        return error

    async def _answer(self, value: Any) -> bool:
        self.look.mark("asked", self)
        if value != self.value:
            self.went.add(f"asked with {value}")
        fate = self._next(self._answers)
        if self.node.pauses:
            await checkpoint()
        if fate in ("hangs", "lingers"):
            self.went |= {"slow to answer", "slow to open"}
            await self._hang(fate)
        if fate == "is false":
            self.went.add("false")
            return False
        self._raise(fate, "check")
        return True

    # What it holds over the yield

    def _group(self) -> Any:
        if self.node.group is None:
            return nullcontext()
        native = self.node.group == "native" and self.look.on_asyncio
        return self._native_group() if native else self._held_group()

    @asynccontextmanager
    async def _held_group(self) -> AsyncGenerator[None, None]:
        crash = self._crash = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(self._wait_for_crash, crash, group.cancel_scope.cancel)
            try:
                yield
            finally:
                self._crash = None
                group.cancel_scope.cancel()

    @asynccontextmanager
    async def _native_group(self) -> AsyncGenerator[None, None]:
        crash = self._crash = anyio.Event()
        async with asyncio.TaskGroup() as group:
            child = group.create_task(self._wait_for_crash(crash, lambda: None))
            try:
                yield
            finally:
                self._crash = None
                child.cancel()

    async def _wait_for_crash(self, crash: anyio.Event, end: Any) -> None:
        await crash.wait()
        self._crash = None
        how, self._how = self._how, ""
        if how == "ends":
            self.went.add("ended")
            self.look.mark("ends", self)
            end()
            if self.node.group != "native":
                return
        self.went.add("ended")
        self.look.mark("crashes", self)
        raise self._injected("panics" if how == "panics" else "crashes", stage="up")

    # Small change

    def _next(self, fates: list[str]) -> str:
        fate = fates.pop(0) if fates else "ok"
        if fate != "ok":
            self.look.mark(fate, self)
            self.look.trouble()
        return fate

    def _up(self) -> Any:
        self.live = True
        self.entered += 1
        value = self._new_value()
        self.look.comes_up(self)
        return value

    def _new_value(self) -> Any:
        self.value = f"{self.name} no. {self.begun}"
        return self.value

    def _goes_down(self) -> bool:
        if not self.live:
            return False
        self.live = False
        self.look.goes_down(self)
        return True

    def _is_down(self) -> None:
        if not self.busy:
            return
        self.busy = False
        self.left = self.entered
        if self._here() != self._where:
            self.went.add("left elsewhere")
        self.look.is_down(self)

    def _here(self) -> object:
        if self.node.kind == "thread":
            return threading.get_ident()
        return anyio.get_current_task().id


async def leave_a_cancellation() -> None:
    """Swallow a cancellation without taking it back, as some libraries do."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        return
