"""What a connection allows, and how CAPA tells it (RFC 2449 §5, §6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mailstack import __version__
from mailstack.auth import sasl
from mailstack.pop3 import expiry
from mailstack.store.limits import Expiry


class Channel(NamedTuple):
    """What the session may know of its connection."""

    tls: bool
    plaintext_login: bool  # a password may come over this connection even without TLS
    login_delay_seconds: int = 0  # between two logins of an account, whoever it is
    end_point: bytes | None = None  # for SCRAM-SHA-256-PLUS, where that is to be offered

    @property
    def sasl(self) -> sasl.Channel:
        """The same for a SASL mechanism."""
        return sasl.Channel(self.may_log_in, self.end_point)

    @property
    def may_log_in(self) -> bool:
        """Whether USER and PASS work here (RFC 8314 §3: not in the clear)."""
        return self.tls or self.plaintext_login


def lines(channel: Channel, mechanisms: Sequence[str], expire: Expiry | None, *, logged_in: bool) -> bytes:
    """The lines after CAPA's status line: only what works here and now, and the final dot.

    TOP and UIDL stand there before login too, where clients decide how they will fetch; USER and
    SASL stay after it (RFC 2449 §6.2, §6.3 allow both).
    """
    announced = {
        "TOP": True,  # RFC 2449 §6.1
        "USER": channel.may_log_in,  # §6.2
        f"SASL {' '.join(mechanisms)}": bool(mechanisms),  # §6.3 and RFC 5034 §3
        "RESP-CODES": True,  # §6.4
        f"LOGIN-DELAY {channel.login_delay_seconds}": channel.login_delay_seconds > 0,  # §6.5
        "PIPELINING": True,  # §6.6
        f"EXPIRE {expire and expiry.announced(expire)}": expire is not None,  # §6.7
        "UIDL": True,  # §6.8
        f"IMPLEMENTATION mailstack-{__version__}": logged_in,  # §6.9; strangers learn no version
        "STLS": not (channel.tls or logged_in),  # RFC 2595 §4
        "AUTH-RESP-CODE": True,  # RFC 3206 §6
        # RFC 6856 §2: USER tells that names and passwords may be UTF-8.
        "UTF8 USER": True,
        "LANG": True,  # RFC 6856 §3
    }
    return ("".join(f"{tag}\r\n" for tag, here in announced.items() if here) + ".\r\n").encode("ascii")
