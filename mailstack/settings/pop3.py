"""What POP3 may be told: where it listens, and how long a client may be silent."""

from __future__ import annotations

from dataclasses import dataclass

from mailstack import values
from mailstack.settings.field import key
from mailstack.values import Listen


@dataclass(frozen=True, slots=True)
class Pop3:
    """Mail to its readers (RFC 1939)."""

    listen: tuple[Listen, ...] = key(
        values.listeners, ["127.0.0.1:1110"], "Addresses that begin in plain text; STLS switches to TLS."
    )
    tls_listen: tuple[Listen, ...] = key(
        values.listeners, [], "Addresses that speak TLS from the first octet."
    )
    allow_plaintext_login: bool = key(
        values.flag,
        False,
        "Whether a password may cross a network without TLS; on a loopback address it always may.",
    )
    idle_seconds: int = key(
        values.at_least(600, values.duration, "RFC 1939 section 3 asks for 10 minutes"),
        "10m",
        "How long a session may be silent after login before it is ended.",
        name="idle",
    )
    login_idle_seconds: int = key(
        values.at_least(10, values.duration, "a slow line needs 10 seconds"),
        "1m",
        "How long a connection may be silent before login.",
        name="login_idle",
    )
    login_delay_seconds: int = key(
        values.duration,
        "0s",
        "How long an account has to wait between two logins; announced as LOGIN-DELAY unless it is zero.",
        name="login_delay",
    )
    max_connections: int = key(
        values.at_least(1, values.count, "nobody could fetch mail"),
        2000,
        "Connections open at the same time; one more is asked to come back later, unless another has been"
        " silent for 2 seconds without a login and makes room.",
    )
    max_connections_per_address: int = key(
        values.at_least(1, values.count, "nobody could fetch mail"),
        100,
        "The same for one address; loopback addresses are exempt.",
    )
    max_connections_per_network: int = key(
        values.at_least(1, values.count, "nobody could fetch mail"),
        400,
        "The same for all addresses of one IPv4 /24 or IPv6 /64.",
    )
