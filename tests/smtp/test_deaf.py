"""Whatever comes, the loop listens again within 50 ms of its own CPU time, and newcomers are greeted."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from mailstack.service.watchdog import DEAF_SECONDS, Watchdog
from tests.mail.test_surrogate import HOSTILE
from tests.smtp.rig import Peer
from tests.smtp.test_command_loop import SHAPES
from tests.support.appliance import DOMAIN, SMTP_PORT, Appliance

COMMANDS = {
    "NOOP": b"NOOP\r\n",
    "empty lines": b"\r\n",
    "unknown words": b"FOO\r\n",
    "small chunks": b"BDAT 1\r\nx",
    "recipients": b"RCPT TO:<jones@example.org>\r\n",
    "unknown recipients": b"RCPT TO:<nobody-%d@example.org>\r\n" % 7,
    "long paths": b"RCPT TO:<@a.example,@b.example:" + b"x" * 200 + b"@example.org>\r\n",
    "long parameters": b"MAIL FROM:<a@b.example> " + b"A=B " * 400 + b"\r\n",
    "quoted": b'RCPT TO:<"' + b"\\a" * 300 + b'"@example.org>\r\n',
    "other scripts": "RCPT TO:<\u00fc@b\u00fccher.example>\r\n".encode(),
    "hello": b"EHLO client.example\r\n",
    "hello in another script": "EHLO b\u00fccher.example\r\n".encode(),
    "without an end": b"x" * 1000,
    "nothing but LF": b"\n",
    "NUL": b"\0" * 100 + b"\r\n",
    "no TLS behind STARTTLS": b"STARTTLS\r\n",
    "refused chunks": b"RSET\r\n" + b"BDAT 10\r\n0123456789" * 50,
    "names of a group": b"RCPT TO:<sales+7@example.org>\r\n",
    "address literals": b"MAIL FROM:<a@[IPv6:" + b"1:" * 700 + b":]>\r\n",
    "source routes": b"MAIL FROM:<" + b"@a.b," * 390 + b"@c:d@e.f>\r\n",
    "words that are no parameters": b"MAIL FROM:<> " + b"= " * 990 + b"\r\n",
}

LOOKED_UP = {"unknown recipients": 2000}
"""How often what is looked up in the store each time, so that it takes seconds and no minutes."""


@asynccontextmanager
async def watched() -> AsyncIterator[Watchdog]:
    gc.collect()
    gc.freeze()  # what pytest and hypothesis have in memory is not the server's to search
    await asyncio.sleep(0.01)
    dog = Watchdog(beat_seconds=0.001)
    try:
        yield dog
        await asyncio.sleep(0.01)
    finally:
        dog.close()
        gc.unfreeze()


async def test_the_watchdog_bites():
    async with watched() as dog:
        until = time.thread_time() + DEAF_SECONDS
        while time.thread_time() < until:
            pass
    assert dog.worst_seconds >= DEAF_SECONDS


async def test_waiting_is_not_deafness():
    async with watched() as dog:
        time.sleep(0.1)  # noqa: ASYNC251 - another process has the processor
    assert dog.worst_seconds < DEAF_SECONDS


@pytest.mark.parametrize("name", COMMANDS)
async def test_commands(start, name):
    """A megabyte of one command, as fast as the socket takes it."""
    asyncio.get_running_loop().set_debug(False)
    async with start(max_commands=10**9, max_errors=10**9) as rig:
        peer = await rig.connect()
        await peer.trio()
        times = 1_000_000 // len(COMMANDS[name])
        octets = COMMANDS[name] * min(times, LOOKED_UP.get(name, times))
        async with watched() as dog:
            await swallow(peer, octets)
    assert dog.worst_seconds < DEAF_SECONDS


@pytest.mark.parametrize("shape", SHAPES)
async def test_content(start, shape):
    asyncio.get_running_loop().set_debug(False)
    async with start(max_message_octets=50_000_000) as rig:
        peer = await rig.connect()
        await peer.trio()
        await peer.reply(b"DATA")
        octets = SHAPES[shape] * 64 + b"\r\n.\r\n"
        async with watched() as dog:
            await swallow(peer, octets)
    assert dog.worst_seconds < DEAF_SECONDS


@pytest.mark.parametrize("name", HOSTILE)
async def test_headers_that_have_to_be_understood(start, name):
    """They are taken apart on a thread, which must let the loop run meanwhile."""
    asyncio.get_running_loop().set_debug(False)
    async with start() as rig:
        peer, other = await rig.connect(), await rig.connect()
        await peer.reply(b"EHLO client.example")
        await peer.reply(b"MAIL FROM:<eve@example.net> SMTPUTF8")
        await peer.reply(b"RCPT TO:<jones@example.org>")
        await peer.reply(b"DATA")
        content = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"
        content += (b"--a\r\n" + HOSTILE[name] + b"\r\n") * (500_000 // len(HOSTILE[name]))
        waits = []
        async with watched() as dog:
            peer.send(content + b".\r\n")
            answer = asyncio.create_task(peer.one_reply())
            while not answer.done():
                began = time.monotonic()
                assert (await other.reply(b"NOOP")).startswith(b"250 ")
                waits.append(time.monotonic() - began)
                await asyncio.sleep(0.01)
        assert (await answer).startswith(b"250 2.0.0 ")
    assert dog.worst_seconds < DEAF_SECONDS
    assert max(waits) < 1.0, "it was half a minute while one regular expression searched"


async def swallow(peer: Peer, octets: bytes) -> None:
    """Send it all, and read whatever comes, until nothing more does or the connection ends."""
    answered = time.monotonic()

    async def read() -> None:
        nonlocal answered
        while await peer.reader.read(1 << 16):
            answered = time.monotonic()

    reading = asyncio.create_task(read())
    with suppress(ConnectionError):
        for start in range(0, len(octets), 16_384):  # a client's own work must not be taken for the server's
            peer.send(octets[start : start + 16_384])
            await peer.writer.drain()
            answered = time.monotonic()
    while not reading.done() and time.monotonic() - answered < 0.2:  # noqa: ASYNC110 (looks from outside)
        await asyncio.sleep(0.02)
    reading.cancel()
    await asyncio.wait([reading])
    peer.writer.transport.abort()
    with suppress(asyncio.CancelledError, ConnectionError):
        reading.result()


# -- a crowd that means ill, and one honest client ---------------------------------------------------


async def test_an_honest_newcomer_is_greeted_within_a_second(appliance: Appliance):
    raise_descriptors(4000)
    appliance.start()
    address = (appliance.host, SMTP_PORT)
    idle = [await asyncio.open_connection(*address) for _ in range(900)]
    crowd = [asyncio.create_task(attack(address)) for attack in (trickle, trickle, noops, endless) * 5]
    try:
        waits = []
        for _ in range(20):
            await asyncio.sleep(0.1)
            began = time.monotonic()
            async with connected(address) as (reader, writer):
                assert (await reader.readline()).startswith(b"220 ")
                writer.write(b"HELO honest.example\r\n")
                assert (await reader.readline()).startswith(b"250 ")
                waits.append(time.monotonic() - began)
        assert max(waits) < 1.0, waits
    finally:
        for each in crowd:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        for _, writer in idle:
            writer.transport.abort()
    assert appliance.processes[0].running


@asynccontextmanager
async def connected(
    address: tuple[str, int],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def trickle(address: tuple[str, int]) -> None:
    async with connected(address) as (_, writer):
        for octet in b"EHLO slow.example" * 1000:
            writer.write(bytes([octet]))
            await asyncio.sleep(0.05)


async def noops(address: tuple[str, int]) -> None:
    while True:
        await talk(address, b"NOOP\r\n" * 10_000)


async def endless(address: tuple[str, int]) -> None:
    while True:
        await talk(address, b"x" * 1_000_000)


async def talk(address: tuple[str, int], octets: bytes) -> None:
    async with connected(address) as (reader, writer):
        with suppress(ConnectionError):
            await reader.readline()
            writer.write(octets)
            while await reader.read(1 << 16):
                pass


def raise_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_hundred_large_messages_at_once_take_little_memory(appliance: Appliance):
    appliance.start()
    line = b"0123456789abcdef" * 4 + b"\r\n"
    part = line * 1000
    octets = 25 << 20

    async def send() -> bytes:
        async with connected((appliance.host, SMTP_PORT)) as (reader, writer):
            for command in (b"", b"HELO x", b"MAIL FROM:<>", f"RCPT TO:<anna@{DOMAIN}>".encode(), b"DATA"):
                writer.write(command + b"\r\n" * bool(command))
                await reader.readline()
            for _ in range(octets // len(part)):
                writer.write(part)
                await writer.drain()
            writer.write(b".\r\n")
            return await reader.readline()

    replies = await asyncio.gather(*(send() for _ in range(100)))
    assert [reply[:3] for reply in replies] == [b"250"] * 100
    highest = highest_octets(appliance.processes[0].pid)
    print(f"{highest / (1 << 20):.0f} MiB at most")
    assert highest < 256 << 20


def highest_octets(pid: int) -> int:
    """The most memory that a process has had resident."""
    (line,) = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) * 1024
