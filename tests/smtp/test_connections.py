"""What the wire does to a session: lost peers, stopping servers, too many peers."""

from __future__ import annotations

import asyncio

import pytest

from mailstack.errors import StoreBusy, StoreFull, StoreUnavailable
from mailstack.smtp import listener
from mailstack.smtp.receiver import Stopping
from tests.smtp.doubles import Connection
from tests.smtp.rig import Gate


class Segments(asyncio.Protocol):
    """A peer that remembers what came with each read."""

    def __init__(self) -> None:
        self.came: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.came.append(data)


# -- the end of a connection while a reply is owed ---------------------------------------------------


@pytest.mark.parametrize("under_tls", [False, True])
async def test_a_deposit_goes_on_when_the_peer_is_gone(start, tls, under_tls):
    async with start(tls=tls) as rig:
        gate = Gate(rig)
        peer = await (rig.connect_under_tls() if under_tls else rig.connect())
        await gate.hold(peer)
        peer.reset()
        await rig.until(lambda: not rig.listener.sessions)
        gate.open()
        await rig.until(lambda: not rig.reception.tasks)
        assert len(await rig.mail("jones")) == 1


@pytest.mark.parametrize("end", [b".\r\n", b".\r\nQUIT\r\n", b".\r\nNOOP\r\nMAIL FROM:<>\r\nQUIT\r\n"])
@pytest.mark.parametrize("under_tls", [False, True])
async def test_a_peer_that_half_closed_gets_the_replies_it_is_owed(start, tls, under_tls, end):
    async with start(tls=tls) as rig:
        gate = Gate(rig)
        peer = await (rig.connect_under_tls() if under_tls else rig.connect())
        await peer.trio()
        await peer.reply(b"DATA")
        peer.send(b"x\r\n" + end)
        peer.half_close()
        await gate.reached.wait()
        await asyncio.sleep(0.02)
        gate.open()
        replies = (await peer.rest()).splitlines()
        assert [reply[:3] for reply in replies] == {
            1: [b"250"],
            2: [b"250", b"221"],
            4: [b"250", b"250", b"250", b"221"],
        }[end.count(b"\r\n")]
        assert len(await rig.mail("jones")) == 1


async def test_a_stopping_server_finishes_what_is_under_way_and_says_why_to_the_others(start):
    async with start() as rig:
        gate = Gate(rig)
        idle, busy = await rig.connect(), await rig.connect()
        await gate.hold(busy)
        rig.listener.close()
        stopping = asyncio.create_task(rig.listener.drain(5.0))
        assert await idle.rest() == b"421 4.3.2 the server is stopping, try again\r\n"
        gate.open()
        assert (await busy.one_reply()).startswith(b"250 2.0.0 ")
        assert (await busy.rest()).startswith(b"421 4.3.2 ")
        await stopping
        assert len(await rig.mail("jones")) == 1


async def test_a_stopping_server_ends_each_connection_right_behind_its_last_reply():
    busy = Connection()
    trio = b"EHLO a\r\nMAIL FROM:<eve@example.net>\r\nRCPT TO:<fast@example.org>\r\n"
    assert (await busy.feed(trio)).endswith(b"250 2.1.5 recipient ok\r\n")
    busy.reception.stopping = Stopping.PATIENT
    assert (await busy.feed(b"NOOP\r\n")).startswith(b"250 "), "it has begun a transaction"
    assert not busy.transport.over
    assert (await busy.feed(b"RSET\r\n")).startswith(b"250 ")
    assert busy.transport.said.endswith(b"\r\n421 4.3.2 the server is stopping, try again\r\n")
    assert busy.transport.over


async def test_a_stopping_server_has_no_patience_with_whoever_only_began(start, monkeypatch):
    monkeypatch.setattr(listener, "_TRANSACTION_SECONDS", 0.05)
    async with start() as rig:
        begun = await rig.connect()
        await begun.trio()
        rig.listener.close()
        stopping = asyncio.create_task(rig.listener.drain(5.0))
        assert await begun.rest() == b"421 4.3.2 the server is stopping, try again\r\n"
        async with asyncio.timeout(2.0):
            await stopping


async def test_a_stopping_server_waits_within_its_bound_for_a_store_that_does_not_answer(start):
    """The sender hears that it is to come back, and the deposit ends when the store does."""
    async with start() as rig:
        gate = Gate(rig)
        busy = await rig.connect()
        await gate.hold(busy)
        rig.listener.close()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await rig.listener.drain(2.0)
        assert loop.time() - began < 3.9, "once, not once more for what nobody is told"
        assert (await busy.rest()).startswith(b"421 4.3.2 ")
        gate.open()
        await rig.until(lambda: not rig.reception.tasks)
        assert len(await rig.mail("jones")) == 1


# -- replies and segments ----------------------------------------------------------------------------


async def test_the_replies_of_one_segment_leave_in_one_write(start):
    async with start() as rig:
        first = await rig.connect()
        await first.trio()  # the route of jones is known from now on
        loop = asyncio.get_running_loop()
        transport, segments = await loop.create_connection(Segments, *rig.address)
        await rig.until(lambda: len(segments.came) == 1)
        transport.write(
            b"HELO client.example\r\nMAIL FROM:<eve@example.net>\r\nRCPT TO:<jones@example.org>\r\n"
            b"RCPT TO:<@>\r\nDATA\r\n"
        )
        await rig.until(lambda: len(segments.came) == 2)
        assert [line[:3] for line in segments.came[1].splitlines()] == [
            b"250",
            b"250",
            b"250",
            b"501",
            b"354",
        ]
        transport.close()


async def test_what_waits_while_a_reply_is_awaited_is_bounded(start):
    async with start(max_commands=200_000) as rig:
        gate = Gate(rig)
        peer = await rig.connect()
        await gate.hold(peer, b".\r\n" + b"NOOP\r\n" * 100_000)
        await asyncio.sleep(0.1)
        (connection,) = rig.reception.connections
        assert len(connection._input) < 1_000_000
        gate.open()
        assert (await peer.one_reply()).startswith(b"250 2.0.0 ")
        for _ in range(100_000):
            assert (await peer.reader.readuntil(b"\r\n")) == b"250 2.0.0 ok\r\n"


async def test_a_thousand_recipients_and_not_one_more(start):
    async with start() as rig:
        peer = await rig.connect()
        await peer.trio()
        peer.send(b"RCPT TO:<jones@example.org>\r\n" * 999)
        for _ in range(999):
            assert (await peer.one_reply()).startswith(b"250 2.1.5 ")
        # More of them than a session may have mistakes: whoever sends to a large list has made none.
        peer.send(b"RCPT TO:<mrose@example.org>\r\n" * 60)
        for _ in range(60):
            assert (await peer.one_reply()).startswith(b"452 4.5.3 ")
        assert (await peer.reply(b"DATA")).startswith(b"354 ")
        assert (await peer.reply(b"x\r\n.")).startswith(b"250 2.0.0 ")
        assert len(await rig.mail("jones")) == 1
        assert await rig.mail("mrose") == []


# -- limits and failures -----------------------------------------------------------------------------


async def test_too_many_connections(start):
    async with start(max_connections=2) as rig:
        first, second = await rig.connect(), await rig.connect()
        refused = await rig.connect(greeted=False)
        assert await refused.rest() == b"421 4.7.0 too many connections, try again later\r\n"
        assert (await first.reply(b"NOOP")).startswith(b"250 ")
        await first.reply(b"QUIT")
        await rig.until(lambda: rig.listener.sessions == 1)
        third = await rig.connect()
        assert (await third.reply(b"NOOP")).startswith(b"250 ")
        assert (await second.reply(b"NOOP")).startswith(b"250 ")


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (StoreFull("/var/lib is full"), b"452 4.3.1 "),
        (StoreBusy("64 MiB"), b"452 4.3.1 "),
        (StoreUnavailable("sqlite3: locked"), b"451 4.3.0 "),
        (RuntimeError("SELECT password FROM account"), b"451 4.3.0 local error, try again\r\n"),
    ],
)
async def test_failures_at_rcpt_and_at_the_end_of_data_are_temporary_and_tell_nothing(start, error, reply):
    async def fails(*_arguments, **_options):
        raise error

    async with start() as rig:
        peer = await rig.connect()
        await peer.trio()
        rig.store.read_at_once = lambda *_: None
        rig.store.read = rig.store.deposit = fails
        said = await peer.reply(b"RCPT TO:<mrose@example.org>")
        assert said.startswith(reply)
        assert str(error).encode() not in said
        await peer.reply(b"DATA")
        said = await peer.reply(b".")
        assert said.startswith(reply)
        assert str(error).encode() not in said
        del rig.store.read_at_once, rig.store.read, rig.store.deposit
        await peer.trio()


async def test_bare_newlines_may_be_refused_instead(start):
    async with start(reject_bare_newlines=True) as rig:
        peer = await rig.connect()
        for content, reply in (
            (b"one\ntwo\r\n", b"550 5.6.0 "),
            (b"one\rtwo\r\n", b"550 5.6.0 "),
            (b"one\r\ntwo\r\n", b"250 2.0.0 "),
        ):
            await peer.trio()
            await peer.reply(b"DATA")
            assert (await peer.reply(content + b".")).startswith(reply)
        assert len(await rig.mail("jones")) == 1


async def test_the_session_goes_on_when_the_spool_cannot_be_written(start):
    async with start() as rig:
        peer = await rig.connect()
        await peer.trio()
        await peer.reply(b"DATA")
        delivery = rig.reception.site.delivery
        delivery._spool_dir, delivery._room.parts = rig.directory / "gone", 0
        await peer.reply(b"x\r\n.")
        await peer.trio()
        await peer.reply(b"DATA")
        assert (await peer.reply(b"x" * 600_000 + b"\r\n.")).startswith(b"451 4.3.0 ")
        assert (await peer.reply(b"NOOP")).startswith(b"250 ")


# -- TLS ---------------------------------------------------------------------------------------------


async def test_a_handshake_that_fails_leaves_no_connection_behind(start, tls):
    async with start(tls=tls) as rig:
        peer = await rig.connect()
        await peer.reply(b"EHLO client.example")
        await peer.reply(b"STARTTLS")
        peer.send(b"EHLO in the clear\r\n")
        alert = await peer.rest()
        assert b"250" not in alert
        await rig.until(lambda: not rig.listener.sessions)


async def test_a_peer_that_leaves_in_the_handshake_leaves_no_connection_behind(start, tls):
    async with start(tls=tls) as rig:
        peer = await rig.connect()
        await peer.reply(b"EHLO client.example")
        await peer.reply(b"STARTTLS")
        peer.reset()
        await rig.until(lambda: not rig.listener.sessions and not rig.reception.tasks)


async def test_a_large_message_under_tls(start, tls):
    async with start(tls=tls) as rig:
        peer = await rig.connect_under_tls()
        await peer.trio()
        await peer.reply(b"DATA")
        body = b"".join(b"%06d %s\r\n" % (n, b"y" * 60) for n in range(14_000))
        assert (await peer.reply(body + b".")).startswith(b"250 2.0.0 ")
        (found,) = await rig.mail("jones")
        assert found.endswith(b"\r\n" + body)


# -- LMTP --------------------------------------------------------------------------------------------


async def test_lmtp_on_a_unix_socket(start):
    async with start(lmtp=True, unix=True) as rig:
        peer = await rig.connect(greeted=False)
        assert await peer.line() == b"220 mx.example.org LMTP mailstack\r\n"
        await peer.reply(b"LHLO localhost")
        await peer.reply(b"MAIL FROM:<>")
        await peer.reply(b"RCPT TO:<jones@example.org>")
        await peer.reply(b"RCPT TO:<mrose@example.org>")
        await peer.reply(b"DATA")
        peer.send(b"x\r\n.\r\n")
        assert (await peer.one_reply()).startswith(b"250 2.0.0 ")
        assert (await peer.one_reply()).startswith(b"250 2.0.0 ")
        (found,) = await rig.mail("mrose")
        assert b"\r\nReceived: from localhost by mx.example.org with LMTP" in found
