"""What a check says: how bad it is, what it is, why it matters, and what mends it."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    """How bad a finding is."""

    FINE = 0
    UNKNOWN = 1  # it could not be seen
    ADVICE = 2  # it works, and could be better
    WARNING = 3  # it works today
    WRONG = 4  # something does not work

    @property
    def word(self) -> str:
        """The level in one word."""
        return _WORDS[self]


_WORDS = {
    Level.FINE: "ok",
    Level.UNKNOWN: "unknown",
    Level.ADVICE: "advice",
    Level.WARNING: "warning",
    Level.WRONG: "wrong",
}


class Finding(NamedTuple):
    """One sentence about one thing; why and mend are empty where all is well."""

    level: Level
    subject: str
    what: str
    why: str = ""
    mend: str = ""
    stage: str = ""
    """What makes an old finding news again, such as the number of days left."""


def fine(subject: str, what: str) -> Finding:
    """All is well."""
    return Finding(Level.FINE, subject, what)


def unknown(subject: str, what: str, why: str = "", mend: str = "") -> Finding:
    """It could not be seen, which is no reason to call it wrong."""
    return Finding(Level.UNKNOWN, subject, what, why, mend)


def unseen(subject: str, what: str) -> Finding:
    """This user may not look."""
    return unknown(subject, what, "Root may look: run this as root (sudo).")


def advice(subject: str, what: str, why: str, mend: str, *, stage: str = "") -> Finding:
    """It works, and could be better."""
    return Finding(Level.ADVICE, subject, what, why, mend, stage)


def warning(subject: str, what: str, why: str, mend: str, *, stage: str = "") -> Finding:
    """It works, but not for long, or not for everybody."""
    return Finding(Level.WARNING, subject, what, why, mend, stage)


def wrong(subject: str, what: str, why: str, mend: str, *, stage: str = "") -> Finding:
    """It does not work."""
    return Finding(Level.WRONG, subject, what, why, mend, stage)
