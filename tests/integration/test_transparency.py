"""With nothing registered an app behaves as if there were no guard.

Each life is lived twice, bare and guarded; what the server was told, what was raised,
what requests got and what the app did must be the same.
"""

from __future__ import annotations

from typing import Any

import pytest

from asgi_lifespan_guard import LifespanGuard
from tests.support.frameworks import Make, Story, fastapi, litestar, quart, starlette
from tests.support.memory_server import LifespanError, MemoryServer


pytestmark = pytest.mark.anyio


async def live(app: Any) -> dict[str, Any]:
    """Live a whole life of *app*, and return everything that was said in it."""
    server = MemoryServer(app)
    life: dict[str, Any] = {"lifespan": server.lifespan.sent}
    try:
        async with server:
            for path in ("/", "/missing"):
                life[path] = (await server.get(path)).sent
            life["HEAD"] = (await server.http("/", method="HEAD").run()).sent
            life["/ws"] = (await server.websocket("/ws").run()).sent
            life["state"] = dict(server.lifespan.scope["state"])
    except LifespanError as error:
        life["raised"] = _chain(error)
    return life


def _chain(error: BaseException | None) -> list[str]:
    links = []
    while error is not None:
        links.append(repr(error))
        error = error.__cause__ or error.__context__
    return links


STORIES = {
    "well": lambda: Story(),
    "startup fails": lambda: Story(OSError("refused")),
    "startup fails without a text": lambda: Story(ValueError()),
    "startup fails with a group": lambda: Story(
        ExceptionGroup("several", [OSError("1"), KeyError("2")])
    ),
    "shutdown fails": lambda: Story(shutdown=OSError("flush")),
}


async def compare(make: Make, story: str) -> tuple[dict[str, Any], Story, Story]:
    """Live bare and guarded, and compare; return the life, and both stories."""
    bare, guarded = STORIES[story](), STORIES[story]()
    expected = await live(make(bare))
    assert await live(LifespanGuard(make(guarded))) == expected
    return expected, bare, guarded


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("make", [starlette, fastapi, litestar])
async def test_guarded_as_bare(make: Make, story: str) -> None:
    """Starlette, FastAPI and Litestar show no difference, however a life goes."""
    life, bare, guarded = await compare(make, story)
    assert ("raised" in life) is ("fails" in story)
    assert guarded.told == bare.told


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
@pytest.mark.parametrize("story", STORIES)
async def test_quart_guarded_as_bare(story: str) -> None:
    """Quart shows none either, but that after `failed` its `after_serving` is run.

    It goes on receiving then. Servers leave it there; the guard shuts it down.
    """
    life, bare, guarded = await compare(quart, story)
    assert ("raised" in life) is ("fails" in story)
    assert guarded.told == bare.told + ["stops"] * ("startup fails" in story)


@pytest.mark.parametrize("make", [starlette, fastapi])
async def test_what_a_lifespan_yields_reaches_requests(make: Make) -> None:
    """The comparison compares something: the yielded state is in the response."""
    life, *_ = await compare(make, "well")
    assert life["/"][1]["body"] == b'[["starts"],{"own":"yielded"}]'
    assert life["state"] == {"own": "yielded"}
