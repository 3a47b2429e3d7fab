"""What the sessions of one listener share."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailstack.delivery import Delivery
from mailstack.directory import Directory
from mailstack.settings import Smtp


@dataclass(frozen=True, slots=True)
class Site:
    """What all sessions of one listener share; of the settings only the limits count here."""

    hostname: str
    directory: Directory
    delivery: Delivery
    lmtp: bool = False
    settings: Smtp = field(default_factory=Smtp)
