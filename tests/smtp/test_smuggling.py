"""SMTP smuggling: whatever stands around a dot, one DATA is one message, for us and for who reads it."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from mailstack.mail.lines import canonical
from tests.smtp.doubles import Connection
from tests.smtp.rig import Peer

LINE_ENDS = [b"\r\n", b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n\0", b"\0\r\n", b"\r\0\n", b""]

# For the peer that is tricked these end the data; for us each is content.
FALSE_ENDS = [before + b"." + after for before, after in product(LINE_ENDS, LINE_ENDS)]
FALSE_ENDS = [end for end in dict.fromkeys(FALSE_ENDS) if b"\r\n.\r\n" not in end]

SMUGGLED = (
    b"MAIL FROM:<root@example.org>\r\nRCPT TO:<mrose@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"
)


def all_at_once(stream: bytes) -> list[bytes]:
    return [stream]


def octet_by_octet(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def unstuffed(content: bytes) -> bytes:
    """What RFC 5321 §4.5.2 makes of content on the wire, said as slowly as possible."""
    return b"\r\n".join(line.removeprefix(b".") for line in content.split(b"\r\n"))


async def one_message(peer: Peer, stream: bytes, cut) -> None:
    """Send it; exactly one message must have been accepted."""
    for piece in cut(stream):
        peer.send(piece)
        await asyncio.sleep(0)
    assert (await peer.one_reply()).startswith(b"250 2.0.0 ")
    assert (await peer.reply(b"VRFY still-in-order")).startswith(b"252 ")


def test_the_matrix_is_whole():
    assert len(FALSE_ENDS) > 60
    assert {b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n\0.\r\n", b"\r\n.\n", b"\r\n.\r"} <= set(FALSE_ENDS)


@pytest.mark.parametrize("cut", [all_at_once, octet_by_octet])
async def test_data(start, cut):
    async with start() as rig:
        peer = await rig.connect()
        sent = []
        for end in FALSE_ENDS:
            await peer.trio()
            await peer.reply(b"DATA")
            content = b"Subject: x\r\n\r\nx" + end + SMUGGLED + b"\r\n"
            await one_message(peer, content + b".\r\n", cut)
            sent.append(canonical(unstuffed(content)))
        await check(rig, sent)


@pytest.mark.parametrize("cut", [all_at_once, octet_by_octet])
async def test_bdat(start, cut):
    async with start() as rig:
        peer = await rig.connect()
        sent = []
        for end in [*FALSE_ENDS, b"\r\n.\r\n"]:
            await peer.trio()
            content = b"Subject: x\r\n\r\nx" + end + SMUGGLED + b"\r\n"
            await one_message(peer, b"BDAT %d LAST\r\n" % len(content) + content, cut)
            sent.append(canonical(content))
        await check(rig, sent)


async def check(rig, sent: list[bytes]) -> None:
    """Each message is there once, with no line end that another reader could see and we do not."""
    assert await rig.mail("mrose") == []
    account_id = await rig.account_id("jones")
    found = await rig.mail("jones")
    assert len(found) == len(sent)
    for uid, (message, content) in enumerate(zip(found, sent, strict=True), 1):
        assert message.endswith(b"\r\n" + content)
        assert message.replace(b"\r\n", b"").translate(None, b"\r\n") == message.replace(b"\r\n", b"")
        opened = await rig.store.walk(account_id, uid).open(uid)
        assert opened.dotted == (b"\r\n." in message), "RETR has to know where to stuff"


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n\0.\r\n"])
async def test_every_split_of_a_false_end(start, end):
    stream = b"x" + end + SMUGGLED + b"\r\n.\r\n"
    async with start() as rig:
        peer = await rig.connect()
        for at in range(1, len(end) + 3):
            await peer.trio()
            await peer.reply(b"DATA")
            await one_message(peer, stream, lambda s, at=at: [s[:at], s[at:]])
        assert await rig.mail("mrose") == []
        assert len(await rig.mail("jones")) == len(end) + 2


@pytest.mark.parametrize("by_chunks", [False, True], ids=["data", "bdat"])
async def test_every_split_of_all_false_ends(by_chunks):
    """Segments as the loop hands them over, so that no two of them can arrive as one."""
    connection = Connection()
    await connection.feed(b"EHLO client.example\r\n")
    sent = []
    for end in [*FALSE_ENDS, b"\r\n.\r\n"] if by_chunks else FALSE_ENDS:
        content = b"x" + end + SMUGGLED + b"\r\n"
        begin = b"BDAT %d LAST\r\n" % len(content) if by_chunks else b"DATA\r\n"
        for at in range(len(begin), len(begin) + len(end) + 4):
            await connection.feed(b"MAIL FROM:<eve@example.net>\r\nRCPT TO:<fast@x>\r\n")
            stream = begin + content + (b"" if by_chunks else b".\r\n")
            said = await connection.feed(stream[:at]) + await connection.feed(stream[at:])
            assert [line[:3] for line in said.splitlines()] == ([] if by_chunks else [b"354"]) + [b"250"]
            sent.append(canonical(content if by_chunks else unstuffed(content)))
    assert len(sent) > 400
    for kept, content in zip(connection.deposits.contents, sent, strict=True):
        assert kept.endswith(b"\r\n" + content)
    assert await connection.feed(b"NOOP\r\n") == b"250 2.0.0 ok\r\n"
