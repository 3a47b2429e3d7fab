"""Who is connected: how many in all, from one address and from one network, and who makes room for whom."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import Final, Generic, NamedTuple, Protocol, Self, TypeVar

from mailstack.peers import ip_of

SILENT_SECONDS: Final = 2.0
"""How long a connection may say nothing while there is no room for another."""


class Settings(Protocol):
    """What `[smtp]` and `[pop3]` say of connections at the same time."""

    @property
    def max_connections(self) -> int:
        """In all."""

    @property
    def max_connections_per_address(self) -> int:
        """From one address."""

    @property
    def max_connections_per_network(self) -> int:
        """From one network."""


class Limits(NamedTuple):
    """How many connections there may be at the same time."""

    in_all: int
    per_address: int
    per_network: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of a protocol's listeners."""
        return cls(
            settings.max_connections,
            settings.max_connections_per_address,
            settings.max_connections_per_network,
        )


class Refusal(Enum):
    """Why one more is too many."""

    FULL = "too many connections"
    FROM_THERE = "too many connections from your address or network"


class Origin(NamedTuple):
    """Where a connection comes from, as far as it matters to limits."""

    address: str
    network: str  # the /24 or /64; empty for a peer on this machine, of which there may be many


class Guest(Protocol):
    """Whoever takes a place: a connection, or the handshake before it."""

    def silence(self, now: float) -> float:
        """For how many seconds the peer has let us wait; none, where we are the one to speak."""

    def give_way(self) -> None:
        """Make room for somebody else, at once."""


T = TypeVar("T", bound=Guest)


class Crowd(Generic[T]):
    """The open connections of one listener, and a way to wait until there are none."""

    __slots__ = ("_by_address", "_by_network", "_counted", "_limits", "_members", "_nobody")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._members: set[T] = set()
        self._counted: dict[Guest, Origin] = {}
        self._by_address: Counter[str] = Counter()
        self._by_network: Counter[str] = Counter()
        self._nobody = asyncio.Event()
        self._nobody.set()

    def adopt(self, limits: Limits) -> None:
        """Other limits for who comes from now on."""
        self._limits = limits

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[T]:
        """Everybody who is there now, whoever leaves meanwhile."""
        return iter(tuple(self._members))

    def join(self, member: T, address: str, now: float) -> Refusal | None:
        """One more; or why not."""
        refusal = self.arrive(member, address, now)
        if refusal is None:
            self._members.add(member)
            self._nobody.clear()
        return refusal

    def arrive(self, guest: Guest, address: str, now: float) -> Refusal | None:
        """Count one who is not there yet; or say why not."""
        limits, origin = self._limits, origin_of(address)
        if origin.network and (
            self._by_address[origin.address] >= limits.per_address
            or self._by_network[origin.network] >= limits.per_network
        ):
            return Refusal.FROM_THERE
        if len(self._counted) >= limits.in_all:
            self._make_room(now)
            if len(self._counted) >= limits.in_all:
                return Refusal.FULL
        if origin.network:
            self._by_address[origin.address] += 1
            self._by_network[origin.network] += 1
        self._counted[guest] = origin
        return None

    def admit(self, guest: Guest, member: T) -> None:
        """Who has arrived is there now, as this member."""
        if origin := self._counted.pop(guest, None):  # else it has made room meanwhile
            self._counted[member] = origin
        self._members.add(member)
        self._nobody.clear()

    def leave(self, guest: Guest) -> bool:
        """One less; False when it was not there, or had left before."""
        self._discount(guest)
        if guest not in self._members:
            return False
        self._members.remove(guest)
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

    def _make_room(self, now: float) -> None:
        """End whoever has been silent for longest.

        Whoever holds connections without a word would else keep all others out for as long as that is
        allowed. It is no longer counted, and leaves when its end is known.
        """
        silent = max(self._counted, key=lambda guest: guest.silence(now))
        if silent.silence(now) > SILENT_SECONDS:
            self._discount(silent)
            silent.give_way()

    def _discount(self, guest: Guest) -> None:
        origin = self._counted.pop(guest, None)
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
        address = ip_of(host.partition("%")[0])
    except ValueError:
        return Origin(host, "")
    if address.is_loopback:
        return Origin(str(address), "")
    prefix = 24 if address.version == 4 else 64
    return Origin(str(address), str(ipaddress.ip_network((address, prefix), strict=False)))
