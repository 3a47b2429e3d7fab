"""Removes old backups, and of the archives what no backup that stays has any use for."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from mailstack.errors import BadData
from mailstack.files import sync
from mailstack.store.backups import archive
from mailstack.store.backups.archive import Writer
from mailstack.store.backups.folder import Damaged, Folder, attached, connected, filling, legible
from mailstack.store.bulk import Stored

_WORTH_REWRITING: Final = 0.5
"""An archive is written anew, smaller, once less than this share of it is in use."""


class Pruned(NamedTuple):
    """How many backups went, how much content that nobody needs any more, and what was left alone."""

    backups: int
    octets: int
    damaged: Sequence[Damaged]


def prune(folder: Folder, keep: int) -> Pruned:
    """Keep the newest backups, so many, and the content that they have; raises AlreadyRunning, StoreFull.

    One that is damaged is none of them, and is not removed: somebody may want what it still has.
    """
    with filling(folder.path), folder.alone():
        made, damaged = folder.looked_through()
        gone, kept = made[:-keep], [each.path / "mail.db" for each in made[-keep:]]
        for each in gone:
            each.path.rename(each.path.with_name(f".new-{each.name}"))  # from now on it is none
            shutil.rmtree(each.path.with_name(f".new-{each.name}"))
        sync(folder.path)
        doubtful = [file for each in damaged if (file := each.path / "mail.db").exists()]
        octets = sum(_shrink(folder, path, kept, doubtful) for path in folder.archives()[:-1]) if gone else 0
    return Pruned(len(gone), octets, damaged)


def _shrink(folder: Folder, path: Path, kept: Sequence[Path], doubtful: Sequence[Path]) -> int:
    """Remove or rewrite one archive if that is worth it; return how much content went.

    The last archive stays: its numbers tell the next backup where to go on.
    """
    with legible(path), closing(connected(path)) as file:
        damaged = archive.noted_damaged(file)
        outdated = _whole_elsewhere(folder, path, damaged)
        file.execute("CREATE TEMP TABLE used (id INTEGER PRIMARY KEY)")
        for each in kept:
            _mark(file, each)
        for each in doubtful:
            with suppress(BadData):
                _mark(file, each)
        (total,) = file.execute("SELECT coalesce(sum(octets), 0) FROM message").fetchone()
        used = [
            Stored(*row)
            for row in file.execute(
                "SELECT id, octets, digests FROM message WHERE id IN (SELECT id FROM used) ORDER BY id"
            )
            if row[0] not in outdated
        ]
    left = sum(each.octets for each in used)
    if used and left >= total * _WORTH_REWRITING:
        return 0
    if used:
        _rewrite(folder, path, used, damaged)
    path.unlink()
    sync(path.parent)
    return int(total) - left


def _mark(file: sqlite3.Connection, backup: Path) -> None:
    """Note which messages this backup has, of those whose numbers an archive may have; raises BadData."""
    ends = file.execute("SELECT min(id), max(id) FROM main.message").fetchone()
    # Nothing of the archive is read within: what is damaged is the file that is named.
    with legible(backup), attached(file, backup):
        file.execute(
            "INSERT OR IGNORE INTO used SELECT id FROM archive.message WHERE id BETWEEN ? AND ?", ends
        )


def _whole_elsewhere(folder: Folder, path: Path, damaged: Collection[int]) -> set[int]:
    """Those of an archive's damaged messages that another one has whole."""
    found: set[int] = set()
    for other in folder.archives():
        if other != path:
            with suppress(BadData):  # of one that cannot be read nothing is sure
                found |= archive.whole(other, damaged)
    return found


def _rewrite(folder: Folder, path: Path, used: list[Stored], damaged: Collection[int]) -> None:
    """Copy what is in use into a new archive; both have it until the old one is removed."""
    with (
        legible(path),
        closing(connected(path)) as nothing,
        attached(nothing, path),
        Writer(folder) as writer,
    ):
        for each in used:
            writer.write([each], archive.parts(nothing, each.id))
            if each.id in damaged:
                writer.note_damaged(each.id)
