"""Asking a resource that is up how it is, and what its answers add up to.

`Check` is the recipe; `Watch` counts answers and decides, without awaiting; `Asker`
asks, each time under a deadline.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import KW_ONLY
from enum import Enum
from typing import Any, Literal, TypeAlias

from .._errors import CheckFailedError, CheckTimeoutError, ConfigurationError
from .._frozen import Frozen
from .._settings import check_seconds
from .._tasks.backend import must_pass
from .._tasks.interruption import Interruption, interruptible
from .threads import ThreadedContext


Then: TypeAlias = Literal["report", "reopen"]

SPREAD = 0.1
"""Share of the interval by which each wait differs, so that a fleet spreads out."""


class Check(Frozen):
    """How a resource is asked whether it still works.

    Attributes:
        call: Called with the resource's value; async or sync. It fails by raising, or
            by returning ``False``. For a resource that lives in a worker thread a sync
            one is called in a worker thread too; otherwise it must not block.
        every: Seconds between two checks; each wait differs by up to a tenth.
        timeout: Seconds for one.
        failures: How many in a row take the resource down.
        successes: How many in a row bring it back.
        then: ``"report"``: it stays open and is unready until the check passes again;
            ``"reopen"``: it is closed, and opened again under its retry policy.

    Raises:
        ConfigurationError: When a value is out of range.
    """

    call: Callable[[Any], Any]
    _: KW_ONLY
    every: float = 10.0
    timeout: float = 5.0
    failures: int = 3
    successes: int = 1
    then: Then = "report"

    def __post_init__(self) -> None:
        if not callable(self.call):
            raise ConfigurationError(
                f"Check({self.call!r}): must be a callable that takes the resource's"
                " value, such as lambda pool: pool.fetchval('SELECT 1')"
            )
        check_seconds("Check", "every", self.every, zero=False)
        check_seconds("Check", "timeout", self.timeout, zero=False)
        for option in ("failures", "successes"):
            count: object = getattr(self, option)
            if not isinstance(count, int) or count < 1:
                raise ConfigurationError(
                    f"Check({option}={count!r}): must be a whole number, 1 or more"
                )
        if self.then not in ("report", "reopen"):
            raise ConfigurationError(
                f"Check(then={self.then!r}): must be 'report' or 'reopen'"
            )

    def wait(self) -> float:
        """Return the seconds until the next check."""
        return self.every * random.uniform(1 - SPREAD, 1 + SPREAD)


class Change(Enum):
    """What an answer changes."""

    NOTHING = "nothing"
    DOWN = "down"
    RECOVERED = "recovered"


class Watch:
    """Counts the answers of one resource while it is up.

    Attributes:
        failing: Whether it is down.
        in_a_row: How many answers of the last one's kind there were.
    """

    __slots__ = ("_check", "_passed", "failing", "in_a_row")

    def __init__(self, check: Check) -> None:
        self._check = check
        self._passed = True
        self.failing = False
        self.in_a_row = 0

    def count(self, *, passed: bool) -> Change:
        """Count an answer, and say what it changes."""
        self.in_a_row = self.in_a_row + 1 if passed is self._passed else 1
        self._passed = passed
        enough = self._check.successes if passed else self._check.failures
        if passed is not self.failing or self.in_a_row < enough:
            return Change.NOTHING
        self.failing = not passed
        return Change.DOWN if self.failing else Change.RECOVERED


class Asker:
    """Puts the check of one resource, one question at a time.

    A thread cannot be cancelled. While the last question's still runs no other is
    begun, and the resource counts as one that does not answer.

    Args:
        resource: Its name.
        check: What to ask.
    """

    def __init__(self, resource: str, check: Check) -> None:
        self._resource = resource
        self._check = check
        self._question: Interruption | None = None
        self._thread: ThreadedContext[Any] | None = None

    def interrupt(self, seconds: float) -> None:
        """End the question that is on, if one is; it has *seconds* to clean up."""
        if self._question is not None:
            self._question.interrupt()
            self.bound(seconds)

    def bound(self, seconds: float) -> None:
        """Have the question that is on, if one is, over within *seconds*."""
        if self._question is not None:
            self._question.bound(seconds)

    async def ask(self, value: Any, *, threaded: bool) -> BaseException | None:
        """Ask once; return why the answer is bad, or ``None``.

        Args:
            value: The resource's.
            threaded: Whether it lives in a worker thread.
        """
        timeout = self._check.timeout
        error: BaseException | None = None
        question: Interruption | None = None
        try:
            async with interruptible(timeout, shield=False) as question:
                self._question = question
                question.interrupt_after(timeout)
                if await self._answer(value, threaded=threaded) is False:
                    error = CheckFailedError(self._resource)
        except BaseException as raised:
            if must_pass(raised):
                raise
            error = raised
        finally:
            self._question = None
        assert question is not None
        if question.timed_out:
            return CheckTimeoutError(self._resource, timeout)
        return None if question.interrupted else error

    async def _answer(self, value: Any, *, threaded: bool) -> Any:
        if self._thread is not None:
            await self._thread.wait_ended()
        call = self._check.call
        if threaded and not inspect.iscoroutinefunction(call):
            answer = await self._answer_of_thread(value)
        else:
            answer = call(value)
        return await answer if inspect.isawaitable(answer) else answer

    async def _answer_of_thread(self, value: Any) -> Any:
        # Not anyio's: on asyncio its threads are no daemons, and one that hangs would
        # keep the process from ending.
        self._thread = ThreadedContext(
            f"check {self._resource}", lambda: nullcontext(self._check.call(value))
        )
        async with self._thread as answer:
            return answer
