"""What all connections of one listener share."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mailstack import log
from mailstack.auth.logins import Logins
from mailstack.crowd import Refusal
from mailstack.peers import Peer
from mailstack.pop3.capabilities import Channel
from mailstack.pop3.expiry import Expiries
from mailstack.pop3.replies import Reply, negative
from mailstack.settings import Pop3
from mailstack.store.store import Store

TlsProvider = Callable[[], ssl.SSLContext]
"""The context for the next handshake, so that a new certificate needs no restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The services and the settings; of these only the rules for sessions count here."""

    store: Store
    logins: Logins
    expiries: Expiries
    tls: TlsProvider
    settings: Pop3

    def silence_seconds(self, *, logged_in: bool) -> float:
        """How long a session may say nothing (RFC 1939 §3, autologout)."""
        return self.settings.idle_seconds if logged_in else self.settings.login_idle_seconds

    def note_refusal(self, address: str, why: Refusal) -> None:
        """Log and count a connection that is one too many."""
        log.event("pop3.refused", address=address, why=why.value)
        self.store.counts["pop3_connections_refused"] += 1

    def channel(self, peer: Peer, *, tls: bool, end_point: bytes | None = None) -> Channel:
        """What a session may know of a connection to `peer`."""
        return _channel(
            tls=tls,
            plaintext_login=self.settings.allow_plaintext_login or peer.is_loopback,
            login_delay_seconds=self.settings.login_delay_seconds,
            end_point=end_point,
        )


def refusal(why: Refusal) -> Reply:
    """What is said in place of the greeting to a connection that is one too many (RFC 3206 §4)."""
    return negative(f"{why.value}, try again later", "SYS/TEMP")


_channel: Final = lru_cache(maxsize=1024)(Channel)
"""Most connections are alike, and share what is known of them."""
