"""Settings that are right one by one and cannot be together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mailstack.settings.whole import LISTENING, Settings
from mailstack.values import Listen, TcpAddress


def contradictions(settings: Settings, origins: Mapping[str, str], path: Path | None) -> Iterator[str]:
    """What cannot be, a sentence each that begins with the file or the variable to look into."""

    def where(*names: str) -> str:
        return next((origins[name] for name in names if name in origins), str(path))

    tls = settings.tls
    if tls.certificate and not tls.private_key:
        yield f"{where('tls.certificate')}: tls.private_key: a certificate needs its private key"
    if tls.private_key and not tls.certificate:
        yield f"{where('tls.private_key')}: tls.certificate: a private key needs its certificate"
    smtp = settings.smtp
    if smtp.max_octets_in_flight < smtp.max_message_octets:
        place = where("smtp.max_in_flight", "smtp.max_message_size")
        yield f"{place}: smtp.max_in_flight: a message of max_message_size has to fit"
    for name, other, address in _met(settings):
        yield f"{where(name, other)}: {name}: {other} listens on {address} already"


def _met(settings: Settings) -> Iterator[tuple[str, str, Listen]]:
    """Addresses named twice: by which setting, and by which before it."""
    users: list[tuple[Listen, str]] = []
    for socket, addresses in settings.listening.items():
        name = LISTENING[socket]
        for address in addresses:
            for other, user in users:
                if _meet(address, other):
                    yield name, f"{user} ({other})" if other != address else user, address
                    break
            users.append((address, name))


def _meet(one: Listen, other: Listen) -> bool:
    """Whether the kernel refuses the second of them: a wildcard holds its port on every address."""
    if not (isinstance(one, TcpAddress) and isinstance(other, TcpAddress)):
        return one == other
    # Port 0 asks the kernel for any free port, so two of them never meet.
    if one.port != other.port or one.port == 0:
        return False
    if one.host == other.host or "::" in (one.host, other.host):  # which is both protocols here
        return True
    return "0.0.0.0" in (one.host, other.host) and ":" not in one.host + other.host
