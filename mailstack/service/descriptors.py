"""How many files the process may have open: each connection is one, and a large message another."""

from __future__ import annotations

import resource


def raise_limit() -> None:
    """Take as many as the system allows: the 1024 of a shell are fewer than the connections we promise."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
