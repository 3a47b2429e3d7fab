"""The load of `mailstack bench`: a few connections on one loop, bounded in time and in number.

It is made of what every Python has, and takes part of the machine that it measures: a server that
is loaded from elsewhere does more. `make bench` measures with a generator in C.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from mailstack.errors import Temporary
from mailstack.values import TcpAddress

MOST: Final = 20_000
"""Units of work of one kind, however fast the server is."""

_WAIT_SECONDS: Final = 30.0
_LINE: Final = b"0123456789abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n"


class Broken(Temporary):
    """The server said what it should not, or nothing."""


class Figures(NamedTuple):
    """What one kind of work has shown."""

    done: int
    seconds: float
    milliseconds: tuple[float, ...]
    """Each unit's, shortest first."""
    octets: int = 0

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.done / self.seconds

    def quantile(self, part: float) -> float:
        """So that this part of all took no longer, in milliseconds."""
        return self.milliseconds[min(int(part * len(self.milliseconds)), len(self.milliseconds) - 1)]


class Login(NamedTuple):
    """An account of the server's that the load may use."""

    name: str
    secret: str


class Wire:
    """A connection of a client that waits for each reply."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def reply(self) -> bytes:
        """The next reply's last line; raises Broken where it is a refusal."""
        while True:
            line = await self._reader.readline()
            if line[:1] not in (b"2", b"3", b"+"):
                said = line.decode(errors="replace").strip() or "nothing, and ended the connection"
                raise Broken(f"the server said: {said}")
            if line[3:4] != b"-" or line[:1] == b"+":
                return line

    async def ask(self, octets: bytes) -> bytes:
        """Say it; the reply."""
        self._writer.write(octets)
        return await self.reply()

    async def retr(self, number: int) -> int:
        """Fetch a message; how many octets came."""
        await self.ask(b"RETR %d\r\n" % number)
        return len(await self._reader.readuntil(b"\r\n.\r\n"))

    async def top(self, number: int) -> bytes:
        """A message's header."""
        await self.ask(b"TOP %d 0\r\n" % number)
        return await self._reader.readuntil(b"\r\n.\r\n")


@asynccontextmanager
async def connected(to: TcpAddress) -> AsyncIterator[Wire]:
    """A connection that has been greeted."""
    try:
        reader, writer = await asyncio.open_connection(to.host, to.port, limit=64 * 1024 * 1024)
    except OSError as error:
        raise Broken(f"nobody answers at {to}: {error.strerror or error}") from error
    try:
        wire = Wire(reader, writer)
        await wire.reply()
        yield wire
    finally:
        writer.close()


@asynccontextmanager
async def session(to: TcpAddress, login: Login) -> AsyncIterator[Wire]:
    """A POP3 session that has logged in, and says QUIT at its end."""
    async with connected(to) as wire:
        await wire.ask(b"USER %s\r\n" % login.name.encode())
        await wire.ask(b"PASS %s\r\n" % login.secret.encode())
        yield wire
        await wire.ask(b"QUIT\r\n")


def message(mark: str, octets: int) -> bytes:
    """A message that is known by its mark, as DATA sends it."""
    head = (
        f"From: <bench@localhost>\r\nSubject: mailstack bench\r\nX-Mailstack-Bench: {mark}\r\n\r\n".encode()
    )
    return head + _LINE * max((octets - len(head)) // len(_LINE), 1) + b".\r\n"


async def deliver(
    to: TcpAddress, address: bytes, content: bytes, *, connections: int, seconds: float, most: int = MOST
) -> Figures:
    """Messages to one address, over connections that stay."""
    left = iter(range(most))

    async def work(until: float, taken: list[float]) -> None:
        async with connected(to) as wire:
            await wire.ask(b"EHLO bench.localhost\r\n")
            for _ in left:
                began = time.perf_counter()
                await wire.ask(b"MAIL FROM:<bench@localhost>\r\n")
                await wire.ask(b"RCPT TO:<%s>\r\n" % address)
                await wire.ask(b"DATA\r\n")
                await wire.ask(content)
                taken.append((time.perf_counter() - began) * 1e3)
                if time.perf_counter() > until:
                    break
            await wire.ask(b"QUIT\r\n")

    found = await _together([work] * connections, seconds)
    return found._replace(octets=found.done * len(content))


async def poll(to: TcpAddress, logins: Sequence[Login], *, seconds: float, most: int = MOST) -> Figures:
    """Connect, log in, STAT, QUIT, each account again and again; one connection an account."""
    left = iter(range(most))

    def of(login: Login) -> _Work:
        async def work(until: float, taken: list[float]) -> None:
            for _ in left:
                began = time.perf_counter()
                async with session(to, login) as wire:
                    await wire.ask(b"STAT\r\n")
                taken.append((time.perf_counter() - began) * 1e3)
                if time.perf_counter() > until:
                    break

        return work

    return await _together([of(login) for login in logins], seconds)


async def fetch(to: TcpAddress, login: Login, number: int, *, seconds: float) -> Figures:
    """One message, again and again in one session."""
    octets = 0

    async def work(until: float, taken: list[float]) -> None:
        nonlocal octets
        async with session(to, login) as wire:
            for _ in range(MOST):
                began = time.perf_counter()
                octets += await wire.retr(number)
                taken.append((time.perf_counter() - began) * 1e3)
                if time.perf_counter() > until:
                    break

    return (await _together([work], seconds))._replace(octets=octets)


async def count(to: TcpAddress, login: Login) -> int:
    """How many messages are in the maildrop."""
    async with session(to, login) as wire:
        return int((await wire.ask(b"STAT\r\n")).split()[1])


async def remove(to: TcpAddress, login: Login, mark: str) -> None:
    """Delete the messages with this mark, and no other that has come meanwhile."""
    async with session(to, login) as wire:
        for number in range(1, int((await wire.ask(b"STAT\r\n")).split()[1]) + 1):
            if _mark(mark) in await wire.top(number):
                await wire.ask(b"DELE %d\r\n" % number)


def _mark(mark: str) -> bytes:
    return b"X-Mailstack-Bench: %s" % mark.encode()


def sync_rate(folder: Path, seconds: float) -> Figures:
    """Synced writes of 8 KiB, one after the other, into a file of its own in the folder."""
    path = folder / f".bench-{os.getpid()}"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    taken: list[float] = []
    try:
        block = bytes(8192)
        os.pwrite(file, block * 64, 0)  # over what is there, as in a log that begins anew
        os.fsync(file)
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + seconds and len(taken) < MOST:
            os.pwrite(file, block, len(taken) % 64 * 8192)
            os.fdatasync(file)
            taken.append((time.perf_counter() - now) * 1e3)
    finally:
        os.close(file)
    return Figures(len(taken), time.perf_counter() - began, tuple(sorted(taken)))


_Work = Callable[[float, list[float]], Awaitable[None]]


async def _together(works: Sequence[_Work], seconds: float) -> Figures:
    taken: list[float] = []
    began = time.perf_counter()
    try:
        async with asyncio.timeout(seconds + _WAIT_SECONDS):
            await asyncio.gather(*(work(began + seconds, taken) for work in works))
    except TimeoutError as error:
        raise Broken(f"the server has not answered for {_WAIT_SECONDS:.0f} seconds") from error
    except (OSError, asyncio.IncompleteReadError) as error:
        raise Broken(f"the connection broke: {error}") from error
    return Figures(len(taken), time.perf_counter() - began, tuple(sorted(taken)))
