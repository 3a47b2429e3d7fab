"""A store opened for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mailstack.store.engine import Database
from mailstack.store.store import Store


@asynccontextmanager
async def opened(database: Database, folder: Path, **options: Any) -> AsyncIterator[Store]:
    """A store without a reserve; `options` are those of Store. Closing it lets go of the database."""
    store = Store(database, state_dir=folder, reserve_octets=0, **options)
    try:
        yield store
    finally:
        await store.close()
