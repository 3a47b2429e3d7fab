"""A batch in which something fails: whoever is told that it is done has it, once; no other is harmed."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from mailstack.errors import StoreUnavailable
from mailstack.mail.spool import Spool
from mailstack.store import leftovers, removal
from mailstack.store.engine import Database
from mailstack.store.leftovers import Slice
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.removal import Expunge
from mailstack.store.store import Store
from mailstack.store.tables import entry, message
from tests.store.jobs import Stop
from tests.store.operations import JO_ID, KIM_ID, LEE_ID, furnish
from tests.support.contents import findings
from tests.support.faults import Faults, Kind

TO = ((JO_ID,), (JO_ID, KIM_ID), (KIM_ID,), (JO_ID, KIM_ID, LEE_ID))


class Batch:
    """Four deposits, three expunges and a sweep that are written together, and a fault at one point of it."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._faults = Faults(database)
        self._numbers = itertools.count()

    async def at(self, point: int, kind: Kind) -> tuple[str | None, dict[str, object], list[object]]:
        """What was struck, the outcome of each deposit by its mail id, and those of the others."""
        store = Store(self._database, state_dir=self._folder, reserve_octets=0)
        stop = Stop()
        names = [f"mail{next(self._numbers)}" for _ in TO]
        try:
            busy = asyncio.create_task(store.write(stop, None))
            await asyncio.to_thread(stop.reached.wait)
            with tempfile.TemporaryDirectory() as folder:
                deposits = [
                    asyncio.create_task(store.deposit(_deposit(Path(folder), name, to)))
                    for name, to in zip(names, TO, strict=True)
                ]
                removing = [
                    asyncio.create_task(store.write(removal.expunge, job)) for job in self._latest_entries()
                ]
                removing.append(asyncio.create_task(store.write(leftovers.sweep, Slice(9, octets=1 << 20))))
                await asyncio.sleep(0)
                with self._faults.at(point + 1, kind) as faults:  # the first COMMIT is of what held it up
                    stop.go.set()
                    outcomes = await asyncio.gather(*deposits, return_exceptions=True)
                    removals = await asyncio.gather(*removing, return_exceptions=True)
                await busy
            return faults.struck, dict(zip(names, outcomes, strict=True)), list(removals)
        finally:
            await store.close()

    def stored(self) -> dict[str, int]:
        """How many maildrops have each mail."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(message.c.mail_id).join(entry, entry.c.message_id == message.c.id)
            ).scalars()
            return dict(Counter(rows))

    def _latest_entries(self) -> list[Expunge]:
        """Of the three maildrops that share the message, so that its content goes, too."""
        with self._database.reading() as connection:
            uids = {
                account_id: connection.execute(
                    select(entry.c.uid).where(entry.c.account_id == account_id).order_by(entry.c.uid.desc())
                )
                .scalars()
                .first()
                for account_id in (JO_ID, KIM_ID, LEE_ID)
            }
        return [Expunge(account_id, [uid]) for account_id, uid in uids.items() if uid is not None]


def _deposit(folder: Path, name: str, to: tuple[int, ...]) -> Deposit:
    spool = Spool(folder)
    spool.write(f"Subject: {name}\r\n\r\n".encode())
    recipients = tuple(Recipient(each, b"Return-Path: <>\r\n") for each in to)
    return Deposit(name, "", spool, dotted=False, recipients=recipients, at=1)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
async def test_a_fault_at_every_point_of_a_batch(database: Database, tmp_path: Path, kind: Kind) -> None:
    furnish(database)
    batch = Batch(database, tmp_path)
    reached = set()
    for point in itertools.count():
        before = batch.stored()
        struck, outcomes, removals = await batch.at(point, kind)
        stored = batch.stored()
        assert findings(database) == []
        if struck is None:
            break
        reached.add(struck)
        for (name, outcome), to in zip(outcomes.items(), TO, strict=True):
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, StoreUnavailable)
                unheard = kind is Kind.UNHEARD and struck == "COMMIT"
                assert stored.get(name, 0) == (len(to) if unheard else 0)
            else:
                assert stored[name] == len(to)
        refused = [each for each in (*outcomes.values(), *removals) if isinstance(each, BaseException)]
        everybody = len(outcomes) + len(removals)
        assert len(refused) in (0, everybody), "one fault that does not come again harms nobody, or all"
        if len(refused) == everybody:
            assert struck == "COMMIT" or "BEGIN" in struck or not any(word in struck for word in _WORK), (
                struck
            )
            if not (kind is Kind.UNHEARD and struck == "COMMIT"):
                assert stored == before
    assert "COMMIT" in reached
    assert any(each.startswith("INSERT INTO entry") for each in reached)
    assert any(each.startswith("DELETE FROM message") for each in reached)


_WORK = ("INSERT", "UPDATE", "DELETE")
"""Statements of jobs; what comes before is the connection's own."""
