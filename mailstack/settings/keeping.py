"""What the store may be told: the space it leaves free, and how long mail is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mailstack import values
from mailstack.settings.field import key
from mailstack.values import Listen


@dataclass(frozen=True, slots=True)
class Store:
    """Where mail is kept."""

    reserve_octets: int = key(
        values.size,
        "64MiB",
        "Free space on the store's disk below which no more mail is taken; reading and deleting go on.",
        name="reserve",
    )


@dataclass(frozen=True, slots=True)
class Retention:
    """How long mail is kept, where neither the account nor its domain says otherwise."""

    keep_seconds: int | None = key(
        values.at_least(1, values.lifetime, "no mail would be kept"),
        "forever",
        "How long after its arrival a message is kept.",
        name="keep",
    )
    keep_read_seconds: int | None = key(
        values.lifetime, "forever", "How long after it was first downloaded.", name="keep_read"
    )
    keep_messages: int | None = key(
        values.at_least(1, values.limit, "no mail would be kept"),
        "none",
        "How many messages of a maildrop are kept, the newest ones.",
    )
    undo_seconds: int = key(
        values.duration,
        "7d",
        "How long what housekeeping or maildrop remove took can be brought back; it counts for no quota.",
        name="undo",
    )
    undo_deleted_seconds: int = key(
        values.duration,
        "0s",
        "The same for what mail programs delete; 0s removes it at once.",
        name="undo_deleted",
    )


@dataclass(frozen=True, slots=True)
class Trace:
    """What `mailstack trace` can tell."""

    keep_seconds: int = key(
        values.duration,
        "30d",
        "How long the store remembers what happened to mail; 0s remembers nothing.",
        name="keep",
    )


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers for Prometheus, and `/health`."""

    listen: tuple[Listen, ...] = key(
        values.listeners, [], "Addresses that answer HTTP; whoever can connect may read, so loopback alone."
    )


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Work that is done while nobody waits for it."""

    every_seconds: int = key(
        values.at_least(10, values.duration, "it would never rest"),
        "15m",
        "How often a service with the role housekeeping keeps house.",
        name="every",
    )


@dataclass(frozen=True, slots=True)
class Backup:
    """Where the nightly copy of the store goes."""

    folder: Path = key(values.path, "/var/backups/mailstack", "The folder of backups.")
    keep: int = key(
        values.at_least(1, values.count, "none would be left"),
        7,
        "How many backups are kept, the newest ones.",
    )
