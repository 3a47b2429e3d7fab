"""Whatever goes wrong while a file is written, the old one is there or the new one, and nothing beside it."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailstack.files import drafted, publish, require_replaceable, sync, write_whole
from tests.support.small_files import files_of_at_most

OLD, NEW = b"old", b"new" * 100_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is there already, alone in its folder."""
    (tmp_path / "folder").mkdir()
    made = tmp_path / "folder" / "file.conf"
    made.write_bytes(OLD)
    return made


def beside(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir() if each != path)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def masked(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_a_file_takes_the_place_of_what_is_there(path: Path) -> None:
    write_whole(path, NEW, mode=0o644)
    assert (path.read_bytes(), beside(path)) == (NEW, [])


def test_a_file_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", NEW, mode=0o644)
    assert (tmp_path / "file").read_bytes() == NEW


@pytest.mark.parametrize("mask", [0, 0o22, 0o77])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_its_mode_is_what_is_asked_for_whatever_the_mask_and_the_old_file(
    path: Path, mask: int, mode: int
) -> None:
    path.chmod(0o666)
    with masked(mask):
        write_whole(path, NEW, mode=mode)
    assert mode_of(path) == mode


def test_it_was_never_wider(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, before = os.fchmod, []

    def noted(number: int, mode: int) -> None:
        before.append(stat.S_IMODE(os.fstat(number).st_mode))
        change(number, mode)

    monkeypatch.setattr(os, "fchmod", noted)
    with masked(0):
        write_whole(path, NEW, mode=0o600)
    assert before == [0o600]


def test_a_draft_is_whole_and_beside_the_file_which_is_as_it_was(path: Path) -> None:
    with drafted(path, NEW, mode=0o600) as draft:
        assert (draft.read_bytes(), path.read_bytes()) == (NEW, OLD)
        assert draft.parent == path.parent  # on the same disk, or it could not take its place
        draft.unlink()


def test_a_link_is_replaced_and_what_it_leads_to_stays(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    write_whole(link, NEW, mode=0o644)
    assert (link.is_symlink(), link.read_bytes(), path.read_bytes()) == (False, NEW, OLD)


def test_a_reader_of_the_old_file_reads_it_to_its_end(path: Path) -> None:
    with path.open("rb") as reader:
        write_whole(path, NEW, mode=0o644)
        assert reader.read() == OLD


def test_of_many_who_write_at_once_one_is_the_last_and_is_whole(path: Path) -> None:
    contents = [b"%d" % number * 50_000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda content: write_whole(path, content, mode=0o600), contents * 5))
    assert path.read_bytes() in contents
    assert beside(path) == []


# -- what goes wrong ---------------------------------------------------------------------------------


def refused(path: Path, number: int) -> None:
    """It fails for this reason, names the file and not its draft, and leaves everything as it was."""
    before = path.read_bytes() if path.is_file() else None
    others = beside(path)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        write_whole(path, NEW, mode=0o600)
    assert (caught.value.errno, caught.value.filename) == (number, str(path))
    assert (path.read_bytes() if path.is_file() else None, beside(path)) == (before, others)


def test_a_file_that_cannot_grow(path: Path) -> None:
    with files_of_at_most(len(NEW) // 2):
        refused(path, errno.EFBIG)


def test_a_full_disk(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={len(NEW) // 2}", "tmpfs", disk]
    if (done := subprocess.run(command, capture_output=True, text=True)).returncode:
        pytest.skip(f"nothing may be mounted here: {done.stderr.strip()}")
    try:
        (disk / "file").write_bytes(OLD)
        refused(disk / "file", errno.ENOSPC)
        write_whole(disk / "file", NEW[: len(NEW) // 4], mode=0o600)  # what failed holds no space
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_place_that_a_file_cannot_take(tmp_path: Path) -> None:
    (tmp_path / "folder" / "in it").mkdir(parents=True)
    refused(tmp_path / "folder", errno.EISDIR)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "none" / "file", NEW, mode=0o600)
    assert caught.value.filename == str(tmp_path / "none" / "file")


def test_a_folder_that_is_somebody_elses() -> None:
    """What cannot be written by its owner's leave is not, however free the file itself is."""
    folder = Path(tempfile.mkdtemp(prefix="mailstack-files-"))  # tmp_path is root's alone
    try:
        (folder / "file").write_bytes(OLD)
        (folder / "file").chmod(0o666)
        folder.chmod(0o555)
        with as_nobody():
            refused(folder / "file", errno.EACCES)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user whom modes bind; who is not root is one already."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ValueError("no"), OSError(errno.EIO, "no", "elsewhere")]
)
def test_what_fails_within_leaves_no_draft_and_is_told_as_it_is(path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, drafted(path, NEW, mode=0o600):
        raise error
    assert caught.value is error
    assert (path.read_bytes(), beside(path)) == (OLD, [])


def test_of_two_that_belong_together_both_drafts_go_where_one_cannot_be_written(
    path: Path, tmp_path: Path
) -> None:
    second = tmp_path / "none" / "file"
    with (
        pytest.raises(FileNotFoundError) as caught,
        drafted(path, NEW, mode=0o600) as draft,
        drafted(second, NEW, mode=0o600),
    ):
        draft.replace(path)
    assert caught.value.filename == str(second)
    assert (path.read_bytes(), beside(path)) == (OLD, [])


def test_what_is_left_of_one_that_was_killed_is_in_nobodys_way(path: Path) -> None:
    draft = drafted(path, b"half", mode=0o400)
    draft.__enter__()  # and no end of it
    write_whole(path, NEW, mode=0o600)
    assert path.read_bytes() == NEW
    assert [name.startswith("file.conf.") for name in beside(path)] == [True]


def test_it_goes_an_hour_later_and_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "key [1].pem"
    draft = ".0123456789abcdef.partial"
    others = [
        f"key 1.pem{draft}",
        f"key [1].pem.bak{draft}",
        "key [1].pem.partial",
        "key [1].pem.mine.partial",
    ]
    for name in (*others, f"{path.name}{draft}", f"{path.name}.fedcba9876543210.partial"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - 3700,) * 2)
    young, folder = f"{path.name}.{'1' * 16}.partial", f"{path.name}.{'2' * 16}.partial"
    (tmp_path / young).touch()
    os.utime(tmp_path / young, (time.time() - 3500,) * 2)
    (tmp_path / folder).mkdir()
    os.utime(tmp_path / folder, (0, 0))
    write_whole(path, NEW, mode=0o600)
    assert beside(path) == sorted([*others, young, folder])


def test_it_goes_before_a_new_draft_needs_the_space(path: Path) -> None:
    left = path.with_name(f"{path.name}.0123456789abcdef.partial")
    left.touch()
    os.utime(left, (0, 0))
    with files_of_at_most(1), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        write_whole(path, NEW, mode=0o600)
    assert beside(path) == []


# -- before it is written ----------------------------------------------------------------------------


def test_to_ask_whether_a_file_can_be_replaced_changes_nothing(path: Path) -> None:
    for each in (path, path.with_name("not there yet")):
        require_replaceable(each)
    assert (path.read_bytes(), beside(path)) == (OLD, [])


def test_what_will_refuse_is_known_before(path: Path, tmp_path: Path) -> None:
    for place, number in ((path.parent, errno.EISDIR), (tmp_path / "none" / "file", errno.ENOENT)):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            require_replaceable(place)
        assert (caught.value.errno, caught.value.filename) == (number, str(place))
    with files_of_at_most(1), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        require_replaceable(path)
    assert (path.read_bytes(), beside(path)) == (OLD, [])


@pytest.mark.parametrize(("mode", "number"), [(0o555, errno.EACCES), (0o1777, errno.EPERM)])
def test_what_is_somebody_elses_is_known_before(mode: int, number: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be two users")
    folder = Path(tempfile.mkdtemp(prefix="mailstack-files-"))  # tmp_path is root's alone
    try:
        (folder / "file").write_bytes(OLD)
        folder.chmod(mode)
        with as_nobody():
            for work in (require_replaceable, lambda path: write_whole(path, NEW, mode=0o600)):
                with pytest.raises(PermissionError) as caught:
                    work(folder / "file")
                assert (caught.value.errno, caught.value.filename) == (number, str(folder / "file"))
        assert [each.name for each in folder.iterdir()] == ["file"]
    finally:
        shutil.rmtree(folder)


# -- what is written by others -----------------------------------------------------------------------


def test_a_file_gets_its_name_once_it_is_whole(path: Path) -> None:
    publish(path, path.with_name("archive"))
    assert (beside(path), path.exists()) == (["archive"], False)


@pytest.mark.parametrize("work", [sync, lambda path: publish(path, path.with_name("archive"))])
def test_what_is_not_there_is_not_taken_for_synced(tmp_path: Path, work: object) -> None:
    assert callable(work)
    with pytest.raises(FileNotFoundError):
        work(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_no_descriptor_stays_open(path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    write_whole(path, NEW, mode=0o600)
    with files_of_at_most(1), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        write_whole(path, NEW, mode=0o600)
    sync(path)
    assert os.listdir("/proc/self/fd") == before
