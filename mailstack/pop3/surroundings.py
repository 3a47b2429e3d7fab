"""What all connections of one listener share, and the crowd that they are."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Generic, TypeVar

from mailstack.directory import Directory
from mailstack.pop3.capabilities import Channel
from mailstack.pop3.expiry import Expiries
from mailstack.pop3.tcp import Peer
from mailstack.store.store import Store

T = TypeVar("T")

TlsProvider = Callable[[], ssl.SSLContext | None]
"""The context for the next handshake, so that a new certificate needs no restart; None: no TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The services and the settings.

    The idle times are the autologout of RFC 1939 §3, the delay is that of RFC 2449 §6.5.
    """

    store: Store
    directory: Directory
    expiries: Expiries
    tls: TlsProvider
    allow_plaintext_login: bool
    idle_seconds: float
    login_idle_seconds: float
    login_delay_seconds: int

    def silence_seconds(self, *, logged_in: bool) -> float:
        """How long a session may say nothing."""
        return self.idle_seconds if logged_in else self.login_idle_seconds

    def channel(self, peer: Peer, *, tls: bool, end_point: bytes | None = None) -> Channel:
        """What a session may know of a connection to `peer`."""
        return _channel(
            tls=tls,
            stls=not tls and self.tls() is not None,
            plaintext_login=self.allow_plaintext_login or peer.is_loopback,
            peer=peer.address,
            login_delay_seconds=self.login_delay_seconds,
            end_point=end_point,
        )


_channel: Final = lru_cache(maxsize=1024)(Channel)
"""Most connections are alike, and share what is known of them."""


class Crowd(Generic[T]):
    """Who is there; and a way to wait until nobody is."""

    def __init__(self) -> None:
        self._members: set[T] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[T]:
        """Everybody who is there now, whoever leaves meanwhile."""
        return iter(tuple(self._members))

    def join(self, member: T) -> None:
        """One more."""
        self._members.add(member)
        self._nobody.clear()

    def leave(self, member: T) -> bool:
        """One less; False when it had left before."""
        if member not in self._members:
            return False
        self._members.remove(member)
        if not self._members:
            self._nobody.set()
        return True

    async def gone(self, timeout_seconds: float) -> bool:
        """Wait until nobody is there; False when that took too long."""
        try:
            await asyncio.wait_for(self._nobody.wait(), timeout_seconds)
        except TimeoutError:
            return False
        return True
