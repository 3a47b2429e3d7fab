"""What the sessions of one listener share, and what each of them knows of its peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from mailstack.delivery import Delivery
from mailstack.directory import Directory
from mailstack.settings import Smtp


@dataclass(frozen=True, slots=True)
class Site:
    """What all sessions of one listener share; of the settings only the limits count here."""

    hostname: str
    directory: Directory
    delivery: Delivery
    tls_available: Callable[[], bool]
    lmtp: bool = False
    settings: Smtp = field(default_factory=Smtp)


class Peer(NamedTuple):
    """Who is at the other end, and how it is connected."""

    address: str  # "" for a unix socket
    tls: str | None = None  # version and cipher
