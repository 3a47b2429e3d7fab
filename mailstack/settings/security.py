"""What TLS and logins may be told, whatever the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mailstack import values
from mailstack.settings.field import key


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate of all listeners; a self-signed one is made where none is named."""

    certificate: Path | None = key(values.path, None, "PEM file: the certificate, then its chain.")
    private_key: Path | None = key(values.path, None, "PEM file: the private key of the certificate.")


@dataclass(frozen=True, slots=True)
class Auth:
    """Logging in, by whatever protocol."""

    channel_binding: bool = key(
        values.flag,
        False,
        "Whether SCRAM-SHA-256-PLUS is offered under TLS, with tls-server-end-point (RFC 5929).",
    )
    scram_iterations: int = key(
        values.at_least(4096, values.count, "RFC 7677 section 4 asks for 4096"),
        16_384,
        "How much work a SCRAM key is, for whoever steals it and for a client at each login.",
    )
