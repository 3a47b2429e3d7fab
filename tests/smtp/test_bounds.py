"""What a peer may have of us: connections, commands, time and space; and what it hears beyond."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from mailstack.mail.address import parse_mailbox
from mailstack.smtp.listener import Listener
from mailstack.store import aliases
from tests.smtp.doubles import Connection
from tests.smtp.rig import Peer, Rig

FROM_THERE = b"421 4.7.0 too many connections from your address or network, try again later\r\n"


# -- commands ----------------------------------------------------------------------------------------


async def test_commands_that_lead_nowhere_end_the_session():
    connection = Connection(max_commands=20)
    assert await connection.feed(b"NOOP\r\n" * 20) == b"250 2.0.0 ok\r\n" * 20
    assert await connection.feed(b"NOOP\r\n" * 20) == b"421 4.7.0 too many commands, goodbye\r\n"
    assert connection.transport.over


async def test_messages_begin_the_count_anew_and_chunks_are_not_counted():
    connection = Connection(max_commands=20)
    for _ in range(10):
        await connection.feed(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<fast@x>\r\n" + b"BDAT 1\r\nx" * 30)
        assert (await connection.feed(b"BDAT 0 LAST\r\n")).startswith(b"250 2.0.0 ")
    assert len(connection.deposits.contents) == 10


async def test_chunks_of_nothing_are_counted():
    connection = Connection(max_commands=20)
    await connection.feed(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<fast@x>\r\n")
    said = await connection.feed(b"BDAT 0\r\n" * 100)
    assert said.count(b"\r\n") == 18
    assert said.endswith(b"421 4.7.0 too many commands, goodbye\r\n")


async def test_errors_end_the_session():
    connection = Connection(max_errors=3)
    assert (await connection.feed(b"FOO\r\n" * 9)).splitlines()[3:] == [b"421 4.7.0 too many errors, goodbye"]


async def test_recipients_are_limited_and_the_limit_is_announced():
    connection = Connection(max_recipients=100)
    assert b"250-LIMITS RCPTMAX=100\r\n" in await connection.feed(b"EHLO x\r\n")
    await connection.feed(b"MAIL FROM:<>\r\n" + b"RCPT TO:<fast@x>\r\n" * 100)
    assert (await connection.feed(b"RCPT TO:<fast@x>\r\n")).startswith(b"452 4.5.3 ")


async def test_each_of_many_refused_recipients_is_counted():
    connection = Connection()
    before = connection.deposits.counts["recipients_refused:452"]
    await connection.feed(b"EHLO x\r\nMAIL FROM:<>\r\n" + b"RCPT TO:<full@x>\r\n" * 250 + b"RSET\r\n")
    assert connection.transport.said.count(b"\r\n452 ") == 250
    assert connection.deposits.counts["recipients_refused:452"] - before == 250


# -- time --------------------------------------------------------------------------------------------


async def test_content_that_trickles_is_cut_off(start):
    async with start(idle_seconds=0.4, min_octets_per_second=100) as rig:
        peer = await begun(rig, b"DATA\r\n")
        cut_off = asyncio.create_task(peer.rest())
        while not cut_off.done():
            peer.send(b"x")
            await asyncio.sleep(0.05)
        assert cut_off.result() == b"421 4.4.2 the content of the message takes too long, goodbye\r\n"
        assert await rig.mail("jones") == []
        assert not rig.reception.site.delivery.flight.octets


async def test_chunks_that_trickle_are_cut_off(start):
    async with start(idle_seconds=0.4, min_octets_per_second=100) as rig:
        peer = await begun(rig, b"BDAT 1\r\nx")
        assert (await peer.one_reply()).startswith(b"250 2.0.0 ")
        said = b"250 2.0.0 chunk received\r\n"
        while said == b"250 2.0.0 chunk received\r\n":
            peer.send(b"BDAT 1\r\nx")
            said = await peer.one_reply()
            await asyncio.sleep(0.05)
        assert said.startswith(b"421 4.4.2 ")


async def test_a_slow_line_is_borne_with(start):
    async with start(idle_seconds=0.3, min_octets_per_second=100) as rig:
        peer = await begun(rig, b"DATA\r\n")
        for _ in range(20):
            peer.send(b"Ten octets" * 2)
            await asyncio.sleep(0.05)
        assert (await peer.reply(b"\r\n.")).startswith(b"250 2.0.0 ")


async def test_one_slow_message_after_the_other_each_has_its_own_time(start):
    async with start(idle_seconds=0.3, min_octets_per_second=1000) as rig:
        peer = await rig.connect()
        for _ in range(4):
            await peer.trio()
            await peer.reply(b"DATA")
            await asyncio.sleep(0.2)
            assert (await peer.reply(b"x\r\n.")).startswith(b"250 2.0.0 ")
        assert len(await rig.mail("jones")) == 4


async def test_content_that_takes_too_long_in_all_is_cut_off_however_fast_it_comes(start):
    async with start(max_data_seconds=0.4) as rig:
        peer = await begun(rig, b"DATA\r\n")
        cut_off = asyncio.create_task(peer.rest())
        while not cut_off.done():
            peer.send(b"x" * 10_000 + b"\r\n")
            await asyncio.sleep(0.01)
        assert cut_off.result().startswith(b"421 4.4.2 ")


async def test_who_is_cut_off_within_the_content_is_listened_to_until_it_ends():
    connection = await sending(max_data_seconds=1)
    receiver, transport, now = connection.receiver, connection.transport, asyncio.get_running_loop().time()
    for seconds in range(0, 20, 5):
        receiver.look_at_clock(now + seconds)
    receiver.pause_writing()
    receiver.resume_writing()
    assert transport.said.count(b"421 4.4.2 the content of the message takes too long") == 1
    assert transport.ended
    assert not transport.closing, "a reset would overtake what was said"
    receiver.eof_received()
    assert transport.closing


async def test_a_session_goes_on_by_the_times_that_it_began_with():
    connection = await sending(max_data_seconds=600, idle_seconds=300)
    reception, now = connection.reception, asyncio.get_running_loop().time()
    Listener(reception).adopt(replace(reception.site.settings, max_data_seconds=1, idle_seconds=3000))
    for seconds in range(0, 250, 5):
        connection.receiver.look_at_clock(now + seconds)
    assert not connection.transport.over
    assert connection.receiver.silence(now) < 1
    assert Connection(reception=reception).receiver.deadline > now + 2900


async def sending(**limits: Any) -> Connection:
    """A peer within the content of a message."""
    connection = Connection(**limits)
    await connection.feed(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<fast@x>\r\nDATA\r\nx")
    return connection


async def test_chunks_without_a_transaction_are_not_read_for_ever(start):
    async with start(max_data_seconds=0.4) as rig:
        peer = await rig.connect()
        peer.send(b"BDAT 99999999999999999999\r\n")
        cut_off = asyncio.create_task(peer.rest())
        while not cut_off.done():
            peer.send(b"x" * 10_000)
            await asyncio.sleep(0.01)
        assert cut_off.result().startswith(b"421 4.4.2 ")


# -- space -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [b"Subject: x\r\n" * 30_000, b"Subject: " + b"x" * 300_000 + b"\r\n", b"A: b\r\n" + b" c\r\n" * 100_000],
    ids=["many fields", "a long line", "a long field"],
)
@pytest.mark.parametrize("by_chunks", [False, True])
async def test_a_header_has_an_end(start, header, by_chunks):
    async with start() as rig:
        peer = await rig.connect()
        await peer.trio()
        if by_chunks:
            said = await peer.reply(b"BDAT %d LAST\r\n" % (len(header) + 5) + header + b"\r\nx")
        else:
            await peer.reply(b"DATA")
            said = await peer.reply(header + b"\r\nx\r\n.")
        assert said == b"552 5.3.4 the header of the message is too big\r\n"
        await peer.trio()
        await peer.reply(b"DATA")
        assert (await peer.reply(b"Subject: x\r\n\r\n" + header + b".")).startswith(b"250 2.0.0 ")
        assert len(await rig.mail("jones")) == 1


async def test_the_chunk_that_goes_beyond_the_limit_is_read_and_refused(start):
    async with start() as rig:
        peer = await begun(rig, b"BDAT 600000\r\n" + b"x" * 600_000)
        assert (await peer.one_reply()).startswith(b"250 2.0.0 ")
        peer.send(b"BDAT 600000\r\n" + b"x" * 600_000 + b"BDAT 3 LAST\r\nx\r\nNOOP\r\n")
        assert (await peer.one_reply()).startswith(b"552 5.3.4 ")
        assert (await peer.one_reply()).startswith(b"503 5.5.1 ")  # RFC 3030 §2: discarded as it came
        assert (await peer.one_reply()).startswith(b"250 2.0.0 ")
        await peer.trio()
        assert await rig.mail("jones") == []


async def test_octets_of_a_refused_chunk_take_neither_memory_nor_disk(start):
    async with start() as rig:
        peer = await begun(rig, b"BDAT 1000001 LAST\r\n" + b"x" * 700_000)
        (connection,) = rig.reception.connections
        await rig.until(lambda: (read := connection.conversation.content) and read.octets == 700_000)
        assert rig.reception.site.delivery.flight.octets == 0
        peer.send(b"x" * 300_001)
        assert (await peer.one_reply()).startswith(b"552 5.3.4 ")


async def test_all_messages_together_take_no_more_than_they_may(start):
    async with start(max_octets_in_flight=1_000_000) as rig:
        flight = rig.reception.site.delivery.flight
        first = await begun(rig, b"DATA\r\n")
        first.send(b"x" * 899_000)
        await rig.until(lambda: flight.octets >= 899_000)

        other = await rig.connect()
        await other.reply(b"EHLO client.example")
        assert (await other.reply(b"MAIL FROM:<> SIZE=200000")).startswith(b"452 4.3.1 ")
        await other.trio()
        await other.reply(b"DATA")
        assert (await other.reply(b"x" * 200_000 + b"\r\n.")).startswith(b"452 4.3.1 ")
        await other.trio()
        assert (await other.reply(b"BDAT 200000\r\n" + b"x" * 199_998)).startswith(b"452 4.3.1 ")

        assert (await first.reply(b"\r\n.")).startswith(b"250 2.0.0 ")
        assert flight.octets == 0
        await other.trio()
        await other.reply(b"DATA")
        assert (await other.reply(b"x" * 200_000 + b"\r\n.")).startswith(b"250 2.0.0 ")


@pytest.mark.parametrize("how", ["reset", "RSET", "starttls"])
async def test_what_a_lost_message_had_is_given_back(start, how, tls):
    async with start(tls=tls) as rig:
        peer = await begun(rig, b"BDAT 100000\r\nX:" + b"x" * 99_998)
        assert (await peer.one_reply()).startswith(b"250 ")
        flight = rig.reception.site.delivery.flight
        assert flight.octets == 100_000
        if how == "reset":
            peer.reset()
        elif how == "RSET":
            await peer.reply(b"RSET")
        else:
            await peer.reply(b"STARTTLS")
            await peer.start_tls(rig.client_tls)
        await rig.until(lambda: not flight.octets)


async def test_a_full_flight_is_told_before_the_content(start):
    async with start(max_octets_in_flight=1_000_000) as rig:
        peer = await rig.connect()
        await peer.trio()
        rig.reception.site.delivery.flight.octets = 1_000_001
        assert (await peer.reply(b"DATA")).startswith(b"452 4.3.1 ")
        rig.reception.site.delivery.flight.octets = 0
        assert (await peer.reply(b"DATA")).startswith(b"354 ")


async def test_what_mail_announces_has_to_fit_on_the_disk(start):
    async with start() as rig:
        peer = await rig.connect()
        await peer.reply(b"EHLO client.example")
        rig.store.disk._reserve_octets = 1 << 60
        await asyncio.sleep(1.1)  # what was seen of the disk is believed for a second
        assert (await peer.reply(b"MAIL FROM:<eve@example.net> SIZE=1000")).startswith(b"452 4.3.1 ")
        assert (await peer.reply(b"RCPT TO:<jones@example.org>")).startswith(b"503 5.5.1 ")
        rig.store.disk._reserve_octets = 0
        assert (await peer.reply(b"MAIL FROM:<eve@example.net> SIZE=1000")).startswith(b"250 2.1.0 ")
        assert (await peer.reply(b"RCPT TO:<jones@example.org>")).startswith(b"250 2.1.5 ")


async def begun(rig: Rig, commands: bytes) -> Peer:
    """A peer that has sent this behind RCPT; for DATA, the answer to it has been read."""
    peer = await rig.connect()
    await peer.trio()
    peer.send(commands)
    if commands == b"DATA\r\n":
        assert (await peer.one_reply()).startswith(b"354 ")
    return peer


# -- a full maildrop ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over_quota", "reply"),
    [
        ("temporary", b"452 4.2.2 this mailbox is full, try again later\r\n"),
        ("permanent", b"552 5.2.2 this mailbox is full\r\n"),
    ],
)
@pytest.mark.parametrize("lmtp", [False, True])
async def test_a_full_maildrop(start, over_quota, reply, lmtp):
    async with start(over_quota=over_quota, lmtp=lmtp) as rig:
        peer = await rig.connect()
        await peer.reply(b"LHLO x" if lmtp else b"EHLO x")
        await peer.reply(b"MAIL FROM:<eve@example.net> SIZE=6000")
        for _ in range(2):  # looked up, then known
            assert await peer.reply(b"RCPT TO:<full@example.org>") == reply
            assert await peer.reply(b"RCPT TO:<small@example.org>") == reply
            assert (await peer.reply(b"RCPT TO:<team@example.org>")).startswith(b"250 2.1.5 ")


async def at_once(rig: Rig, *recipients: bytes, hello: bytes = b"EHLO x", peers: int = 10) -> list[bytes]:
    """The replies to a message of 4000 octets from so many peers, all beyond RCPT before the first."""
    ready = [await rig.connect() for _ in range(peers)]
    for peer in ready:
        await peer.reply(hello)
        await peer.reply(b"MAIL FROM:<eve@example.net>")
        for recipient in recipients:
            assert (await peer.reply(b"RCPT TO:<" + recipient + b">")).startswith(b"250 2.1.5 ")
        assert (await peer.reply(b"DATA")).startswith(b"354 ")
    for peer in ready:
        peer.send((b"x" * 78 + b"\r\n") * 50 + b".\r\n")
    return [await peer.one_reply() for peer in ready]


async def test_senders_at_once_go_beyond_a_quota_by_one_message(start):
    async with start() as rig:
        said = await at_once(rig, b"small@example.org")
        assert sorted(each[:9] for each in said) == [b"250 2.0.0"] * 2 + [b"452 4.2.2"] * 8
        assert len(await rig.mail("small")) == 2


@pytest.mark.parametrize("lmtp", [False, True])
async def test_what_is_refused_for_one_maildrop_that_got_full_is_stored_for_nobody(start, lmtp):
    async with start(lmtp=lmtp) as rig:
        hello = b"LHLO x" if lmtp else b"EHLO x"
        said = await at_once(rig, b"jones@example.org", b"small@example.org", hello=hello)
        assert len(await rig.mail("small")) == 2
        assert len(await rig.mail("jones")) == [each[:9] for each in said].count(b"250 2.0.0") == 2
        # Their senders come again, and RCPT tells them who it is.
        peer = await rig.connect()
        await peer.reply(hello)
        await peer.reply(b"MAIL FROM:<eve@example.net>")
        assert (await peer.reply(b"RCPT TO:<jones@example.org>")).startswith(b"250 2.1.5 ")
        assert (await peer.reply(b"RCPT TO:<small@example.org>")).startswith(b"452 4.2.2 ")


async def test_mail_for_a_group_fills_a_maildrop_to_twice_its_quota_and_is_lost_for_nobody(start):
    async with start() as rig:
        with rig.store.database.writing() as connection:
            small, jones = (parse_mailbox(f"{each}@example.org") for each in ("small", "jones"))
            aliases.add_alias(connection, parse_mailbox("both@example.org"), [small, jones])
        said = await at_once(rig, b"both@example.org")
        taken = [each[:9] for each in said].count(b"250 2.0.0")
        assert taken == len(await rig.mail("small")) == len(await rig.mail("jones")) == 3
        peer = await rig.connect()
        await peer.reply(b"EHLO x")
        await peer.reply(b"MAIL FROM:<eve@example.net>")
        assert (await peer.reply(b"RCPT TO:<both@example.org>")).startswith(b"452 4.2.2 ")
        assert (await peer.reply(b"RCPT TO:<jones@example.org>")).startswith(b"250 2.1.5 ")
