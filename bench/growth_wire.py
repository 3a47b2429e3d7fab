"""What senders and mail programs do to a server that has grown."""

from __future__ import annotations

import asyncio
import poplib
import random
import time

from bench.ours import SECRET

POP3 = ("127.0.0.1", 21_110)
SMTP = ("127.0.0.1", 21_025)
CONNECTIONS = 40
"""How many deliver at once."""

ACCOUNTS = 40
"""How many poll, one after the other, again and again."""


LISTENING = {
    "MAILSTACK_POP3__LISTEN": f"{POP3[0]}:{POP3[1]}",
    "MAILSTACK_SMTP__LISTEN": f"{SMTP[0]}:{SMTP[1]}",
    "MAILSTACK_POP3__TLS_LISTEN": "",
    "MAILSTACK_LOG__LEVEL": "error",
}


async def sent(number: int, count: int, octets: int, rng: random.Random) -> float:
    """So many messages to random accounts over CONNECTIONS that stay; how many a second."""
    left = iter(range(count))
    data = b"Subject: growth\r\n\r\n" + b"".join(
        b"%064x\r\n" % rng.getrandbits(256) for _ in range(octets // 66)
    )
    data += b".\r\n"

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(*SMTP)
        await reader.readuntil(b"\r\n")
        writer.write(b"EHLO client.example.net\r\n")
        await reader.readuntil(b"\r\n250 ")
        await reader.readuntil(b"\r\n")
        for _ in left:
            to = rng.randrange(number)
            writer.write(b"MAIL FROM:<eve@example.net>\r\nRCPT TO:<u%d@example.org>\r\nDATA\r\n" % to)
            while not (reply := await reader.readuntil(b"\r\n")).startswith(b"354"):
                assert reply.startswith(b"250"), reply
            writer.write(data)
            reply = await reader.readuntil(b"\r\n")
            assert reply.startswith(b"250"), reply
        writer.write(b"QUIT\r\n")
        await reader.read()
        writer.close()

    began = time.monotonic()
    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return count / (time.monotonic() - began)


def session_seconds(number: int, sessions: int, rng: random.Random) -> list[float]:
    """Polls, connection to QUIT; without the first of each account, which hashes a password."""
    names = [f"u{each}" for each in rng.sample(range(number), min(number, ACCOUNTS))]
    taken = []
    for turn in range(1 + sessions // len(names)):
        for name in names:
            began = time.perf_counter()
            session = poplib.POP3(*POP3, timeout=60)
            session.user(name)
            session.pass_(SECRET)
            session.stat()
            session.quit()
            if turn:
                taken.append(time.perf_counter() - began)
    return taken
