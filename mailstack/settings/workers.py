"""What is limited for the whole server, divided among its workers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, TypeVar

from mailstack.settings.pop3 import Pop3
from mailstack.settings.smtp import Smtp
from mailstack.settings.whole import Settings

_Section = TypeVar("_Section", Smtp, Pop3)

_DIVIDED: Final = ("max_connections", "max_connections_per_address", "max_connections_per_network")


def share(settings: Settings, workers: int) -> Settings:
    """The settings of one worker: an N-th of each limit, in which one message at least has to fit."""
    smtp, pop3 = _divided(settings.smtp, workers), _divided(settings.pop3, workers)
    in_flight = max(_part(smtp.max_octets_in_flight, workers), smtp.max_message_octets)
    return replace(settings, smtp=replace(smtp, max_octets_in_flight=in_flight), pop3=pop3)


def _divided(section: _Section, workers: int) -> _Section:
    parts: dict[str, Any] = {name: _part(getattr(section, name), workers) for name in _DIVIDED}
    return replace(section, **parts)


def _part(whole: int, workers: int) -> int:
    return -(-whole // workers)
