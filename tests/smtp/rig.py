"""A listener on a real store for one test, and a peer that speaks to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mailstack.delivery import Delivery
from mailstack.directory import Directory
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.settings import Smtp
from mailstack.smtp.listener import Listener
from mailstack.smtp.receiver import Reception
from mailstack.smtp.site import Site
from mailstack.store import accounts, aliases, domains
from mailstack.store.engine import Database
from mailstack.store.store import Store
from tests.support import maildrops

PATIENCE = 10.0
HOSTNAME = "mx.example.org"
MAX_MESSAGE = 1_000_000


def furnish(database: Database, *, with_accounts: bool = True) -> None:
    """The domains and accounts that every transcript knows."""
    with database.writing() as connection:
        for name in ("was.example", "empty.example", "bücher.example"):
            domains.add_domain(connection, name)
        domains.rename_domain(connection, "was.example", "example.org")
        if not with_accounts:
            return
        for name, quota in {
            "mrose": None,
            "jones": None,
            "full": 40,  # less than what fills it, and more than half of that
            "small": 5000,
            "away": None,
            "o'hara": None,
            "jürgen": None,
            "with space": None,
        }.items():
            accounts.add_account(
                connection, Mailbox(name, "example.org"), password_hash="$none$", quota_octets=quota
            )
        accounts.disable(connection, parse_mailbox("away@example.org"))
        for source, *targets in (
            ("team@example.org", "jones@example.org", "mrose@example.org", "full@example.org"),
            ("sales@example.org", "team@example.org"),
            ("nobody@example.org", "away@example.org"),
        ):
            aliases.add_alias(connection, parse_mailbox(source), [parse_mailbox(t) for t in targets])
    maildrops.deposit(database, b"what fills it\r\n", "full@example.org")


class Rig:
    """A store with its accounts, and listeners for SMTP or LMTP in front of it."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.store = store
        self.directory = directory
        self.peers: list[Peer] = []
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # of no use: it has no certificate
        self.client_tls: ssl.SSLContext | None = None
        self.reception: Reception
        self.listener: Listener
        self.address: tuple[str, int] | str

    async def account_id(self, name: str) -> int:
        return (await self.store.read(accounts.find_account, Mailbox(name, "example.org"))).id

    async def remove(self, name: str) -> None:
        """What `mailstack account remove` does to an account without mail."""
        with self.store.database.writing() as connection:
            accounts.remove_account(connection, Mailbox(name, "example.org"))

    async def mail(self, name: str) -> list[bytes]:
        """All messages of an account, exactly as RETR would send them, oldest first."""
        account_id = await self.account_id(name)
        found = []
        snapshot = await self.store.open_maildrop(account_id)
        for uid in (await self.store.listing(account_id, snapshot.last_uid)).uids:
            content = await self.store.walk(account_id, uid).open(uid)
            found.append(b"".join([part async for part in content]))
            assert len(found[-1]) == content.octets
        return found

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not fact():  # noqa: ASYNC110 (looks from outside)
                await asyncio.sleep(0.005)

    async def connect(self, *, greeted: bool = True) -> Peer:
        """A peer; `greeted` reads the greeting."""
        if isinstance(self.address, str):
            reader, writer = await asyncio.open_unix_connection(self.address, limit=1 << 24)
        else:
            reader, writer = await asyncio.open_connection(*self.address, limit=1 << 24)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        if greeted:
            assert (await peer.line()).startswith(b"220 mx.example.org ")
        return peer

    async def connect_under_tls(self, hello: bytes = b"EHLO client.example") -> Peer:
        """A peer that has shaken hands."""
        peer = await self.connect()
        await peer.reply(hello)
        assert (await peer.reply(b"STARTTLS")).startswith(b"220 2.0.0 ")
        assert self.client_tls is not None
        await peer.start_tls(self.client_tls)
        return peer


class Gate:
    """Holds deposits back until it is opened."""

    def __init__(self, rig: Rig) -> None:
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()
        self._deposit = rig.store.deposit
        rig.store.deposit = self._held

    def open(self) -> None:
        self._opened.set()

    async def hold(self, peer, end: bytes = b".\r\n") -> None:
        """Have the peer send a message that ends so, and wait until its deposit is held back."""
        await peer.trio()
        await peer.reply(b"DATA")
        peer.send(b"x\r\n" + end)
        await self.reached.wait()

    async def _held(self, deposit):
        self.reached.set()
        await self._opened.wait()
        return await self._deposit(deposit)


class Peer:
    """Lines over a socket; nothing is checked but that answers come in time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def line(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(b"\r\n")

    async def one_reply(self) -> bytes:
        """All lines of the next reply."""
        lines = [await self.line()]
        while lines[-1][3:4] == b"-":
            lines.append(await self.line())
        return b"".join(lines)

    async def reply(self, command: bytes) -> bytes:
        """One command, and its reply."""
        self.send(command + b"\r\n")
        return await self.one_reply()

    async def rest(self) -> bytes:
        """All that comes until the server ends the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def trio(self, recipient: bytes = b"jones@example.org") -> None:
        """Up to where DATA can come."""
        assert (await self.reply(b"EHLO client.example")).startswith(b"250")
        assert (await self.reply(b"MAIL FROM:<eve@example.net>")).startswith(b"250 2.1.0 ")
        assert (await self.reply(b"RCPT TO:<" + recipient + b">")).startswith(b"250 2.1.5 ")

    async def start_tls(self, context: ssl.SSLContext) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.writer.start_tls(context, server_hostname=HOSTNAME)

    def half_close(self) -> None:
        """End our side of TCP; asyncio has no such thing under TLS."""
        connection = self.writer.get_extra_info("socket")
        with socket.socket(fileno=os.dup(connection.fileno())) as same:
            same.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End with RST, as a killed peer whose kernel still had octets for it."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def running(
    template: Path,
    directory: Path,
    *,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    lmtp: bool = False,
    unix: bool = False,
    dual_stack: bool = False,
    reject_bare_newlines: bool = False,
    reserve_octets: int = 0,
    default_domain: str | None = "example.org",
    **limits: Any,
) -> AsyncIterator[Rig]:
    """A listener with its own store, both closed at the end; `tls` is the server's and the peer's side.

    `limits` are settings of `[smtp]`.
    """
    smtp = Smtp(**{"max_message_octets": MAX_MESSAGE, "idle_seconds": 60.0, **limits})
    path = directory / "mail.db"
    shutil.copy(template, path)
    store = Store(Database(f"sqlite:///{path}"), state_dir=directory, reserve_octets=reserve_octets)
    rig = Rig(store, directory)
    if tls is not None:
        rig.tls, rig.client_tls = tls
    people = Directory(store, hostname=HOSTNAME, default_domain=default_domain, postmaster=None)
    delivery = Delivery(
        store,
        hostname=HOSTNAME,
        spool_dir=directory,
        max_message_octets=smtp.max_message_octets,
        max_header_octets=smtp.max_header_octets,
        max_octets_in_flight=smtp.max_octets_in_flight,
        reject_bare_newlines=reject_bare_newlines,
    )
    site = Site(HOSTNAME, people, delivery, lmtp, smtp)
    rig.reception = Reception(site, lambda: rig.tls)
    rig.listener = Listener(rig.reception)
    if unix:
        bound = socket.socket(socket.AF_UNIX)
        rig.address = str(directory / "lmtp")
        bound.bind(rig.address)
    elif dual_stack:
        bound = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        rig.address = ("127.0.0.1", bound.getsockname()[1])
    else:
        bound = socket.create_server(("127.0.0.1", 0))
        rig.address = bound.getsockname()
    await rig.listener.open([bound])
    try:
        yield rig
    finally:
        rig.listener.close()
        await rig.listener.drain(2.0)
        for peer in rig.peers:
            peer.writer.close()
        await store.close()
