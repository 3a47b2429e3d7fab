"""What a certificate file says of itself, and what a person should know about it before clients do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mailstack.errors import BadSetting

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

WARN_DAYS: Final = 14
"""From so many days before its end on, a certificate is a matter for whoever looks after the server."""


class Standing(NamedTuple):
    """What one certificate says."""

    hosts: tuple[str, ...]
    """Host names that it is good for, as subjectAltName has them (RFC 9525 §6.3)."""
    addresses: tuple[str, ...]
    """IP addresses, in the same way."""
    issuer: str
    not_before: datetime
    not_after: datetime
    self_signed: bool
    """Nobody has vouched for it, so mail programs ask their users, and some senders' servers mind."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that it is good for."""
        return (*self.hosts, *self.addresses)

    def days_left(self, at: datetime) -> int:
        """Whole days until it ends; negative once it has."""
        return (self.not_after - at) // timedelta(days=1)

    def names_host(self, hostname: str) -> bool:
        """Whether it is good for this host; a `*` stands for one whole label (RFC 9525 §6.3)."""
        wanted = hostname.lower().rstrip(".")
        _, _, rest = wanted.partition(".")
        return any(name.lower() in (wanted, f"*.{rest}") for name in self.names)


def standing(file: Path) -> Standing:
    """The first certificate of a PEM file; raises BadSetting where there is none, or no such file."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())[0]
    except OSError as error:
        raise BadSetting(f"{file}: the certificate cannot be read: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        raise BadSetting(f"{file}: there is no certificate in this file") from error
    return said_by(found)


def said_by(certificate: Certificate) -> Standing:
    """The same of one that was read."""
    from cryptography import x509

    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        said = x509.SubjectAlternativeName([])
    return Standing(
        hosts=tuple(said.get_values_for_type(x509.DNSName)),
        addresses=tuple(str(each) for each in said.get_values_for_type(x509.IPAddress)),
        issuer=certificate.issuer.rfc4514_string(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        self_signed=certificate.issuer == certificate.subject,
    )


def trouble(found: Standing, hostname: str, at: datetime | None = None) -> str | None:
    """A sentence on what is wrong with it now, or will be within WARN_DAYS; None where all is well.

    That it is self-signed is no trouble in itself: TLS works, and `Standing` tells.
    """
    at = at or datetime.now(UTC)
    days = found.days_left(at)
    if found.not_after <= at:
        return f"the certificate ended on {found.not_after:%Y-%m-%d}: mail programs refuse it"
    if found.not_before > at:
        return f"the certificate is good from {found.not_before:%Y-%m-%d %H:%M} UTC on; is the clock right?"
    if days < WARN_DAYS:
        left = "today" if days < 1 else f"in {days} day{'' if days == 1 else 's'}"
        return f"the certificate ends {left}, on {found.not_after:%Y-%m-%d}; renew it"
    if not found.names_host(hostname):
        return f"the certificate is for {', '.join(found.names) or 'no host'}, not for {hostname}"
    return None
