"""What the log may be told."""

from __future__ import annotations

from dataclasses import dataclass

from mailstack import values
from mailstack.settings.field import key


@dataclass(frozen=True, slots=True)
class Log:
    """Lines on standard error."""

    level: str = key(
        values.one_of("debug", "info", "warning", "error"),
        "info",
        "The least important lines that are written.",
    )
