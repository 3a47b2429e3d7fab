"""How a store behaves when it has grown: `python -m bench.growth STEP... --folder FOLDER`.

The steps, in this order; each adds its figures to FOLDER/growth.json, or to --result:

    fill      a million messages of 2 KB into a thousand maildrops, by the store's own deposit
    compare   deposits and logins there and in an empty store, in turns
    backup    a backup, a second one, and a look through it
    shrink    half of the mail removed, its space given back while mail comes in

The folder has to be on the disk that is to be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from sqlalchemy import func, select

from bench.growth_wire import Wire, measured
from bench.ours import made
from mailstack import settings
from mailstack.mail.spool import Spool
from mailstack.store import clock, space
from mailstack.store.backups.folder import Folder
from mailstack.store.backups.make import Backup
from mailstack.store.backups.verify import Verification
from mailstack.store.engine import Database
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.store import Store
from mailstack.store.tables import account, entry, message

SENDERS = 100
"""Deposits that wait at once, as many connections of SMTP would make them."""

SLICE = 25_000
ROUNDS = 7
ROUND_MESSAGES = 10_000
LOGINS = 400
PREFIX = b"Return-Path: <eve@example.net>\r\nDelivered-To: someone@example.org\r\n"


class Spent(NamedTuple):
    """What some deposits took."""

    messages: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


def names(number: int) -> list[str]:
    """Of so many accounts."""
    return [f"u{each}" for each in range(number)]


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[Store]:
    """The store of a server's folder, as `serve` opens it."""
    found = settings.load(file, {})
    store = Store(Database(found.url), state_dir=found.state_dir, reserve_octets=0)
    try:
        yield store
    finally:
        await store.close()


async def account_ids(store: Store) -> list[int]:
    """Of all accounts."""
    return await store.read(lambda c: list(c.execute(select(account.c.id).order_by(account.c.id)).scalars()))


def octets_on_disk(store: Store) -> int:
    """Of the database, its log emptied into it."""
    space.checkpoint(store.database)
    assert store.database.path is not None
    return Path(store.database.path).stat().st_size


async def deposited(store: Store, ids: Sequence[int], count: int, octets: int, rng: random.Random) -> Spent:
    """So many messages, each into some maildrop, by SENDERS at once."""
    body = b"".join(b"%064x\r\n" % rng.getrandbits(256) for _ in range(octets // 66 + 1))
    left = iter(range(count))

    async def send() -> None:
        for number in left:
            mail_id = f"{rng.getrandbits(64):016x}"
            head = b"Received: from client.example.net; id %s\r\nSubject: %d\r\n\r\n" % (
                mail_id.encode(), number,
            )  # fmt: skip
            with Spool.holding((head + body)[: octets - 2] + b"\r\n") as spool:
                to = (Recipient(rng.choice(ids), PREFIX),)
                await store.deposit(Deposit(mail_id, "eve@example.net", spool, False, to, clock.now()))

    began, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(send() for _ in range(SENDERS)))
    return Spent(count, time.monotonic() - began, time.process_time() - cpu)


async def login_microseconds(store: Store, ids: Sequence[int], rng: random.Random) -> float:
    """What a login asks of the store, the lock and the counters; the median."""
    taken = []
    for account_id in rng.choices(ids, k=LOGINS):
        began = time.perf_counter()
        lock = await store.lock_maildrop(account_id, holder="bench")
        await store.open_maildrop(account_id)
        taken.append(time.perf_counter() - began)
        lock.release()
        await lock.released()
    return statistics.median(taken) * 1e6


# -- fill ------------------------------------------------------------------------------------------


async def fill(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Deposit everything, and look at login and disk after each slice."""
    file = made(folder / "full", names(arguments.accounts))
    rng = random.Random(1)
    slices = []
    async with opened(file) as store:
        ids = await account_ids(store)
        empty_octets = octets_on_disk(store)
        for done in range(SLICE, arguments.messages + 1, SLICE):
            spent = await deposited(store, ids, SLICE, arguments.octets, rng)
            at = {
                "messages": done,
                "messages_a_second": round(spent.rate),
                "cpu_microseconds_a_message": round(spent.cpu_seconds / SLICE * 1e6, 1),
                "login_microseconds": round(await login_microseconds(store, ids, rng), 1),
                "octets_on_disk": octets_on_disk(store),
            }
            slices.append(at)
            print(at, flush=True)
    a_message = (slices[-1]["octets_on_disk"] - empty_octets) / slices[-1]["messages"]
    return {
        "accounts": arguments.accounts,
        "octets_a_message": arguments.octets,
        "octets_on_disk_a_message": round(a_message),
        "slices": slices,
    }


# -- compare ---------------------------------------------------------------------------------------


async def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The grown store and a new one by turns: what else the machine does hits both."""
    rng = random.Random(2)
    template = made(folder / "template", names(arguments.accounts)).parent
    deposits: dict[str, list[Spent]] = {"empty": [], "full": []}
    wire: dict[str, list[Wire]] = {"empty": [], "full": []}
    for _ in range(ROUNDS):
        _renewed(folder / "empty", template)
        for name in rng.sample(["empty", "full"], 2):
            async with opened(folder / name / "mailstack.toml") as store:
                ids = await account_ids(store)
                await deposited(
                    store, ids, 1000, arguments.octets, rng
                )  # caches warm, as in a running server
                deposits[name].append(await deposited(store, ids, ROUND_MESSAGES, arguments.octets, rng))
                space.checkpoint(store.database)
    for _ in range(ROUNDS):
        _renewed(folder / "empty", template)
        for name in rng.sample(["empty", "full"], 2):
            file = folder / name / "mailstack.toml"
            wire[name].append(
                await asyncio.to_thread(measured, file, names(arguments.accounts), arguments.octets)
            )
    rates = {name: statistics.median(each.rate for each in found) for name, found in deposits.items()}
    cpu = {
        name: statistics.median(each.cpu_seconds / each.messages for each in found) * 1e6
        for name, found in deposits.items()
    }
    over_wire = {
        name: {
            field: round(statistics.median(values), 3)
            for field, values in zip(Wire._fields, zip(*found, strict=True), strict=True)
        }
        for name, found in wire.items()
    }
    ratios = {field: round(over_wire["full"][field] / over_wire["empty"][field], 3) for field in Wire._fields}
    return {
        "deposits": {name: [round(each.rate) for each in found] for name, found in deposits.items()},
        "messages_a_second": {name: round(rate) for name, rate in rates.items()},
        "cpu_microseconds_a_message": {name: round(each, 1) for name, each in cpu.items()},
        "deposit_rate_full_to_empty": round(rates["full"] / rates["empty"], 3),
        "wire": over_wire,
        "wire_full_to_empty": ratios,
        "wire_turns": {
            name: [[round(each, 3) for each in one] for one in found] for name, found in wire.items()
        },
    }


def _renewed(directory: Path, template: Path) -> None:
    # The settings name no path outside, so a copied folder is a server of its own.
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(template, directory)


# -- backup ----------------------------------------------------------------------------------------


async def backup(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All of it, then what has come since, then a look through every message of it."""
    told: dict[str, Any] = {}
    shutil.rmtree(folder / "backup", ignore_errors=True)
    async with opened(folder / "full" / "mailstack.toml") as store:
        ids = await account_ids(store)
        for name in ("first", "second"):
            run = Backup(store.database, Folder(folder / "backup"))
            began = time.monotonic()
            for _ in run.run():
                pass
            seconds = time.monotonic() - began
            assert run.made is not None
            assert not run.damaged
            told[name] = {
                "messages": run.made.facts.messages,
                "seconds": round(seconds, 1),
                "megabytes_a_second": round(run.copied / seconds / 1e6, 1),
                "messages_a_second": round(run.made.facts.messages / seconds),
                "copied_octets": run.copied,
            }
            print(name, told[name], flush=True)
            await deposited(store, ids, ROUND_MESSAGES, arguments.octets, random.Random(3))
        opened_folder = Folder(folder / "backup")
        verification = Verification(opened_folder, opened_folder.find(None))
        began = time.monotonic()
        for _ in verification.run():
            pass
        seconds = time.monotonic() - began
        assert verification.findings == []
        told["verify"] = {
            "seconds": round(seconds, 1),
            "messages_a_second": round(verification.messages / seconds),
        }
    shutil.rmtree(folder / "backup")
    return told


# -- shrink ----------------------------------------------------------------------------------------


async def shrink(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every second message removed as sessions do, then the space given back while mail comes in."""
    rng = random.Random(4)
    async with opened(folder / "full" / "mailstack.toml") as store:
        ids = await account_ids(store)
        alone = await _waits(store, ids, rng, lambda: asyncio.sleep(5))
        began, removed = time.monotonic(), 0
        for account_id in ids:
            half = await store.read(
                lambda c, account_id=account_id: list(
                    c.execute(
                        select(entry.c.uid).where(entry.c.account_id == account_id, entry.c.uid % 2 == 0)
                    ).scalars()
                )
            )
            lock = await store.lock_maildrop(account_id, holder="bench")
            await store.expunge(account_id, half, lock=lock)
            lock.release()
            removed += len(half)
        expunging = time.monotonic() - began
        await store.leftovers.finish()
        sweeping = time.monotonic() - began - expunging
        before = octets_on_disk(store)
        steps: list[tuple[int, float]] = []

        async def reclaim() -> None:
            found = space.reclaim(store.database)
            while True:
                step_began = time.monotonic()
                octets = await asyncio.to_thread(next, found, 0)
                if not octets:
                    return
                steps.append((octets, time.monotonic() - step_began))
                await asyncio.sleep(0.01)

        began = time.monotonic()
        beside = await _waits(store, ids, rng, reclaim)
        seconds = time.monotonic() - began
        after = octets_on_disk(store)
        left = await store.read(lambda c: c.scalar(select(func.count()).select_from(message)))
    freed = sum(octets for octets, _ in steps)
    return {
        "removed_messages": removed,
        "removed_messages_a_second": round(removed / expunging),
        "content_gone_after_seconds": round(sweeping, 1),
        "messages_left": left,
        "octets_before": before,
        "octets_after": after,
        "freed_octets": freed,
        "seconds": round(seconds, 1),
        "megabytes_a_second": round(freed / seconds / 1e6, 1),
        "longest_step_milliseconds": round(max((each for _, each in steps), default=0) * 1e3, 1),
        "deposit_milliseconds_beside": beside,
        "deposit_milliseconds_alone": alone,
    }


async def _waits(
    store: Store, ids: Sequence[int], rng: random.Random, work: Callable[[], Any]
) -> dict[str, float]:
    """How long a deposit every 10 ms waits while the work goes on."""
    waits: list[float] = []
    task = asyncio.ensure_future(work())
    while not task.done():
        waits.append((await _one(store, ids, rng)) * 1e3)
        await asyncio.sleep(0.01)
    await task
    found = sorted(waits)
    return {
        "deposits": len(found),
        "median": round(statistics.median(found), 2),
        "p99": round(found[int(len(found) * 0.99)], 2),
        "longest": round(found[-1], 2),
    }


async def _one(store: Store, ids: Sequence[int], rng: random.Random) -> float:
    with Spool.holding(b"Subject: one\r\n\r\n" + b"x" * 2000 + b"\r\n") as spool:
        began = time.monotonic()
        to = (Recipient(rng.choice(ids), PREFIX),)
        await store.deposit(Deposit("one", "eve@example.net", spool, False, to, clock.now()))
        return time.monotonic() - began


STEPS = {"fill": fill, "compare": compare, "backup": backup, "shrink": shrink}


def run() -> None:
    """Do the steps and keep what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="+", choices=list(STEPS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--result", type=Path)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--octets", type=int, default=2048)
    arguments = parser.parse_args()
    if arguments.messages < SLICE:
        parser.error(f"--messages is at least {SLICE}")
    arguments.folder.mkdir(exist_ok=True)
    result = arguments.result or arguments.folder / "growth.json"
    told: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
    told["machine"] = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    for step in arguments.steps:
        told[step] = uvloop.run(STEPS[step](arguments.folder, arguments))
        result.write_text(json.dumps(told, indent=1) + "\n")
        print(step, json.dumps({k: v for k, v in told[step].items() if k != "slices"}, indent=1), flush=True)


if __name__ == "__main__":
    run()
