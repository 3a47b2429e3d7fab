"""What is made of the folder of backups: whether the newest one there is of last night, and ours."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from mailstack.checks import judge_service
from mailstack.checks.facts import Backups
from mailstack.checks.finding import Level
from mailstack.checks.probes import machine
from mailstack.store import schema
from mailstack.store.backups import folder as folders
from tests.checks.samples import BOX, FINE, NOW, STORE, levels

BACKUPS: Final = {
    "of last night": (timedelta(hours=2), timedelta(hours=1), [Level.FINE, Level.FINE]),
    "of the day before": (timedelta(hours=50), timedelta(hours=49), [Level.WARNING, Level.FINE]),
    "never read": (timedelta(hours=2), None, [Level.FINE, Level.ADVICE]),
    "not read for long": (timedelta(hours=2), timedelta(days=40), [Level.FINE, Level.ADVICE]),
    "none": (None, None, [Level.WARNING]),
}


@pytest.mark.parametrize("case", BACKUPS)
def test_a_backup_is_of_last_night_and_has_been_read(case: str) -> None:
    made, read, wanted = BACKUPS[case]
    store = STORE._replace(last_backup=NOW, last_verified=read and NOW - read)
    box = BOX._replace(backups=Backups(made and NOW - made, store.identity))
    assert levels(judge_service.backup, replace(FINE, machine=box, store=store)) == wanted


def test_a_backup_that_was_made_elsewhere_is_none_in_the_folder_of_the_settings() -> None:
    (told,) = judge_service.backup(FINE)
    assert (told.level, told.what) == (
        Level.WARNING,
        "there is no backup in /var/backups/mailstack;"
        " one was made elsewhere, 2026-11-25 01:00 UTC, 2 hours ago",
    )
    others = BOX._replace(backups=Backups(NOW, 8))
    (told,) = judge_service.backup(replace(FINE, machine=others))
    assert told.what == "/var/backups/mailstack holds backups of another store"


def test_the_newest_backup_is_looked_for_in_its_folder(tmp_path: Path) -> None:
    assert machine.backups(tmp_path / "none") == Backups()
    folder = folders.Folder(tmp_path)
    folder.prepare(7)
    assert machine.backups(tmp_path) == Backups(None, 7)
    folder.finish(folder.begin(), folders.Facts(NOW, schema.HEAD, 1, 1, 1, 1, 1))
    assert machine.backups(tmp_path) == Backups(NOW, 7)
    (tmp_path / "mailstack-backup.json").write_text("nonsense")
    assert machine.backups(tmp_path).problem == f"{tmp_path} is no folder of backups"
