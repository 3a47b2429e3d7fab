"""What the C library and the collector of cycles are told about memory."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # mallopt(3), glibc
_M_MMAP_THRESHOLD: Final = -3
_KEPT_OCTETS: Final = 4 * 1024 * 1024
SERVING_OCTETS: Final = 128 * 1024
"""What is large for a process with connections, see `tell_allocator`."""
WRITING_OCTETS: Final = 1024 * 1024
"""What is large for one that has none and handles content in whole parts."""
_NEW_OBJECTS: Final = 5000
"""So many more than were freed since the last search."""


def tell_allocator(large_octets: int) -> None:
    """Have large blocks of memory go back to the system when they are freed, and others be used again.

    uvloop gives each connection under its TLS (SMTP's) a buffer of 256 KiB, of which an idle one ever
    touches a page or two: memory only as long as the rest has never been used. That holds for fresh
    pages from the system, but glibc raises its threshold for them with every large block that is freed,
    and then reuses old memory, all of which counts: 44 KiB for an idle session instead of 23, and the
    19 MiB of every password hash are kept for ever.

    Of blocks below that size glibc keeps 128 KiB for each thread, and what walks read ahead is more: each
    page of a message would come from the system anew, filled with zeros, a fifth of the time that RETR of
    50 KB takes. So each of the few threads keeps up to _KEPT_OCTETS, where it has had them once.
    A C library that is not glibc does as it likes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, large_octets)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_OCTETS)


def settle() -> None:
    """Leave what the start has made out of every later search for cycles: none of it will go.

    Nearly all that a session makes is freed without any search, so one is worth while less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 10, 10)
