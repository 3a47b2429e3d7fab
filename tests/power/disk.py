"""A disk that remembers every write and every flush, so that its power can be cut at any of them.

    qemu-storage-daemon (blklogwrites) -> a file through FUSE -> a loop device -> ext4

Nothing runs in a virtual machine: the server is a process of this one, and only its disk is special.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.appliance import wait_until

_DAEMON: Final = "qemu-storage-daemon"


class Disk(NamedTuple):
    """A mounted disk, and the two files that tell its whole story."""

    mounted: Path
    before: Path
    """The image as it was before the first write."""
    log: Path
    """Every write and flush since, in the format of the kernel's dm-log-writes."""

    def logged_octets(self) -> int:
        """How long the story is now."""
        return self.log.stat().st_size


def missing() -> str | None:
    """Why there can be no such disk on this machine."""
    if os.getuid() != 0:
        return "only root can mount a disk"
    for program in (_DAEMON, "mkfs.ext4", "losetup"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    if not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        return "there is no FUSE, or there are no loop devices"
    return None


@contextmanager
def logged_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Make the disk and mount it; it is unmounted at the end, and its log stays."""
    folder.mkdir()
    image, before, log, exported = (folder / name for name in ("image", "before", "log", "exported"))
    disk = Disk(folder / "mounted", before, log)
    disk.mounted.mkdir()
    with before.open("wb") as file:
        file.truncate(megabytes * 1024 * 1024)
    _run("mkfs.ext4", "-q", "-m", "0", before)
    _run("cp", "--sparse=always", before, image)
    log.touch()
    exported.touch()
    daemon = subprocess.Popen([_DAEMON, *_options(image, log, exported)], stdin=subprocess.DEVNULL)
    try:
        # Until FUSE is mounted over it the file has no octet.
        wait_until(lambda: daemon.poll() is not None or exported.stat().st_size > 0, what="the disk appears")
        assert daemon.poll() is None, f"{_DAEMON} ended with {daemon.returncode}"
        device = _run("losetup", "--find", "--show", exported).strip()
        try:
            _run("mount", "-o", "noatime", device, disk.mounted)
            try:
                yield disk
            finally:
                _run("umount", disk.mounted)
        finally:
            _run("losetup", "--detach", device)
    finally:
        daemon.terminate()
        daemon.wait(20)


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """Mount a state of the disk, which replays the file system's journal, as after a power cut."""
    place.mkdir(exist_ok=True)
    _run("mount", "-o", "loop", image, place)
    try:
        yield place
    finally:
        _run("umount", place)


def _options(image: Path, log: Path, exported: Path) -> list[str]:
    return [
        "--blockdev",
        f"driver=file,node-name=image,filename={image},cache.no-flush=on",
        "--blockdev",
        f"driver=file,node-name=story,filename={log},cache.no-flush=on",
        "--blockdev",
        "driver=raw,node-name=content,file=image",
        "--blockdev",
        "driver=blklogwrites,node-name=disk,file=content,log=story,log-sector-size=512",
        "--export",
        f"type=fuse,id=disk,node-name=disk,mountpoint={exported},writable=on",
    ]


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]} failed: {done.stderr.strip()}"
    return done.stdout
