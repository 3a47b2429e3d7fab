"""Many connections that deliver at once, and a record of what the server promised each of them."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field

from tests.support import reference
from tests.support.appliance import DOMAIN, PASSWORD, POP3_PORT, SMTP_PORT, Appliance, retrieved

SIZES = {200: 20, 2_000: 60, 30_000: 20, 300_000: 20, 1_200_000: 1}
"""Octets of bodies, and how often each is sent. The last but one needs more than one part in the store, and
the last goes to SQLite's log before its COMMIT."""


@dataclass
class Quit:
    """What a session deleted, when it said QUIT, and when it heard +OK, if it did."""

    marks: frozenset[str]
    said: int
    heard: int | None = None


@dataclass
class Record:
    """What was sent, by the message's own mark, and how far it came."""

    recipients: dict[str, tuple[str, ...]] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    complete: set[str] = field(default_factory=set)
    """Perhaps sent to the last octet; without a 250 these may be there or not (RFC 5321 §6.1)."""
    unique_ids: dict[str, str] = field(default_factory=dict)
    """Every unique-id that the collecting client has seen, and the mark of its message."""
    removed: set[str] = field(default_factory=set)
    """Marks of messages that it deleted, with the +OK to its QUIT."""
    undecided: list[set[str]] = field(default_factory=list)
    """Those of sessions whose QUIT was not answered: of each, all are gone or none is."""
    refused: Counter[bytes] = field(default_factory=Counter)
    """Replies that were no success."""
    sessions: int = 0
    """How often the collecting client has come as far as its QUIT."""
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    clock: Callable[[], int] = lambda: 0
    """What time it is, by whatever the promises are to be compared with."""
    promised: dict[str, int] = field(default_factory=dict)
    """When each 250 was heard."""
    quits: list[Quit] = field(default_factory=list)
    """Every session's."""


def message(mark: str, octets: int) -> bytes:
    """A message that shows by itself whether it is whole."""
    line = b"0123456789abcdef" * 4 + b"\r\n.dotted line\r\n"
    body = line * (octets // len(line) + 1)
    digest = hashlib.sha256(body).hexdigest()
    return f"Message-ID: <{mark}>\r\nX-Digest: {digest}\r\n\r\n".encode() + body


def mark_of(retrieved_message: bytes) -> str:
    """The mark of a message that was retrieved; fails unless the message is whole."""
    _, _, content = reference.below_trace(retrieved_message)
    head, _, body = content.partition(b"\r\n\r\n")
    found = re.fullmatch(rb"Message-ID: <([^>]+)>\r\nX-Digest: ([0-9a-f]{64})", head)
    assert found is not None, head[:200]
    assert hashlib.sha256(body).hexdigest().encode() == found[2], f"{found[1]!r} is not whole"
    return found[1].decode()


async def deliver(
    appliance: Appliance, record: Record, rng: random.Random, name: str, recipients: tuple[str, ...]
) -> None:
    """One connection that delivers message after message, until the server is gone."""
    try:
        reader, writer = await asyncio.open_connection(appliance.host, SMTP_PORT)
    except OSError:
        return
    try:
        await reader.readuntil(b"\r\n")
        writer.write(b"HELO client.example.net\r\n")
        await reader.readuntil(b"\r\n")
        number = 0
        while True:
            number += 1
            to = tuple(rng.sample(recipients, rng.choice((1, 1, len(recipients)))))
            (octets,) = rng.choices(tuple(SIZES), tuple(SIZES.values()))
            if not await _transaction(reader, writer, record, f"{name}.{number}", to=to, octets=octets):
                return
    except (OSError, asyncio.IncompleteReadError):
        return  # killed, in the middle of anything
    finally:
        writer.transport.abort()


async def _transaction(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    record: Record,
    mark: str,
    *,
    to: tuple[str, ...],
    octets: int,
) -> bool:
    """Send one message; whether the connection can go on."""
    envelope = "".join(f"RCPT TO:<{name}@{DOMAIN}>\r\n" for name in to)
    writer.write(f"MAIL FROM:<sender@example.net>\r\n{envelope}DATA\r\n".encode())
    for _ in range(2 + len(to)):
        reply = await reader.readuntil(b"\r\n")
        if reply[:1] not in b"23":
            record.refused[reply] += 1
            record.progress.set()
            return False
    record.recipients[mark] = to
    data = reference.stuffed(message(mark, octets))
    half = len(data) // 2
    writer.write(data[:half])
    await writer.drain()
    # From here the last octet may have reached the server, whatever we still hear of it.
    record.complete.add(mark)
    writer.write(data[half:])
    await writer.drain()
    reply = await reader.readuntil(b"\r\n")
    if not reply.startswith(b"250"):
        record.refused[reply] += 1
        record.progress.set()
        return not reply.startswith(b"421")
    record.acknowledged.add(mark)
    record.promised[mark] = record.clock()
    record.progress.set()
    return True


async def collect(appliance: Appliance, record: Record, account: str) -> None:
    """A client that deletes a few messages in each of its sessions, until the server is gone."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(appliance.host, POP3_PORT)
        except OSError:
            return
        try:
            await _collect_once(reader, writer, record, account)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.transport.abort()


class NotNow(ConnectionError):
    """The server has refused a command, and said so: the session is given up."""


async def persist(attempt: Callable[[], Coroutine[None, None, None]]) -> None:
    """Begin anew, a moment later, whenever a client has given up: as those do that people use."""
    while True:
        await attempt()
        await asyncio.sleep(0.02)


async def _collect_once(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: Record, account: str
) -> None:
    async def ask(command: str) -> bytes:
        writer.write(command.encode() + b"\r\n")
        reply = await reader.readuntil(b"\r\n")
        if not reply.startswith(b"+OK"):
            record.refused[reply] += 1
            record.progress.set()
            raise NotNow(reply)
        return reply

    await reader.readuntil(b"\r\n")
    await ask(f"USER {account}")
    await ask(f"PASS {PASSWORD}")
    count = int((await ask("STAT")).split()[1])
    marks = set()
    for number in range(1, min(count, 5) + 1):
        unique_id = (await ask(f"UIDL {number}")).split()[2].decode()
        await ask(f"TOP {number} 0")
        head = await reader.readuntil(b"\r\n.\r\n")
        mark = head.partition(b"\r\nMessage-ID: <")[2].partition(b">")[0].decode()
        assert record.unique_ids.setdefault(unique_id, mark) == mark, "a unique-id was given twice"
        assert mark not in record.removed, "a deleted message came back"
        marks.add(mark)
        await ask(f"DELE {number}")
    record.undecided.append(marks)
    record.quits.append(Quit(frozenset(marks), record.clock()))
    record.sessions += 1
    record.progress.set()
    await ask("QUIT")
    record.undecided.remove(marks)
    record.removed |= marks
    record.quits[-1].heard = record.clock()


def check_maildrops(appliance: Appliance, record: Record, accounts: Sequence[str], collected: str) -> None:
    """Every acknowledged message is there once and whole, nothing is there in part, and counters fit.

    `collected` is the account whose mail the collecting client took.
    """
    for account in (*accounts, collected):
        session = appliance.pop3(account)
        count, octets = session.stat()
        messages = [retrieved(session, number) for number in range(1, count + 1)]
        session.quit()
        found = Counter(mark_of(each) for each in messages)
        assert {mark: times for mark, times in found.items() if times > 1} == {}
        addressed = {mark for mark, to in record.recipients.items() if account in to}
        removed = _removed(record, found.keys()) if account == collected else set()
        assert found.keys() & removed == set()
        assert (record.acknowledged & addressed) - removed - found.keys() == set()
        assert found.keys() - (record.complete & addressed) == set()
        assert octets == sum(map(len, messages))
    assert appliance.findings() == []


def _removed(record: Record, found: Collection[str]) -> set[str]:
    """What the collecting client has removed, and what it may have: each session's all, or none."""
    removed = set(record.removed)
    for marks in record.undecided:
        left = {mark for mark in marks if mark in found}
        assert left in (set(), marks), "a QUIT that was not answered removed a part"
        removed |= marks - left
    return removed
