"""How far long work has come."""

from __future__ import annotations

from typing import NamedTuple


class Progress(NamedTuple):
    """In octets, rows or messages: whatever the work is measured in; all of it may change on the way."""

    done: int
    total: int | None = None  # nobody knows before the end
