"""Files that are there whole or not at all, whatever becomes of the power, the disk or the process."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_DRAFT_SECONDS: Final = 3600
"""A draft is under way for less; an older one was left by a process that was killed, or by a power cut."""


def write_whole(path: Path, octets: bytes, *, mode: int) -> None:
    """Put a file in the place of what is there; it is on the disk when this returns.

    Whoever looks meanwhile sees the old one or the new one. Raises as `drafted` does.
    """
    with drafted(path, octets, mode=mode) as draft:
        draft.replace(path)
    sync(path.parent)


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
