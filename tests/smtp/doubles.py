"""A receiver without a socket: a transport that remembers, a directory and a store that are literal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mailstack.delivery import Delivery
from mailstack.errors import MaildropFull, NoSuchMailbox
from mailstack.mail.address import Mailbox
from mailstack.mail.envelope import UNBOUNDED, Bound
from mailstack.settings import Smtp
from mailstack.smtp.receiver import Receiver, Reception
from mailstack.smtp.site import Site
from mailstack.store.counts import Counts


class Transport:
    """What a receiver writes to."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.written: list[bytes] = []
        self.closing = self.ended = self.reading_paused = False

    def write(self, octets: bytes) -> None:
        assert not self.closing
        assert not self.ended
        self.written.append(octets)

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False

    def get_extra_info(self, name: str) -> Any:
        return (self.address, 12345) if name == "peername" else None

    @property
    def over(self) -> bool:
        return self.closing or self.ended

    @property
    def said(self) -> bytes:
        return b"".join(self.written)


class People:
    """Knows who takes mail: some at once, some after a while, some do not."""

    def full(self, path: Mailbox) -> Mailbox:
        return path._replace(domain="example.org")

    def route_at_once(self, path: Mailbox, *, octets: int = 0) -> Mapping[int, Bound] | None:
        if path.local_part == "slow":
            return None
        return self._taken(path)

    async def route(self, path: Mailbox, *, octets: int = 0) -> Mapping[int, Bound]:
        await asyncio.sleep(0)
        return self._taken(path)

    def _taken(self, path: Mailbox) -> Mapping[int, Bound]:
        if path.local_part == "full":
            raise MaildropFull("full")
        if path.local_part not in ("fast", "slow"):
            raise NoSuchMailbox("no")
        return {len(path.local_part): UNBOUNDED}


class NothingKept:
    """A journal that is switched off, as `[trace] keep = "0s"` has it."""

    kept = False

    def note(self, *_: Any, **__: Any) -> None:
        """Nothing is remembered."""


class Endless:
    """A disk that has room for everything."""

    def surely_fits(self, octets: int) -> bool:
        return True


class Deposits:
    """Takes messages and remembers their content."""

    journal: Any = NothingKept()
    counts = Counts()
    disk = Endless()

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self.coming: set[object] = set()
        self.on_deposit: Callable[[], None] = lambda: None

    async def deposit(self, deposit: Any) -> int:
        self.on_deposit()
        await asyncio.sleep(0)
        self.contents.append(b"".join(deposit.spool.parts()))
        return len(self.contents)


class Connection:
    """One receiver that has greeted."""

    def __init__(
        self,
        *,
        lmtp: bool = False,
        tls: Any = None,
        spool_dir: Path = Path("/nonexistent"),
        max_message_octets: int = 100_000,
        address: str = "192.0.2.1",
        reception: Reception | None = None,
        **limits: Any,
    ) -> None:
        self.deposits = Deposits()
        delivery = Delivery(
            self.deposits,  # type: ignore[arg-type]
            hostname="mx.example.org",
            spool_dir=spool_dir,
            max_message_octets=max_message_octets,
        )
        limits = {"greeting_delay_milliseconds": 0, **limits}
        site = Site("mx.example.org", People(), delivery, lmtp, Smtp(**limits))  # type: ignore[arg-type]
        self.reception = reception or Reception(site, lambda: tls)
        self.transport = Transport(address)
        self.receiver = Receiver(self.reception)
        self.receiver.connection_made(self.transport)  # type: ignore[arg-type]

    async def settled(self) -> None:
        """Nothing awaits anything any more, and nothing has raised."""
        while self.reception.tasks or self.receiver._awaiting:
            await asyncio.gather(*self.reception.tasks)
            await asyncio.sleep(0)

    async def feed(self, octets: bytes) -> bytes:
        """Give it octets; what it says in return."""
        before = len(self.transport.written)
        if not self.transport.over:
            self.receiver.data_received(octets)
        await self.settled()
        return b"".join(self.transport.written[before:])
