"""A task group that does not change what is raised through it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

import anyio


if TYPE_CHECKING:
    from anyio.abc import TaskGroup


@asynccontextmanager
async def transparent_task_group() -> AsyncGenerator[TaskGroup, None]:
    """Open a task group; an exception group of exactly one is raised as that one.

    Callers wrap other people's code in it, and those people's errors must look as they
    would without us. Cause and context stay as they were.
    """
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) != 1:
            raise
        raise_as_it_is(errors.exceptions[0])


def raise_as_it_is(error: BaseException) -> NoReturn:
    """Raise *error* with the cause and the context that it has.

    Python gives what is raised while another error is handled that one as its context,
    instead of what it really came on top of.
    """
    context, suppress = error.__context__, error.__suppress_context__
    try:
        raise error
    finally:
        error.__context__, error.__suppress_context__ = context, suppress
        del error
