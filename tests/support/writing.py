"""A Writer without the rest of a store."""

from __future__ import annotations

from mailstack.store.engine import Database
from mailstack.store.writer import Writer
from mailstack.store.writing_thread import WritingThread


def writing(database: Database) -> Writer:
    """One on the running loop, for which a thread writes."""
    return Writer(lambda writer: WritingThread(writer, database))
