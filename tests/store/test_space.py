"""Whether there is room for a message is known from a look at the disk, which is good for a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.errors import StoreFull
from mailstack.store import store as store_module
from mailstack.store.engine import Database
from mailstack.store.store import Store


@pytest.mark.parametrize("good_for_seconds", [1.0, 0.0])
async def test_room_that_was_found_counts_however_long_the_look_for_it_took(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good_for_seconds: float
) -> None:
    monkeypatch.setattr(store_module, "_SPACE_CHECK_SECONDS", good_for_seconds)  # 0: longer than that
    store = Store(Database(sqlite_url), state_dir=tmp_path, reserve_octets=0)
    try:
        await store.require_space(1000)
        with pytest.raises(StoreFull):
            await store.require_space(1 << 60)
    finally:
        await store.close()
