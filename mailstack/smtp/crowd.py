"""Who is connected: how many in all, from one address and from one network."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from mailstack.settings import Smtp
from mailstack.smtp import replies

T = TypeVar("T")


class Origin(NamedTuple):
    """Where a connection comes from, as far as it matters to limits."""

    address: str
    network: str  # the /24 or /64; empty for a peer on this machine, of which there may be many


class Crowd(Generic[T]):
    """The open connections of one listener."""

    __slots__ = ("_by_address", "_by_network", "_members", "_settings")

    def __init__(self, settings: Smtp) -> None:
        self._settings = settings
        self._members: dict[T, Origin] = {}
        self._by_address: Counter[str] = Counter()
        self._by_network: Counter[str] = Counter()

    def adopt(self, settings: Smtp) -> None:
        """Other limits for who comes from now on."""
        self._settings = settings

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[T]:
        """Everybody who is there now, whoever leaves meanwhile."""
        return iter(tuple(self._members))

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return len(self._members) >= self._settings.max_connections

    def join(self, member: T, address: str) -> bytes | None:
        """One more; or the reply that says why not."""
        limits = self._settings
        if self.full:
            return replies.TOO_MANY_CONNECTIONS
        origin = origin_of(address)
        if origin.network:
            if (
                self._by_address[origin.address] >= limits.max_connections_per_address
                or self._by_network[origin.network] >= limits.max_connections_per_network
            ):
                return replies.TOO_MANY_CONNECTIONS_FROM_THERE
            self._by_address[origin.address] += 1
            self._by_network[origin.network] += 1
        self._members[member] = origin
        return None

    def leave(self, member: T) -> None:
        """One less, if it was there."""
        origin = self._members.pop(member, None)
        if origin is not None and origin.network:
            _one_less(self._by_address, origin.address)
            _one_less(self._by_network, origin.network)


def _one_less(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]  # addresses that were here once are not kept


@lru_cache(maxsize=1024)
def origin_of(host: str) -> Origin:
    """The origin of a peer by its IP address, which is empty for a unix socket.

    An IPv4 peer of a dual-stack socket counts as IPv4: all of them share one IPv6 /64.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return Origin(host, "")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    if address.is_loopback:
        return Origin(str(address), "")
    prefix = 24 if address.version == 4 else 64
    return Origin(str(address), str(ipaddress.ip_network((address, prefix), strict=False)))
