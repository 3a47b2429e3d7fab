"""What `mailstack setup` prints at the end: records to publish, and what to tell mail programs."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

from mailstack.certificates import standing
from mailstack.checks import records
from mailstack.checks.facts import Facts
from mailstack.cli import dns
from mailstack.mail.address import Mailbox
from mailstack.settings import Settings
from mailstack.values import Listen, TcpAddress


def names(facts: Facts) -> Iterator[str]:
    """The records that are still missing; all of them where nobody was asked."""
    found = records.missing(facts, unheard=True)
    if not found:
        yield "The DNS has every record that it needs."
        return
    yield "Records to publish in the DNS (mailstack dns shows what is still missing):"
    yield ""
    yield from (f"    {line}" for line in dns.zone(found))


def programs(settings: Settings, mailbox: Mailbox) -> Iterator[str]:
    """What every mail program asks for."""
    yield "Settings for mail programs:"
    yield ""
    rows = {
        "account type": "POP3",
        "incoming server": settings.hostname,
        "port and security": _ports(settings),
        "user name": str(mailbox),
        "outgoing server": "your provider's (docs/clients.md)",
    }
    yield from (f"    {name:<18} {value}" for name, value in rows.items())
    file = settings.certificate_files[0]
    if settings.tls.certificate is None and file.exists() and standing(file).self_signed:
        yield ""
        yield "The certificate is self-signed, so mail programs ask about it. Its SHA-256 fingerprint:"
        yield f"    {fingerprint(file)}"


def fingerprint(file: Path) -> str:
    """As mail programs show it."""
    octets = ssl.PEM_cert_to_DER_cert(file.read_text(encoding="ascii"))
    return hashlib.sha256(octets).digest().hex(":").upper()


def _ports(settings: Settings) -> str:
    ways = [*_of(settings.pop3.tls_listen, "SSL/TLS"), *_of(settings.pop3.listen, "STARTTLS")]
    return ", or ".join(dict.fromkeys(ways))


def _of(addresses: tuple[Listen, ...], security: str) -> Iterator[str]:
    return (f"{each.port} with {security}" for each in addresses if isinstance(each, TcpAddress))
