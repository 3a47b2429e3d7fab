"""kill -9 at random moments: what was acknowledged is there once and whole, and nothing else in part."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Sequence

import pytest

from mailstack.store import migrate, rehearsal, schema
from tests.stories.load import Record, check_maildrops, collect, deliver, mark_of
from tests.support import maildrops
from tests.support.appliance import DOMAIN, Appliance, retrieved

pytestmark = pytest.mark.crash

CONNECTIONS = 12
KEPT = ("anna", "ben")
COLLECTED = "carl"
PRUNED, NEWEST = "dora", 20
"""An account of whose mail housekeeping leaves so many messages."""


def the_seed() -> int:
    """Of this run; give MAILSTACK_SEED to see the same choices again."""
    return int(os.environ.get("MAILSTACK_SEED") or random.SystemRandom().randrange(1 << 32))


BESIDE = (
    ("serve", "housekeeping"),
    ("housekeeping", "run", "--sweep"),
    ("database", "backup", "backups"),
    ("database", "check"),
    ("database", "upgrade"),
)
"""What else may be at work on the store, and is killed in the middle of it."""


async def killed_once(
    appliance: Appliance,
    record: Record,
    rng: random.Random,
    name: str,
    beside: Sequence[Sequence[str]] = (),
) -> None:
    """One life of the server: started, loaded, killed after some acknowledgement and a little more."""
    await asyncio.to_thread(appliance.start)
    for command in beside:
        appliance.begin(*command)
    record.progress.clear()
    acknowledged = len(record.acknowledged) + rng.randrange(40)
    # To log in takes longer than to deliver; so in some lives the load goes on until that is done.
    sessions = record.sessions + rng.choice((0, 0, 0, 1, 2))
    senders = [
        asyncio.create_task(deliver(appliance, record, rng, f"{name}.{number}", (*KEPT, COLLECTED, PRUNED)))
        for number in range(CONNECTIONS)
    ]
    clients = [*senders, asyncio.create_task(collect(appliance, record, COLLECTED))]
    while len(record.acknowledged) < acknowledged or record.sessions < sessions:
        await asyncio.wait_for(record.progress.wait(), timeout=20)
        record.progress.clear()
    # Not to wait for anything: so that the moment has nothing to do with what the server does.
    await asyncio.sleep(rng.uniform(0, 0.03))
    appliance.kill()
    await asyncio.wait_for(asyncio.gather(*clients), timeout=20)


async def killed_often(appliance: Appliance, times: int, beside: Sequence[Sequence[str]] = ()) -> Record:
    """So many lives, then one in which everything is looked at."""
    seed = the_seed()
    print(f"MAILSTACK_SEED={seed}")
    rng = random.Random(seed)
    record = Record()
    appliance.add_accounts(COLLECTED, PRUNED)
    appliance.command("account", "keep", PRUNED, "--messages", str(NEWEST))
    for life in range(times):
        await killed_once(
            appliance, record, rng, f"life{life}", beside[life % len(beside) :][:1] if beside else ()
        )
    await asyncio.to_thread(appliance.start)
    await asyncio.to_thread(check_maildrops, appliance, record, KEPT, COLLECTED)
    await asyncio.to_thread(check_pruned, appliance, record)
    await asyncio.to_thread(appliance.stop)
    return record


def check_pruned(appliance: Appliance, record: Record) -> None:
    """Housekeeping took the oldest messages, whole, whenever it was killed; all that it took comes back."""
    appliance.command("housekeeping", "run", "--sweep")
    assert appliance.snapshot(PRUNED).messages <= NEWEST
    appliance.command("maildrop", "restore", PRUNED, "--all")
    session = appliance.pop3(PRUNED)
    found = [mark_of(retrieved(session, number)) for number in range(1, session.stat()[0] + 1)]
    session.quit()
    assert len(set(found)) == len(found)
    addressed = {mark for mark, to in record.recipients.items() if PRUNED in to}
    assert record.acknowledged & addressed <= set(found) <= record.complete & addressed
    assert appliance.findings() == []


@pytest.mark.timeout(300)
async def test_fifty_kills_under_load(appliance: Appliance) -> None:
    record = await killed_often(appliance, 50)

    assert record.refused == {}
    assert len(record.acknowledged) > 50
    assert len(record.removed) > 50
    print(
        f"{len(record.acknowledged)} acknowledged, {len(record.complete)} sent whole,"
        f" {len(record.removed)} removed, {len(record.undecided)} QUITs unanswered"
    )


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_two_hundred_kills_of_all_that_works_on_the_store(appliance: Appliance) -> None:
    record = await killed_often(appliance, 200, BESIDE)

    assert record.refused == {}
    assert len(record.acknowledged) > 200
    assert len(record.removed) > 200
    appliance.command("database", "backup", "backups")
    appliance.command("backup", "verify", "backups")
    assert appliance.findings() == []
    print(
        f"{len(record.acknowledged)} acknowledged, {len(record.removed)} removed,"
        f" {len(record.undecided)} QUITs unanswered"
    )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_an_upgrade_that_is_killed_leaves_the_old_schema_or_the_new_one(any_appliance: Appliance) -> None:
    appliance = any_appliance
    rng = random.Random(the_seed())
    for number in range(200):
        with appliance.database() as database:
            maildrops.deposit(database, b"Subject: %d\r\n\r\n" % number, f"anna@{DOMAIN}")
    with appliance.database() as database:
        mail = rehearsal.fingerprint(database)
        migrate.downgrade(database, lambda said: None, revision="0001")
    began = time.monotonic()
    appliance.command("database", "upgrade")
    seconds = time.monotonic() - began
    revisions = set()
    for _ in range(40):
        with appliance.database() as database:
            migrate.downgrade(database, lambda said: None, revision="0001")
        process = appliance.begin("database", "upgrade")
        time.sleep(rng.uniform(seconds / 3, 1.2 * seconds))  # to be cut off anywhere
        process.kill()
        appliance.processes.clear()
        with appliance.database() as database:
            with database.reading() as connection:
                revisions.add(schema.revision(connection))
            assert rehearsal.fingerprint(database) == mail
    assert revisions == {"0001", schema.HEAD}
    appliance.command("database", "upgrade")
    assert appliance.findings() == []


async def test_kills_on_postgresql(appliance_on_postgresql: Appliance) -> None:
    record = await killed_often(appliance_on_postgresql, 10)

    assert record.refused == {}
    assert len(record.acknowledged) > 10
