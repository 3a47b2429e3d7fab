"""Who is connected: how many in all, from one address and from one network, and who makes room for whom."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from typing import Final, Generic, NamedTuple, Protocol, Self, TypeVar

from mailstack.peers import Peer

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
        self._counted: dict[Guest, Peer] = {}
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

    def join(self, member: T, peer: Peer, now: float) -> Refusal | None:
        """One more; or why not."""
        refusal = self.arrive(member, peer, now)
        if refusal is None:
            self._members.add(member)
            self._nobody.clear()
        return refusal

    def arrive(self, guest: Guest, peer: Peer, now: float) -> Refusal | None:
        """Count one who is not there yet; or say why not."""
        limits = self._limits
        if peer.network and (
            self._by_address[peer.address] >= limits.per_address
            or self._by_network[peer.network] >= limits.per_network
        ):
            return Refusal.FROM_THERE
        if len(self._counted) >= limits.in_all:
            self._make_room(now)
            if len(self._counted) >= limits.in_all:
                return Refusal.FULL
        if peer.network:
            self._by_address[peer.address] += 1
            self._by_network[peer.network] += 1
        self._counted[guest] = peer
        return None

    def admit(self, guest: Guest, member: T) -> None:
        """Who has arrived is there now, as this member."""
        if peer := self._counted.pop(guest, None):  # else it has made room meanwhile
            self._counted[member] = peer
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
        peer = self._counted.pop(guest, None)
        if peer is not None and peer.network:
            _one_less(self._by_address, peer.address)
            _one_less(self._by_network, peer.network)


def _one_less(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]  # addresses that were here once are not kept
