"""The trace fields of a message that has come in, whole and exact (RFC 5321 §4.4)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from mailstack.store import story
from tests.smtp.rig import Peer

DATE = rb"(?P<date>\w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d \+0000)"
SPACE = rb"(?: |\r\n +)"


async def delivered(peer: Peer, hello: bytes, *recipients: bytes, parameters: bytes = b"") -> bytes:
    """Send one message; return the id in the reply."""
    await peer.reply(hello)
    await peer.reply(b"MAIL FROM:<eve@example.net>" + parameters)
    for recipient in recipients:
        assert (await peer.reply(b"RCPT TO:<" + recipient + b">")).startswith(b"250 ")
    await peer.reply(b"DATA")
    reply = await peer.reply(b"Subject: x\r\n\r\nx\r\n.")
    assert reply.startswith(b"250 2.0.0 ")
    return reply.split()[2]


def received(message: bytes, *, recipient: bytes) -> re.Match[bytes]:
    """The parts of the Received field, when the fields around it are what they must be."""
    found = re.fullmatch(
        rb"Return-Path: <eve@example\.net>\r\n"
        rb"Delivered-To: %b\r\n"
        rb"Received: from (?P<from>\S+) (?P<seen>\(\S+\))%b"
        rb"by mx\.example\.org%bwith (?P<with>\S+)(?:%b\((?P<tls>[^)]+)\))?%b"
        rb"id (?P<id>[a-z2-7]{8}-\d+)(?:%bfor <(?P<for>[^>]+)>)?;%b%b\r\n"
        rb"Subject: x\r\n\r\nx\r\n" % (re.escape(recipient), *[SPACE] * 6, DATE),
        message,
    )
    assert found, message
    assert max(map(len, message.split(b"\r\n"))) <= 78
    now = datetime.now(UTC)
    assert now - timedelta(minutes=1) < parsedate_to_datetime(found["date"].decode()) <= now
    return found


@pytest.mark.parametrize(
    ("hello", "parameters", "protocol"),
    [
        (b"HELO client.example", b"", b"SMTP"),
        (b"EHLO client.example", b"", b"ESMTP"),
        (b"EHLO client.example", b" SMTPUTF8", b"UTF8SMTP"),
    ],
)
async def test_plain(start, hello, parameters, protocol):
    async with start() as rig:
        peer = await rig.connect()
        mail_id = await delivered(peer, hello, b"jones@example.org", parameters=parameters)
        field = received((await rig.mail("jones"))[0], recipient=b"jones@example.org")
        assert field["from"] == b"client.example"
        assert field["seen"] == b"([127.0.0.1])"
        assert field["with"] == protocol
        assert field["tls"] is None
        assert field["id"] == mail_id
        assert field["for"] == b"jones@example.org"


@pytest.mark.parametrize(
    ("hello", "parameters", "protocol"),
    [
        (b"HELO client.example", b"", b"SMTP"),
        (b"EHLO client.example", b"", b"ESMTPS"),
        (b"EHLO client.example", b" SMTPUTF8", b"UTF8SMTPS"),
    ],
)
async def test_under_tls(start, tls, hello, parameters, protocol):
    async with start(tls=tls) as rig:
        peer = await rig.connect_under_tls()
        await delivered(peer, hello, b"jones@example.org", parameters=parameters)
        field = received((await rig.mail("jones"))[0], recipient=b"jones@example.org")
        assert field["with"] == protocol
        assert field["tls"].startswith(b"TLSv1.3 TLS_")


@pytest.mark.parametrize(("parameters", "protocol"), [(b"", b"LMTP"), (b" SMTPUTF8", b"UTF8LMTP")])
async def test_lmtp(start, parameters, protocol):
    async with start(lmtp=True) as rig:
        peer = await rig.connect()
        await delivered(peer, b"LHLO client.example", b"jones@example.org", parameters=parameters)
        field = received((await rig.mail("jones"))[0], recipient=b"jones@example.org")
        assert field["with"] == protocol


async def test_several_recipients_are_not_named_to_each_other(start):
    async with start() as rig:
        peer = await rig.connect()
        await delivered(peer, b"EHLO client.example", b"jones@example.org", b"mrose@example.org")
        field = received((await rig.mail("jones"))[0], recipient=b"jones@example.org")
        assert field["for"] is None
        assert b"mrose" not in field[0]
        assert b"jones" not in (await rig.mail("mrose"))[0]


async def test_who_was_removed_behind_rcpt_is_no_recipient_of_the_mail(start):  # RFC 2033 §4.2
    async with start(lmtp=True) as rig:
        peer = await rig.connect()
        for line in (b"LHLO a", b"MAIL FROM:<eve@example.net>", b"RCPT TO:<jones@example.org>"):
            await peer.reply(line)
        await peer.reply(b"RCPT TO:<mrose@example.org>")
        await rig.remove("mrose")
        await peer.reply(b"DATA")
        assert (await peer.reply(b"Subject: x\r\n\r\nx\r\n.")).startswith(b"250 ")
        assert (await peer.one_reply()).startswith(b"550 5.1.1 ")
        await rig.store.journal.flush()
        accepted, refused = (await rig.store.read(story.find, "eve@example.net", 0)).events
        assert accepted.told["forward_paths"] == ["jones@example.org"]
        assert refused.told["refused"] == [["mrose@example.org", "550 5.1.1 no such mailbox here"]]


async def test_each_message_of_a_session_has_its_own_id(start):
    async with start() as rig:
        peer = await rig.connect()
        ids = [await delivered(peer, b"EHLO client.example", b"jones@example.org") for _ in range(3)]
        assert len(set(ids)) == 3
        assert len({mail_id.partition(b"-")[0] for mail_id in ids}) == 1


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (b"[192.0.2.7]", b"[192.0.2.7]"),
        (b"[IPv6:2001:db8::1]", b"[IPv6:2001:db8::1]"),
        ("bücher.example".encode(), b"xn--bcher-kva.example"),
        (b"under_score.example", b"under_score.example"),
        (b"rooted.example.", b"rooted.example"),
    ],
)
async def test_what_the_peer_calls_itself(start, said, written):
    async with start() as rig:
        peer = await rig.connect()
        await delivered(peer, b"EHLO " + said, b"jones@example.org")
        assert received((await rig.mail("jones"))[0], recipient=b"jones@example.org")["from"] == written


@pytest.mark.parametrize("asked", ["127.0.0.1", "::ffff:127.0.0.1"])
async def test_who_comes_by_ipv4_to_a_socket_for_both_is_written_down_by_ipv4(start, asked):
    async with start(dual_stack=True) as rig:
        peer = await rig.connect()
        await delivered(peer, b"EHLO client.example", b"jones@example.org")
        field = received((await rig.mail("jones"))[0], recipient=b"jones@example.org")
        assert field["seen"] == b"([127.0.0.1])"
        found = await rig.store.read(story.find, asked, 0)
        assert [event.told["address"] for event in found.events] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("default_domain", "written"),
    [("example.org", b"PostMaster@example.org"), (None, b"PostMaster@mx.example.org")],
)
async def test_a_bare_postmaster_is_written_as_an_address_that_is_taken(start, default_domain, written):
    async with start(default_domain=default_domain) as rig:
        peer = await rig.connect()
        await delivered(peer, b"EHLO client.example", b"PostMaster")
        await delivered(peer, b"EHLO client.example", written)
        for message in await rig.mail("mrose"):
            assert received(message, recipient=written)["for"] == written
