"""kill -9 at random moments: what was acknowledged is there once and whole, and nothing else in part."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from tests.stories.load import Record, check_maildrops, collect, deliver
from tests.support.appliance import Appliance

pytestmark = pytest.mark.crash

CONNECTIONS = 12
KEPT = ("anna", "ben")
COLLECTED = "carl"


def the_seed() -> int:
    """Of this run; give MAILSTACK_SEED to see the same choices again."""
    return int(os.environ.get("MAILSTACK_SEED") or random.SystemRandom().randrange(1 << 32))


async def killed_once(appliance: Appliance, record: Record, rng: random.Random, name: str) -> None:
    """One life of the server: started, loaded, killed after some acknowledgement and a little more."""
    process = await asyncio.to_thread(appliance.start)
    record.progress.clear()
    acknowledged = len(record.acknowledged) + rng.randrange(40)
    # To log in takes longer than to deliver; so in some lives the load goes on until that is done.
    sessions = record.sessions + rng.choice((0, 0, 0, 1, 2))
    senders = [
        asyncio.create_task(deliver(appliance, record, rng, f"{name}.{number}", (*KEPT, COLLECTED)))
        for number in range(CONNECTIONS)
    ]
    clients = [*senders, asyncio.create_task(collect(appliance, record, COLLECTED))]
    while len(record.acknowledged) < acknowledged or record.sessions < sessions:
        await asyncio.wait_for(record.progress.wait(), timeout=20)
        record.progress.clear()
    # Not to wait for anything: so that the moment has nothing to do with what the server does.
    await asyncio.sleep(rng.uniform(0, 0.03))
    process.kill()
    await asyncio.wait_for(asyncio.gather(*clients), timeout=20)
    appliance.processes.clear()


async def killed_often(appliance: Appliance, times: int) -> Record:
    """So many lives, then one in which everything is looked at."""
    seed = the_seed()
    print(f"MAILSTACK_SEED={seed}")
    rng = random.Random(seed)
    record = Record()
    appliance.add_accounts(COLLECTED)
    for life in range(times):
        await killed_once(appliance, record, rng, f"life{life}")
    await asyncio.to_thread(appliance.start)
    await asyncio.to_thread(check_maildrops, appliance, record, KEPT, COLLECTED)
    await asyncio.to_thread(appliance.stop)
    return record


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


async def test_kills_on_postgresql(appliance_on_postgresql: Appliance) -> None:
    record = await killed_often(appliance_on_postgresql, 10)

    assert record.refused == {}
    assert len(record.acknowledged) > 10
