"""A task group that does not change what is raised through it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

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
        error = errors.exceptions[0]
        context, suppress = error.__context__, error.__suppress_context__
        try:
            raise error
        finally:
            error.__context__, error.__suppress_context__ = context, suppress
            del error
