"""What the service does, knowing nothing of the web: it keeps notes, and tags them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12


# One process at a time: when two do it at once, PostgreSQL fails one of them, even so.
CREATE_TABLE = """
    SELECT pg_advisory_xact_lock(1);
    CREATE TABLE IF NOT EXISTS notes (
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        text text NOT NULL,
        tag text NOT NULL
    )
"""
# A note that was begun and never written.
DELETE_ORPHANS = "DELETE FROM notes WHERE text = ''"
INSERT = """
    INSERT INTO notes (text, tag) VALUES ($1, $2)
    RETURNING id, text, tag, pg_notify('notes', '')
"""
SELECT = "SELECT id, text, tag FROM notes ORDER BY id"
COUNT = "SELECT count(*) FROM notes"

ABOUT = {"about": "Keeps notes. This page needs nothing, so it is always there."}


class Note(TypedDict):
    """A row of the table, and the JSON that clients see."""

    id: int
    text: str
    tag: str


class Model:
    """Knows what a text is about, by its words. Small, as models go."""

    def __init__(self, words_by_tag: Mapping[str, Sequence[str]]) -> None:
        """Learn which words speak for which tag."""
        self._words = {tag: frozenset(words) for tag, words in words_by_tag.items()}

    def tag(self, text: str) -> str:
        """Return the tag that most words speak for; ``"other"`` if none does."""
        words = text.lower().split()
        scores = {t: sum(w in known for w in words) for t, known in self._words.items()}
        best = max(scores, key=scores.__getitem__, default="other")
        return best if scores.get(best) else "other"


async def list_notes(pool: Any) -> list[Note]:
    """Return all notes, the oldest first."""
    return [_note(row) for row in await pool.fetch(SELECT)]


async def add_note(pool: Any, model: Model, text: str) -> Note:
    """Tag a text and keep it."""
    return _note(await pool.fetchrow(INSERT, text, model.tag(text)))


async def watch(pool: Any) -> AsyncGenerator[int, None]:
    """Say how many notes there are, and again after each new one.

    Keeps a connection of the pool to itself; when that is lost, it raises.
    """
    news = asyncio.Event()

    def tell(*_: object) -> None:
        news.set()

    async with pool.acquire() as connection:
        connection.add_termination_listener(tell)
        await connection.add_listener("notes", tell)
        try:
            while True:
                news.clear()
                yield await connection.fetchval(COUNT)
                await news.wait()
        finally:
            await connection.remove_listener("notes", tell)
            connection.remove_termination_listener(tell)


def _note(row: Mapping[str, Any]) -> Note:
    return Note(id=row["id"], text=row["text"], tag=row["tag"])
