"""The power fails under load: what was acknowledged is on the disk, whatever the disk did with the rest."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mailstack.errors import MailstackError
from mailstack.mail.address import parse_mailbox
from mailstack.store import accounts, browse, integrity
from mailstack.store.backups.folder import Folder
from mailstack.store.backups.verify import Verification
from mailstack.store.engine import Database
from tests.power.cuts import Cut, cuts, make, story
from tests.power.disk import Disk, logged_disk, missing, mounted
from tests.stories.load import Record, collect, deliver, mark_of
from tests.support.appliance import DOMAIN, Appliance, copy_template

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(missing() is not None, reason=f"no disk whose power can be cut: {missing()}"),
]

KEPT = ("anna", "ben")
COLLECTED = "carl"
CONNECTIONS = 12


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with logged_disk(tmp_path / "disk", 1000) as made:
        yield made


class Loaded:
    """What was promised on a disk, and when: by the length of the disk's log."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.record = Record(clock=disk.logged_octets)
        self.began = 0
        self.backed_up: dict[str, int] = {}


async def load(disk: Disk, template: Path, messages: int, module: str = "mailstack") -> Loaded:
    """Deliver, collect and back up on the disk, then kill the server in the middle of it."""
    loaded = Loaded(disk)
    record, rng = loaded.record, random.Random(0)
    with Appliance(disk.mounted, module=module) as appliance:
        copy_template(template, appliance)
        appliance.add_accounts(*KEPT, COLLECTED)
        os.sync()  # how the store came here is not what is tested
        loaded.began = disk.logged_octets()
        await asyncio.to_thread(appliance.start)
        clients = [
            asyncio.create_task(deliver(appliance, record, rng, f"{number}", (*KEPT, COLLECTED)))
            for number in range(CONNECTIONS)
        ]
        clients.append(asyncio.create_task(collect(appliance, record, COLLECTED)))
        while len(record.acknowledged) < messages or record.sessions < 3:
            await asyncio.wait_for(record.progress.wait(), timeout=60)
            record.progress.clear()
            if len(record.acknowledged) > messages // 2 and not loaded.backed_up:
                loaded.backed_up = await asyncio.to_thread(_backed_up, appliance, disk)
        await asyncio.to_thread(appliance.kill)
        await asyncio.wait_for(asyncio.gather(*clients), timeout=30)
    assert record.refused == {}
    return loaded


def _backed_up(appliance: Appliance, disk: Disk) -> dict[str, int]:
    """Make a backup on the same disk, as the command line does; its name, and when it was finished."""
    appliance.command("database", "backup", str(appliance.folder / "backups"))
    (made,) = Folder(appliance.folder / "backups").backups()
    return {made.name: disk.logged_octets()}


def survey(loaded: Loaded, count: int, folder: Path, seed: int) -> Iterator[tuple[Cut, list[str]]]:
    """Cut the power so many times; what is wrong with the store on each disk."""
    rng = random.Random(seed)
    told = story(loaded.disk.log)
    first = next(number for number, each in enumerate(told) if each.begins >= loaded.began)
    image = folder / "cut"
    for cut in cuts(told, count, first, rng):
        make(cut, told, before=loaded.disk.before, log=loaded.disk.log, target=image, rng=rng)
        heard = told[cut.before].begins if cut.before < len(told) else loaded.disk.logged_octets()
        with mounted(image, folder / "look") as place:
            yield cut, list(_complaints(loaded, heard, place))


def _complaints(loaded: Loaded, heard: int, place: Path) -> Iterator[str]:
    """What is not as it was promised by the time that the disk had heard so much."""
    path = place / "state" / "mail.db"
    try:
        with closing(sqlite3.connect(path)) as file:
            (said,) = file.execute("PRAGMA integrity_check(1)").fetchone()
            if said != "ok":
                yield f"SQLite says {said}"
                return
        database = Database(f"sqlite:///{path}")
        try:
            yield from (each.text for step in integrity.check(database) for each in step.findings)
            for name in (*KEPT, COLLECTED):
                yield from _lost(loaded.record, heard, name, _found(database, name))
        finally:
            database.dispose()
        yield from _backups(loaded, heard, place)
    except (sqlite3.DatabaseError, MailstackError, AssertionError) as error:
        yield f"{type(error).__name__}: {str(error)[:200]}"


def _found(database: Database, name: str) -> Counter[str]:
    with database.reading() as connection:
        account = accounts.find_account(connection, parse_mailbox(f"{name}@{DOMAIN}"))
    return Counter(
        mark_of(b"".join(browse.octets_of(database, account.id, each.uid)))
        for each in browse.walk(database, account.id)
    )


def _lost(record: Record, heard: int, name: str, found: Counter[str]) -> Iterator[str]:
    addressed = {mark for mark, to in record.recipients.items() if name in to}
    promised = {mark for mark, at in record.promised.items() if at <= heard and mark in addressed}
    gone: set[str] = set()
    for quit_ in record.quits if name == COLLECTED else ():
        if quit_.said >= heard:
            continue  # not yet
        left = quit_.marks & found.keys()
        if left and (quit_.heard or heard + 1) <= heard:
            yield f"{name}: {len(left)} deleted messages are back"
        if left and promised & quit_.marks - left:
            yield f"{name}: a QUIT removed a part of what it should"
        gone |= quit_.marks - left
    if lost := promised - gone - found.keys():
        yield f"{name}: {len(lost)} of {len(promised)} acknowledged messages are lost"
    if doubled := [mark for mark, times in found.items() if times > 1]:
        yield f"{name}: {len(doubled)} messages are there twice"
    if strange := found.keys() - (record.complete & addressed):
        yield f"{name}: {len(strange)} messages were never sent"


def _backups(loaded: Loaded, heard: int, place: Path) -> Iterator[str]:
    """A backup that was said to be finished is there, and whole."""
    for name, finished_at in loaded.backed_up.items():
        if finished_at <= heard:
            folder = Folder(place / "backups")
            verification = Verification(folder, folder.find(name))
            for _ in verification.run():
                pass
            yield from verification.findings


def told_of(loaded: Loaded, looks: list[tuple[Cut, list[str]]], seed: int) -> str:
    """The outcome in words, for whoever ran this to see it."""
    lines = [
        f"MAILSTACK_SEED={seed}: {len(loaded.record.acknowledged)} acknowledged,"
        f" {sum(each.heard is not None for each in loaded.record.quits)} QUITs confirmed,"
        f" {loaded.disk.logged_octets() >> 20} MiB written,"
        f" {len(looks)} power cuts, {sum(bool(said) for _, said in looks)} with losses"
    ]
    lines += [f"cut before {cut.before}, {cut.fate.value}: {'; '.join(said)}" for cut, said in looks if said]
    return "\n".join(lines)


def the_seed() -> int:
    """Of this run; give MAILSTACK_SEED to see the same cuts again."""
    return int(os.environ.get("MAILSTACK_SEED") or random.SystemRandom().randrange(1 << 32))


@pytest.fixture
def cut_often(disk: Disk, sqlite_template: Path, tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Loads the disk, cuts its power, and gives what was wrong after each cut."""

    def run(count: int, messages: int, module: str = "mailstack") -> list[list[str]]:
        seed = the_seed()
        loaded = asyncio.run(load(disk, sqlite_template, messages, module))
        subprocess.run(["sync", "-f", disk.mounted], check=True)
        looks = list(survey(loaded, count, tmp_path, seed))
        print(told_of(loaded, looks, seed))
        return [said for _, said in looks]

    return run


def test_nothing_acknowledged_is_lost(cut_often: Callable[..., list[list[str]]]) -> None:
    assert [said for said in cut_often(6, 150) if said] == []


def test_a_server_that_does_not_wait_for_the_disk_loses_mail(
    cut_often: Callable[..., list[list[str]]],
) -> None:
    """Or else these tests would not see what they look for."""
    assert [said for said in cut_often(6, 150, "tests.power.careless") if said] != []


@pytest.mark.long
@pytest.mark.timeout(600)
def test_thirty_cuts_lose_nothing(cut_often: Callable[..., list[list[str]]]) -> None:
    assert [said for said in cut_often(30, 1500) if said] == []


@pytest.mark.long
@pytest.mark.timeout(600)
def test_thirty_cuts_of_a_careless_server(cut_often: Callable[..., list[list[str]]]) -> None:
    said = cut_often(30, 1500, "tests.power.careless")
    assert len([each for each in said if each]) >= 10
