"""What has to be on the disk soon goes there before somebody waits for it.

SQLite writes page by page to the kernel's memory. Whoever commits, or begins the log anew, then waits until
all of it is on the disk: for a message of 5 MB as long as writing it has taken.

The descriptors are SQLite's own. One of ours would not do: a process that closes any descriptor of a file
loses the locks that SQLite has on it (fcntl(2), "Advisory record locking").
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE of sync_file_range(2)

_numbers: dict[str, int] = {}  # of files that are open here, as far as they still are


def begin(path: str) -> None:
    """Have the kernel begin to write what it has of a file.

    This promises nothing, and takes no error from the one who syncs the file later.
    """
    number = _number(path)
    if number is not None and _sync_file_range is not None:
        _sync_file_range(number, 0, 0, _WRITE)


def finish(path: str) -> None:
    """Wait until the disk has it; whoever syncs next finds little left. Raises OSError."""
    number = _number(path)
    if number is not None:
        os.fdatasync(number)


def _number(path: str) -> int | None:
    """A descriptor by which this process has the file open.

    It may be closed at any moment, and its number be that of another file, which is synced for nothing.
    """
    try:
        file = os.stat(path)
        if _is(number := _numbers.get(path, -1), file):
            return number
        for number in map(int, os.listdir("/proc/self/fd")):
            if _is(number, file):
                _numbers[path] = number
                return number
    except OSError:  # there is no such file, no /proc, or no descriptor left to look there
        return None
    return None


def _is(number: int, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(number), file)
    except OSError:
        return False


def _found_in_libc() -> ctypes._NamedFuncPointer | None:
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


_sync_file_range: Final = _found_in_libc()
