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
from math import inf
from typing import Any, Literal, TypeAlias

from .._errors import CheckFailedError, CheckTimeoutError, ConfigurationError
from .._frozen import Frozen
from .._redaction import leaves
from .._settings import check_seconds
from .._tasks.backend import must_pass
from .._tasks.interruption import Interruption, interruptible
from .retry import Pace, Retry
from .threads import ThreadedContext


Then: TypeAlias = Literal["hold", "report", "reopen"]
On: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]

SPREAD = 0.1
"""Share of the interval by which each wait differs, so that a fleet spreads out."""

LEAST_PAUSE = 0.1
"""Seconds between two checks, however often the resource is suspected."""


class Check(Frozen):
    """How a resource is asked whether it still works.

    Attributes:
        call: Called with the resource's value; async or sync. It fails by raising, or
            by returning ``False``. For a resource that lives in a worker thread a sync
            one is called in a worker thread too; otherwise it must not block.
        every: Seconds between two checks while it is well; each wait differs by up to
            a tenth. After a bad answer, and while it is down, the next check follows
            after the waits of its retry policy instead.
        timeout: Seconds for one.
        failures: How many bad answers in a row take the resource down. A suspicion
            (`LifespanGuard.suspect`) that a check confirms counts as one of them.
        successes: How many in a row bring it back.
        then: What becomes of it when it is down. ``"hold"``: it stays open, with what
            needs it, and the gate holds requests until the check passes again;
            ``"report"``: it is unready, and requests go on to the app; ``"reopen"``:
            it is closed, and opened again under its retry policy.
        on: The exceptions which make it suspect when they leave the app in a request
            that needs it; ``()``: none.

    Raises:
        ConfigurationError: When a value is out of range.
    """

    call: Callable[[Any], Any]
    _: KW_ONLY
    every: float = 5.0
    timeout: float = 5.0
    failures: int = 2
    successes: int = 1
    then: Then = "hold"
    on: On = Exception

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
        if self.then not in ("hold", "report", "reopen"):
            raise ConfigurationError(
                f"Check(then={self.then!r}): must be 'hold', 'report' or 'reopen'"
            )
        kinds: object = self.on
        for kind in kinds if isinstance(kinds, tuple) else (kinds,):
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise ConfigurationError(
                    f"Check(on={self.on!r}): must be a class of exceptions, or a tuple"
                    " of them; () for none"
                )

    def is_about(self, error: BaseException) -> bool:
        """Whether *error*, or one of a group's, makes the resource suspect."""
        return any(isinstance(leaf, self.on) for leaf in leaves(error))

    def wait(self) -> float:
        """Return the seconds until the next check, while the resource is well."""
        return self.every * random.uniform(1 - SPREAD, 1 + SPREAD)


class Change(Enum):
    """What an answer changes."""

    NOTHING = "nothing"
    DOWN = "down"
    RECOVERED = "recovered"


class Watch:
    """Counts the answers of one resource while it is up, and says when to ask again.

    Args:
        check: The resource's.
        policy: Its retry policy, whose waits it is asked by while it is not well.
        now: On the event loop's clock, as all times here.

    Attributes:
        failing: Whether it is down.
        in_a_row: How many answers of the last one's kind there were.
        due: When it is to be asked next.
    """

    __slots__ = (
        "_asked",
        "_check",
        "_pace",
        "_passed",
        "_policy",
        "_suspected",
        "due",
        "failing",
        "in_a_row",
    )

    def __init__(self, check: Check, policy: Retry | None, now: float) -> None:
        self._check = check
        self._policy = policy
        self._pace: Pace | None = None
        self._passed = True
        self._suspected = False
        self._asked = now
        self.failing = False
        self.in_a_row = 0
        self.due = now + check.wait()

    def suspect(self, now: float) -> bool:
        """Have it asked soon; return whether that is sooner than it was to be."""
        due = max(now, self._asked + LEAST_PAUSE)
        if self.failing or due >= self.due:
            return False
        self._suspected = True
        self.due = due
        return True

    def count(self, error: BaseException | None, now: float) -> Change:
        """Count an answer, which is good without an *error*; say what it changes."""
        passed = error is None
        self.in_a_row = self.in_a_row + 1 if passed is self._passed else 1
        if self._suspected and not passed:
            self.in_a_row += 1
        self._suspected = False
        self._passed = passed
        change = self._change(passed=passed)
        self._asked = now
        reopens = change is Change.DOWN and self._check.then == "reopen"
        self.due = inf if reopens else now + self._wait(error, now)
        return change

    def _change(self, *, passed: bool) -> Change:
        enough = self._check.successes if passed else self._check.failures
        if passed is not self.failing or self.in_a_row < enough:
            return Change.NOTHING
        self.failing = not passed
        return Change.DOWN if self.failing else Change.RECOVERED

    def _wait(self, error: BaseException | None, now: float) -> float:
        if self._passed and not self.failing:
            self._pace = None
            return self._check.wait()
        every = self._check.every
        if self._pace is None:
            self._pace = Pace(self._policy, every)
        return max(self._pace.next_wait(error, now), min(LEAST_PAUSE, every))


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
