"""Who connects: the one form of an address, and the words by which a browser gives itself away."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final, NamedTuple

CROSS_PROTOCOL: Final = frozenset(
    (
        b"GET",
        b"POST",
        b"PUT",
        b"HEAD",
        b"DELETE",
        b"OPTIONS",
        b"CONNECT",
        b"TRACE",
        b"PATCH",
        b"PRI",
        b"HOST:",
    )
)
"""The first words of what a browser says that was tricked into speaking to a mail server."""


class Peer(NamedTuple):
    """Who is at the other end of a connection."""

    address: str
    """An IP address as `ip_of` has it; empty for a unix socket."""
    is_loopback: bool
    network: str
    """Its /24 or /64; empty for a peer on this machine, of which there may be many."""


NOWHERE: Final = Peer("", False, "")
"""The peer of a unix socket."""


def peer_of(name: object) -> Peer:
    """The peer of a connection by its `peername`."""
    return peer_at(str(name[0])) if isinstance(name, tuple) and name else NOWHERE


@lru_cache(maxsize=1024)
def peer_at(host: str) -> Peer:
    """The peer by its IP address; NOWHERE where it is none."""
    try:
        address = ip_of(host)
    except ValueError:
        return NOWHERE
    if address.is_loopback:
        return Peer(str(address), True, "")
    prefix = 24 if address.version == 4 else 64
    return Peer(str(address), False, str(ipaddress.ip_network((address, prefix), strict=False)))


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address without its zone, which is of this host only; an IPv4 peer of a dual-stack socket as IPv4.

    Raises ValueError where it is none, as of a unix socket.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
