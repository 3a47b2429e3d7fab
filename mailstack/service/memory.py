"""What the C library and the collector of cycles are told about memory."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # mallopt(3), glibc
_LARGE_OCTETS: Final = 128 * 1024
_NEW_OBJECTS: Final = 5000
"""So many more than were freed since the last search."""


def return_large_blocks() -> None:
    """Have large blocks of memory come from the system, and go back there when they are freed.

    uvloop gives each connection under its TLS (SMTP's) a buffer of 256 KiB, of which an idle one ever
    touches a page or two: memory only as long as the rest has never been used. That holds for fresh
    pages from the system, but glibc raises its threshold for them with every large block that is freed,
    and then reuses old memory, all of which counts: 44 KiB for an idle session instead of 23, and the
    19 MiB of every password hash are kept for ever. A C library that is not glibc does as it likes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_OCTETS)


def settle() -> None:
    """Leave what the start has made out of every later search for cycles: none of it will go.

    Nearly all that a session makes is freed without any search, so one is worth while less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 10, 10)
