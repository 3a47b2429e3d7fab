"""How long a guess takes: the more failures, the longer, and nobody is ever locked out.

Failures are counted for a name and for a name at one address, which we call a device; never for an
address alone, since behind it may be a whole office. A device that has logged in before does not
wait for what others did to its name.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Final, NamedTuple

from mailstack.errors import TooManyGuesses
from mailstack.peers import peer_at
from mailstack.store.clock import SECOND
from mailstack.store.logins import EVERYWHERE, STREAK_SECONDS, Device, History
from mailstack.values import DAY_SECONDS

KNOWN_SECONDS: Final = 30 * DAY_SECONDS
"""A device is known for so long after it last logged in."""

NOTED_SECONDS: Final = DAY_SECONDS
"""A known device's success is written down once in so long, and so almost never."""

_FREE_DEVICE_FAILURES: Final = 5
_MAX_DEVICE_SECONDS: Final = 8.0

_FREE_FAILURES: Final = 20
_MAX_SECONDS: Final = 16.0

_MAX_SESSION_DOUBLINGS: Final = 3

_MAX_PACE_SECONDS: Final = 8.0
_PACE_KEPT_SECONDS: Final = 600.0

_AT_ONCE: Final = 2
_KNOWN_AT_ONCE: Final = 8
_WAITING: Final = 50


@lru_cache(maxsize=1024)
def device(address: str) -> str:
    """Where a login comes from, as the counters have it: an IPv4 address, or an IPv6 network of 64 bits.

    A host takes new IPv6 addresses of its network as it likes; a unix socket is `local`.
    """
    peer = peer_at(address)
    return (":" in peer.address and peer.network) or peer.address or "local"


def is_known(history: History, at: int) -> bool:
    """Whether the device has logged in lately."""
    return history.succeeded_at is not None and at - history.succeeded_at < KNOWN_SECONDS * SECOND


def is_news(history: History, at: int) -> bool:
    """Whether a success is worth a write."""
    if history.succeeded_at is None or history.device_failures:
        return True
    return at - history.succeeded_at > NOTED_SECONDS * SECOND


def wait_seconds(history: History, at: int) -> float:
    """How long a login waits before anything is checked."""
    if is_known(history, at):
        return 0.0
    return max(
        _grown(history.device_failures - _FREE_DEVICE_FAILURES, _MAX_DEVICE_SECONDS),
        _grown((history.failures - _FREE_FAILURES) // 5, _MAX_SECONDS),
    )


def refusal_seconds(
    floor: float, *, checked: float, waited: float, elapsed: float, session_failures: int
) -> float:
    """How long after its command a refusal leaves.

    That is `floor`, or a multiple of it that the slowest check of late (`checked`) fits into; grown
    with the failures of the session. What takes longer all the same leaves on the same grid.
    """
    base = max(1, math.ceil(checked / floor)) * floor if floor else 0.0
    wanted = max(waited + base, floor * (1 << min(session_failures, _MAX_SESSION_DOUBLINGS)))
    late = elapsed - wanted
    return wanted + math.ceil(late / floor) * floor if late > 0 and floor else wanted


class Pace:
    """The slowest check of late: an old scheme or a busy machine makes every refusal as slow.

    Else the time would tell whose hash is an old one. Who may log in waits for nothing of this.
    """

    def __init__(self) -> None:
        self._slowest = 0.0
        self._until = 0.0

    def after(self, seconds: float, now: float) -> float:
        """A check took so long; the time that all shall seem to take."""
        if now > self._until:
            self._slowest = 0.0
        if seconds >= self._slowest:
            self._slowest, self._until = min(seconds, _MAX_PACE_SECONDS), now + _PACE_KEPT_SECONDS
        return self._slowest


class Standing(NamedTuple):
    """A name's counters, for people."""

    failures: int
    wait_seconds: float  # what an unknown device waits now
    until: int | None  # microseconds since the epoch, when nobody fails any more
    known: tuple[str, ...]  # devices that do not wait


def standing(devices: list[Device], at: int) -> Standing:
    """What an administrator wants to know of a name."""
    everywhere = next((each for each in devices if each.address == EVERYWHERE), None)
    failures = everywhere.failures if everywhere else 0
    until = None
    if everywhere and failures and everywhere.failed_at is not None:
        until = everywhere.failed_at + STREAK_SECONDS * SECOND
    known = [each.address for each in devices if is_known(History(0, 0, each.succeeded_at), at)]
    return Standing(failures, wait_seconds(History(failures, 0, None), at), until, tuple(known))


def _grown(steps: int, most: float) -> float:
    return min(float(1 << min(steps, 10)), most) if steps >= 0 else 0.0


class _Gate:
    __slots__ = ("places", "waiting")

    def __init__(self, at_once: int) -> None:
        self.places = asyncio.Semaphore(at_once)
        self.waiting = 0


class Gates:
    """Guesses of one device go through a few at a time, so that many connections are no faster.

    Belongs to one event loop; holds a gate only while somebody is at it, at most `_WAITING` of them.
    """

    def __init__(self) -> None:
        self._gates: dict[tuple[str, str, bool], _Gate] = {}

    @asynccontextmanager
    async def passed(self, key: str, address: str, *, known: bool) -> AsyncIterator[bool]:
        """Wait for a place; tells whether there was a wait. Raises TooManyGuesses."""
        name = (key, address, known)
        gate = self._gates.setdefault(name, _Gate(_KNOWN_AT_ONCE if known else _AT_ONCE))
        if gate.waiting >= _WAITING:
            raise TooManyGuesses("too many logins at once, try again later")
        waited = gate.places.locked()
        gate.waiting += 1
        try:
            async with gate.places:
                yield waited
        finally:
            gate.waiting -= 1
            if not gate.waiting:
                self._gates.pop(name, None)
