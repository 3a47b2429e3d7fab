"""What a check of the store says."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that is wrong, in a sentence, and whether that was or could be mended."""

    text: str
    mendable: bool
