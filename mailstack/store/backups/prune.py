"""Removes old backups, and of the archives what no backup that stays has any use for."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from mailstack.store.backups.archive import Writer, parts
from mailstack.store.backups.folder import Folder, attached, connected, filling, legible, sync
from mailstack.store.bulk import Stored

_WORTH_REWRITING: Final = 0.5
"""An archive is written anew, smaller, once less than this share of it is in use."""


class Pruned(NamedTuple):
    """How many backups went, and how much content that nobody needs any more."""

    backups: int
    octets: int


def prune(folder: Folder, keep: int) -> Pruned:
    """Keep the newest backups, so many, and the content that they have; raises AlreadyRunning, StoreFull."""
    with filling(folder.path), folder.alone():
        gone = folder.backups()[:-keep]
        for each in gone:
            each.path.rename(each.path.with_name(f".new-{each.name}"))  # from now on it is none
            shutil.rmtree(each.path.with_name(f".new-{each.name}"))
        sync(folder.path)
        kept = [each.path / "mail.db" for each in folder.backups()]
        octets = sum(_shrink(folder, path, kept) for path in folder.archives()[:-1]) if gone else 0
    return Pruned(len(gone), octets)


def _shrink(folder: Folder, path: Path, kept: list[Path]) -> int:
    """Remove or rewrite one archive if that is worth it; return how much content went.

    The last archive stays: its numbers tell the next backup where to go on.
    """
    with legible(path), closing(connected(path)) as file:
        file.execute("CREATE TEMP TABLE used (id INTEGER PRIMARY KEY)")
        for each in kept:
            with attached(file, each):
                file.execute(
                    "INSERT OR IGNORE INTO used SELECT id FROM main.message"
                    " WHERE id IN (SELECT id FROM archive.message)"
                )
        (total,) = file.execute("SELECT coalesce(sum(octets), 0) FROM message").fetchone()
        used = [
            Stored(*row)
            for row in file.execute(
                "SELECT id, octets, digests FROM message WHERE id IN (SELECT id FROM used) ORDER BY id"
            )
        ]
    left = sum(each.octets for each in used)
    if used and left >= total * _WORTH_REWRITING:
        return 0
    if used:
        _rewrite(folder, path, used)
    path.unlink()
    sync(path.parent)
    return int(total) - left


def _rewrite(folder: Folder, path: Path, used: list[Stored]) -> None:
    """Copy what is in use into a new archive; both have it until the old one is removed."""
    with (
        legible(path),
        closing(connected(path)) as nothing,
        attached(nothing, path),
        Writer(folder) as writer,
    ):
        for each in used:
            writer.write([each], parts(nothing, each.id))
