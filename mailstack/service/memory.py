"""What the C library is told about memory, so that a process that was busy becomes small again."""

from __future__ import annotations

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # mallopt(3), glibc
_LARGE_OCTETS: Final = 128 * 1024


def return_large_blocks() -> None:
    """Have large blocks of memory come from the system, and go back there when they are freed.

    uvloop gives each TLS connection a buffer of 256 KiB, of which an idle one ever touches a page or
    two: memory only as long as the rest has never been used. That holds for fresh pages from the
    system, but glibc raises its threshold for them with every large block that is freed, and then
    reuses old memory, all of which counts: 44 KiB for an idle TLS session instead of 23, and the
    19 MiB of every password hash are kept for ever. A C library that is not glibc does as it likes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_OCTETS)
