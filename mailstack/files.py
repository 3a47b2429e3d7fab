"""Files that are there whole or not at all, whatever becomes of the power, the disk or the process."""

from __future__ import annotations

import errno
import glob
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_TRIAL_OCTETS: Final = 16 * 1024
"""More than a small file has: a disk that takes them has room for it."""

_DRAFT_SECONDS: Final = 3600
"""A draft is under way for less; an older one was left by a process that was killed, or by a power cut."""


def write_whole(path: Path, octets: bytes, *, mode: int) -> None:
    """Put a file in the place of what is there; it is on the disk when this returns.

    Whoever looks meanwhile sees the old one or the new one. Raises as `drafted` does.
    """
    with drafted(path, octets, mode=mode) as draft:
        draft.replace(path)
    sync(path.parent)


def require_replaceable(path: Path) -> None:
    """Raise OSError, which names `path`, where `write_whole` would; what is there stays as it is.

    For whoever is about to fetch what cannot be had twice.
    """
    with drafted(path, bytes(_TRIAL_OCTETS), mode=0o600) as draft:
        draft.unlink()
    sync(path.parent)
    if number := _kept_by(path):
        raise OSError(number, os.strerror(number), str(path))


def _kept_by(path: Path) -> int:
    """The number of the error by which a name does not change hands in a folder that can be written; or 0."""
    if not os.path.lexists(path):
        return 0
    there, folder = path.lstat(), path.parent.stat()
    if stat.S_ISDIR(there.st_mode):
        return errno.EISDIR
    if os.path.ismount(path):  # as a container is given a single file
        return errno.EBUSY
    sticky = folder.st_mode & stat.S_ISVTX
    return errno.EPERM if sticky and os.geteuid() not in (0, there.st_uid, folder.st_uid) else 0


@contextmanager
def drafted(path: Path, octets: bytes, *, mode: int) -> Iterator[Path]:
    """What is to be in a file, on the disk beside it: to be given its name within.

    It has this mode from the start, whatever the umask. Raises OSError that names `path`; then the draft is
    gone, and what was there is as it was. Drafts that were left of others, an hour ago or more, are removed.
    """
    _clear_left(path)
    # A name that nobody else takes: two who write at once would fill one draft, or publish the other's half.
    draft = path.with_name(f"{path.name}.{os.urandom(8).hex()}.partial")
    try:
        with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            os.fchmod(file.fileno(), mode)
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    except BaseException as error:
        with suppress(OSError):
            draft.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(draft)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _clear_left(path: Path) -> None:
    """Remove what is left of drafts of this file: there may be a private key in them."""
    left = f"{glob.escape(path.name)}.{'[0-9a-f]' * 16}.partial"
    for draft in path.parent.glob(left):
        with suppress(OSError):  # somebody else removes it, or it is not ours to remove
            if time.time() - draft.lstat().st_mtime > _DRAFT_SECONDS:
                draft.unlink()


def publish(passing: Path, path: Path) -> None:
    """Sync a file and give it its name, so that whoever finds the name finds all of it."""
    sync(passing)
    passing.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
