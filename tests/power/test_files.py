"""The power fails while a small file is replaced: the old or the new one is there, and a promise holds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailstack.files import write_whole
from tests.power.cuts import Cut, Fate, make, story
from tests.power.disk import Disk, logged_disk, missing, mounted

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(missing() is not None, reason=f"no disk whose power can be cut: {missing()}"),
]

OLD, NEW = b"old" * 3000, b"new" * 4000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with logged_disk(tmp_path / "disk", 20) as made:
        yield made


def careless(path: Path, octets: bytes) -> None:
    """As one does who does not wait for the disk."""
    draft = path.with_suffix(".new")
    draft.write_bytes(octets)
    draft.replace(path)


def found_after_cuts(
    disk: Disk, folder: Path, write: Callable[[Path, bytes], None]
) -> list[tuple[bool, bytes]]:
    """Replace a file; for every power cut since whether that was promised, and what is there."""
    path = disk.mounted / "file"
    write_whole(path, OLD, mode=0o600)
    began = disk.logged_octets()
    write(path, NEW)
    promised = disk.logged_octets()
    told = story(disk.log)
    first = sum(each.begins < began for each in told)
    rng = random.Random(0)
    found = []
    for cut in (Cut(before, fate) for before in range(first, len(told) + 1) for fate in Fate):
        make(cut, told, before=disk.before, log=disk.log, target=folder / "cut", rng=rng)
        heard = told[cut.before].begins if cut.before < len(told) else disk.logged_octets()
        with mounted(folder / "cut", folder / "look") as place:
            found.append((heard >= promised, (place / "file").read_bytes()))
    return found


def test_the_old_file_or_the_new_one_and_the_new_one_once_it_was_promised(disk: Disk, tmp_path: Path) -> None:
    found = found_after_cuts(disk, tmp_path, lambda path, octets: write_whole(path, octets, mode=0o600))
    assert {octets for _, octets in found} == {OLD, NEW}
    assert {octets for promised, octets in found if promised} == {NEW}


def test_who_does_not_wait_for_the_disk_has_promised_too_much(disk: Disk, tmp_path: Path) -> None:
    assert (True, OLD) in found_after_cuts(disk, tmp_path, careless)
