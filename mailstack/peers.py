"""The IP addresses of those who connect."""

from __future__ import annotations

import ipaddress


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that a socket tells of its peer, an IPv4 client of a dual-stack socket as IPv4.

    Raises ValueError where it is none, as of a unix socket.
    """
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
