"""A reload (SIGHUP): certificates and settings are read again, and what counts only after a restart is named.

Sessions go on as they began; what begins from now on has the new settings. With systemd's sockets a
restart refuses nobody either, so only what is simple to swap is swapped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from mailstack import log
from mailstack.errors import MailstackError
from mailstack.service.heartbeat import Heartbeat
from mailstack.settings import KEYS, Settings

Reread = Callable[[], Settings]
"""The settings as they are now; raises BadSetting."""

Adopt = Callable[[Settings], None]
"""Use these settings from now on; raises BadSetting, and changes nothing then."""

SWAPPED: Final = frozenset(
    {
        "default_domain", "postmaster", "tls.certificate", "tls.private_key", "log.level",
        "smtp.over_quota", "smtp.greeting_delay_milliseconds", "smtp.max_connections",
        "smtp.max_connections_per_address", "smtp.max_connections_per_network", "smtp.max_recipients",
        "smtp.max_commands", "smtp.max_errors", "smtp.idle", "smtp.min_rate", "smtp.max_data_time",
        "pop3.allow_plaintext_login", "pop3.idle", "pop3.login_idle", "pop3.login_delay",
        "pop3.max_connections", "pop3.max_connections_per_address", "pop3.max_connections_per_network",
    }
)  # fmt: skip
"""The settings that a reload changes; every other one needs a restart."""


class Reload:
    """Called for each SIGHUP."""

    def __init__(self, settings: Settings, reread: Reread, adopt: Adopt, heartbeat: Heartbeat) -> None:
        self._started_with = settings
        self._current = settings
        self._reread = reread
        self._adopt = adopt
        self._heartbeat = heartbeat

    def __call__(self) -> None:
        """Read everything again and use what can be used; what is wrong leaves all as it was."""
        self._heartbeat.reloading()
        try:
            found = self._reread()
            self._adopt(found)
        except MailstackError as error:
            log.event("not reloaded", level=logging.ERROR, why=str(error))
        else:
            self._tell(found)
        self._heartbeat.ready()

    def _tell(self, found: Settings) -> None:
        swapped = [name for name in changed(self._current, found) if name in SWAPPED]
        waiting = [name for name in changed(self._started_with, found) if name not in SWAPPED]
        self._current = found
        self._heartbeat.needs_restart = waiting
        log.event(
            "reloaded",
            level=logging.WARNING if waiting else logging.INFO,
            changed=", ".join(swapped) or None,
            needs_restart=", ".join(waiting) or None,
        )


def changed(before: Settings, after: Settings) -> list[str]:
    """The dotted names of all settings that are not the same."""
    return [name for name in KEYS if _value(before, name) != _value(after, name)]


def _value(settings: Settings, name: str) -> Any:
    key = KEYS[name]
    return getattr(getattr(settings, key.section) if key.section else settings, key.attribute)
