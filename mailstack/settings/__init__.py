"""Typed settings: the TOML file, then the environment over it, into frozen dataclasses.

A mistake in a mail server's settings shows weeks later as lost mail, so nothing is guessed: an
unknown key, an impossible value or an unreadable file is `BadSetting` with file, key and reason,
and all that is wrong is said at once.
"""

from __future__ import annotations

from mailstack.settings.pop3 import Pop3
from mailstack.settings.reading import Reading, load, read, unreadable
from mailstack.settings.smtp import Smtp
from mailstack.settings.whole import DEFAULT_PATH, KEYS, LISTENING, SECTIONS, Settings
from mailstack.settings.workers import share

__all__ = [
    "DEFAULT_PATH",
    "KEYS",
    "LISTENING",
    "SECTIONS",
    "Pop3",
    "Reading",
    "Settings",
    "Smtp",
    "load",
    "read",
    "share",
    "unreadable",
]
