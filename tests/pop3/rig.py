"""A listener on a real store for one test, and a client that speaks lines to it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from mailstack.auth import scram
from mailstack.auth.logins import Logins
from mailstack.auth.passwords import Verifier
from mailstack.mail.address import parse_mailbox
from mailstack.mail.spool import Spool
from mailstack.mail.surrogate import surrogate
from mailstack.pop3.listener import Listener, serve
from mailstack.settings import Pop3
from mailstack.store import accounts, domains
from mailstack.store.engine import Database
from mailstack.store.limits import NO_LIMITS, Limits
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.store import Store
from mailstack.store.tables import entry
from tests.pop3.transcript import NAME, SECRET, Utf8

PATIENCE = 10.0


class Rig:
    """One account, its maildrop, and a listener in front of it."""

    def __init__(self, store: Store, account_id: int, spool_directory: Path) -> None:
        self.store = store
        self.account_id = account_id
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # of no use: it has no certificate
        self.clients: list[Client] = []
        self.listener: Listener
        self.address: tuple[str, int]
        self._spool_directory = spool_directory

    async def deliver(self, *contents: bytes) -> None:
        await asyncio.gather(*map(self._deliver, contents))

    async def _deliver(self, content: bytes) -> None:
        with Spool(self._spool_directory) as spool:
            spool.write(content)
            dotted = content.startswith(b".") or b"\n." in content
            at = time.time_ns() // 1000
            other = surrogate(spool, self._spool_directory) if isinstance(content, Utf8) else None
            to = (Recipient(self.account_id, b"", b"" if other else None),)
            await self.store.deposit(Deposit("test", "", spool, dotted, to, at, other))
            if other:
                other.close()

    async def messages(self) -> int:
        return (await self.store.open_maildrop(self.account_id)).messages

    async def read(self) -> int:
        """How many messages count as downloaded."""
        await self.store.reads.flush()
        with self.store.database.reading() as connection:
            return connection.execute(select(func.count(entry.c.first_read_at))).scalar_one()

    async def connect(self, context: ssl.SSLContext | None = None) -> Client:
        """A client that has read the greeting."""
        client = await self.connect_silently(context)
        assert (await client.line()).startswith(b"+OK ")
        return client

    async def connect_silently(self, context: ssl.SSLContext | None = None) -> Client:
        """A client that has read nothing yet."""
        reader, writer = await asyncio.open_connection(
            *self.address, ssl=context, server_hostname="localhost" if context else None, limit=1 << 24
        )
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    async def log_in(self, context: ssl.SSLContext | None = None) -> Client:
        client = await self.connect(context)
        assert (await client.log_in()).startswith(b"+OK ")
        return client

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not fact():  # noqa: ASYNC110 (looks from outside)
                await asyncio.sleep(0.005)

    async def until_sessions(self, count: int) -> None:
        await self.until(lambda: self.listener.sessions == count)


class Client:
    """Lines over a socket; nothing is checked but that answers come in time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def line(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(b"\r\n")

    async def ask(self, command: bytes) -> bytes:
        """One command, and the first line of its answer."""
        self.send(command + b"\r\n")
        return await self.line()

    async def body(self, command: bytes) -> bytes:
        """The lines of a multi-line answer, unstuffed."""
        self.send(command + b"\r\n")
        assert (await self.line()).startswith(b"+OK")
        got = b""
        async with asyncio.timeout(PATIENCE):
            while not (b"\r\n" + got).endswith(b"\r\n.\r\n"):
                got += await self.reader.readuntil(b".\r\n")
        return (b"\r\n" + got.removesuffix(b".\r\n")).replace(b"\r\n.", b"\r\n")[2:]

    async def log_in(self, secret: str = SECRET) -> bytes:
        self.send(f"USER {NAME}\r\nPASS {secret}\r\n".encode())
        await self.line()
        return await self.line()

    async def rest(self) -> bytes:
        """All that comes until the server ends the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def ended(self) -> bytes:
        """What came before the server closed or cut the connection."""
        try:
            return await self.rest()
        except ConnectionResetError:
            return b""

    async def start_tls(self, context: ssl.SSLContext) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.writer.start_tls(context, server_hostname="localhost")

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """End with RST, as a killed client whose kernel still had octets for it."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()


def blocking_login(address: tuple[str, int], context: ssl.SSLContext) -> ssl.SSLSocket:
    """A client under TLS that has logged in, and does nothing that it is not told to; for a thread."""
    connection = context.wrap_socket(
        socket.create_connection(address, timeout=PATIENCE), server_hostname="localhost"
    )
    connection.sendall(f"USER {NAME}\r\nPASS {SECRET}\r\n".encode())
    got = b""
    while got.count(b"\r\n") < 3:
        got += connection.recv(1000)
    assert got.count(b"+OK") == 3, got
    return connection


@cache
def scram_keys() -> str:
    """The keys of the password that every transcript uses."""
    return str(scram.keys(SECRET, iterations=4096))


@asynccontextmanager
async def running(
    url: str,
    directory: Path,
    password_hash: str,
    *,
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    implicit_tls: bool = False,
    retention: Limits = NO_LIMITS,
    **rules: Any,
) -> AsyncIterator[Rig]:
    """The listener with its own store, both closed at the end. `rules` are settings of `[pop3]`."""
    database = Database(url)
    with database.writing() as connection:
        mailbox = parse_mailbox(NAME)
        domains.add_domain(connection, mailbox.domain)
        account = accounts.add_account(
            connection, mailbox, password_hash=password_hash, scram_keys=scram_keys()
        )
    store = Store(database, state_dir=directory, reserve_octets=0)
    verifier = Verifier()
    rig = Rig(store, account.id, directory)
    rig.tls = tls or rig.tls
    logins = Logins(store, verifier, default_domain="example.org", refusal_seconds=0.02)
    bound = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    rig.address = bound.getsockname()[:2]
    rig.listener = await serve(
        [bound],
        store=store,
        logins=logins,
        tls=lambda: rig.tls,
        settings=Pop3(**rules),
        implicit_tls=implicit_tls,
        retention=retention,
    )
    try:
        yield rig
    finally:
        for client in rig.clients:
            client.writer.transport.abort()
        await rig.listener.drain(2.0)
        await store.close()
        verifier.close()
