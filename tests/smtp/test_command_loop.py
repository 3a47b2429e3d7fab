"""The command loop without a socket: any octets, any cuts, one reply a command and in order."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailstack import delivery
from mailstack.smtp import replies
from mailstack.smtp.session import LMTP_VERBS, VERBS
from tests.smtp.doubles import Connection

REPLY = re.compile(rb"(?:(\d\d\d)-[ -~]*\r\n)*(\d\d\d) [ -~]+\r\n")
ENHANCED = re.compile(rb"([245])\d\d[ -]\1\.\d{1,3}\.\d{1,3} ")

common = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=150)


def runs(coroutine):
    with asyncio.Runner() as runner:
        return runner.run(coroutine)


# -- input that is nearly right, and input that is not ------------------------------------------------

# These talk in memory, where nobody can shake hands.
verbs = st.sampled_from(sorted({*VERBS, *LMTP_VERBS} - {b"STARTTLS"}))
words = st.sampled_from(
    [
        *(
            b"FROM:<eve@example.net>",
            b"TO:<fast@x>",
            b"TO:<slow@x>",
            b"TO:<full@x>",
            b"TO:<none@x>",
            b"TO:<>",
        ),
        *(b"client.example", b"FROM:<>", b"SIZE=10", b"SIZE=999999999", b"BODY=8BITMIME", b"SMTPUTF8"),
        *(b"0", b"1", b"7", b"-1", b"LAST", b"TO:<Postmaster>", "FROM:<ü@x>".encode(), b"A=B", b"<"),
    ]
)
arguments = st.lists(words | st.binary(max_size=12), max_size=4).map(b" ".join)
likely = st.sampled_from(
    [
        b"EHLO client.example",
        b"MAIL FROM:<eve@example.net>",
        b"RCPT TO:<fast@x>",
        b"RCPT TO:<slow@x>",
        b"DATA",
        b".",
        b"..x",
        b"BDAT 3\r\nab",
        b"BDAT 0 LAST",
        b"BDAT 2 LAST",
        b"RSET",
        b"NOOP",
        b"Subject: x",
    ]
)
lines = st.one_of(
    likely,
    st.builds(lambda verb, argument: verb + b" " + argument if argument else verb, verbs, arguments),
    st.binary(max_size=40),
)
streams = st.lists(st.tuples(lines, st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b""])), max_size=25).map(
    lambda pairs: b"".join(line + end for line, end in pairs)
)


@common
@given(streams, st.booleans())
def test_any_octets_get_replies_and_nothing_else(stream: bytes, lmtp: bool) -> None:
    async def talk() -> bytes:
        connection = Connection(lmtp=lmtp)
        await connection.feed(stream)
        connection.receiver.eof_received()
        await connection.settled()
        connection.receiver.connection_lost(None)
        assert not connection.reception.connections
        return connection.transport.said

    greeting, *said = whole_replies(runs(talk()))
    assert greeting.startswith(b"220 ")
    for reply in said:
        assert ENHANCED.match(reply) or reply.startswith(
            (b"354 ", b"250 mx.example.org", b"250-mx.example.org")
        )


@common
@given(streams, st.lists(st.integers(1, 30), min_size=1))
def test_the_cut_makes_no_difference(stream: bytes, sizes: list[int]) -> None:
    async def talk(pieces: list[bytes]) -> tuple[bytes, list[bytes], bool]:
        connection = Connection()
        for piece in pieces:
            await connection.feed(piece)
        return without_ids(connection.transport.said), connection.deposits.contents, connection.transport.over

    def cut() -> list[bytes]:
        pieces, at, turn = [], 0, 0
        while at < len(stream):
            pieces.append(stream[at : at + sizes[turn % len(sizes)]])
            at, turn = at + len(pieces[-1]), turn + 1
        return pieces

    said, contents, over = runs(talk([stream]))
    said_in_pieces, contents_in_pieces, over_in_pieces = runs(talk(cut()))
    assert said_in_pieces == said
    assert over_in_pieces == over
    assert [without_ids(c) for c in contents_in_pieces] == [without_ids(c) for c in contents]


@common
@given(st.lists(lines.filter(lambda line: b"\r\n" not in line), max_size=20))
def test_one_reply_a_command(commands: list[bytes]) -> None:
    async def talk() -> None:
        connection = Connection()
        for command in commands:
            over = connection.transport.over
            said = await connection.feed(command + b"\r\n")
            conversation = connection.receiver.conversation
            if conversation.wants_content and said:
                assert whole_replies(said) == [replies.GO_AHEAD]
                said = await connection.feed(b"x\r\n.\r\n")
            elif conversation.wants_content:
                missing = conversation.content._framing.missing
                if missing > 1_000_000:
                    return
                said = await connection.feed(b"x" * missing)
            assert len(whole_replies(said)) == (0 if over else 1)

    runs(talk())


def whole_replies(said: bytes) -> list[bytes]:
    """The replies; fails where something else is between them."""
    found = [match[0] for match in REPLY.finditer(said)]
    assert b"".join(found) == said
    for reply in found:
        assert len({line[:3] for line in reply.splitlines()}) == 1
    return found


def without_ids(octets: bytes) -> bytes:
    octets = re.sub(rb"[a-z2-7]{8}-\d+", b"(id)", octets)
    return re.sub(rb"\w{3}, \d+ \w{3} \d{4} [\d:]{8} \+0000", b"(date)", octets)


# -- work that must not grow faster than its input ----------------------------------------------------


async def test_many_small_chunks_in_one_segment_cost_no_more_than_their_octets():
    connection = Connection()
    await connection.feed(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<fast@x>\r\n")
    assert connection.reception.site.settings.max_commands < 28_000
    began = time.thread_time()
    said = await connection.feed(b"BDAT 1\r\nx" * 28_000)
    assert said.count(b"250 2.0.0 ") == 28_000
    assert time.thread_time() - began < 2.0, "it is 0.2 s where chunks are not copied, and 3 s where they are"


SHAPES = {
    "no line end at all": b"x" * 65_536,
    "one octet a line": b"a\r\n" * 21_845,
    "one octet a header field": b"a:\r\n" * 16_384,
    "one field of many lines": b" \r\n" * 21_845,
    "dots": b"..\r\n" * 16_384,
    "bare newlines": b"\r\n\n\r\r" * 13_107,
    "the end but for its last octet": b"\r\n.\r" * 16_384,
    "fields to take away": (b"Return-Path: <%s>\r\n" % (b"x" * 500)) * 126,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_content_of_any_shape_is_bounded_in_memory_and_in_time(shape: str, tmp_path, monkeypatch) -> None:
    """8 MiB come in: memory holds one part of them, and no segment stops the loop for long."""
    monkeypatch.setattr(delivery, "_ROOM_OCTETS", 0)  # others have what all messages share

    async def talk() -> float:
        connection = Connection(spool_dir=tmp_path, max_message_octets=50_000_000)
        await connection.feed(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<fast@x>\r\nDATA\r\n")
        slowest = 0.0
        for _ in range(128):
            began = time.thread_time()
            connection.receiver.data_received(SHAPES[shape])
            slowest = max(slowest, time.thread_time() - began)
            await connection.settled()
        assert not connection.transport.said.endswith(b"delivered\r\n")
        held = tracemalloc.get_traced_memory()[1]
        assert held < 4 * 1024 * 1024, f"{held} octets of memory"
        connection.receiver.connection_lost(None)
        return slowest

    tracemalloc.start()
    try:
        assert runs(talk()) < 0.5
    finally:
        tracemalloc.stop()


async def test_a_megabyte_without_an_end_is_not_kept():
    connection = Connection()
    for _ in range(16):
        await connection.feed(b"x" * 65_536)
    assert connection.transport.said.endswith(b"500 5.5.2 the command line is too long\r\n")
    assert connection.transport.over
    assert not connection.receiver._input


@pytest.mark.parametrize(
    ("octets", "deposits"),
    [
        (b"x\r\n.\r\n", 1),
        (b"x" * 100_001 + b"\r\n.\r\n", 0),  # too large
        (None, 0),  # the connection is lost
    ],
)
async def test_the_store_knows_who_is_sending_content(octets: bytes | None, deposits: int):
    connection = Connection()
    coming, at_deposit = connection.deposits.coming, []
    connection.deposits.on_deposit = lambda: at_deposit.append(len(coming))
    await connection.feed(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<fast@x>\r\n")
    assert not coming
    await connection.feed(b"DATA\r\n")
    assert len(coming) == 1
    if octets is None:
        connection.receiver.connection_lost(None)
    else:
        await connection.feed(octets)
    assert not coming
    assert at_deposit == [0] * deposits, "it comes no more once it is there"


async def test_a_chunk_that_nobody_could_take_is_not_obeyed(monkeypatch):
    connection = Connection()
    await connection.feed(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<fast@x>\r\n")

    def fails(*_arguments: object) -> None:
        raise RuntimeError("no space for it")

    monkeypatch.setattr(connection.reception.site.delivery, "begin", fails)
    said = await connection.feed(b"BDAT 22 LAST\r\nRSET\r\nMAIL FROM:<a@b>\r\nNOOP\r\n")
    assert said == b"451 4.3.0 local error, try again\r\n"
    assert connection.transport.over


async def test_octets_between_starttls_and_the_handshake_are_never_obeyed():
    connection = Connection(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    connection.receiver.data_received(b"EHLO x\r\nSTARTTLS\r\n")
    assert connection.transport.reading_paused
    connection.receiver.data_received(b"MAIL FROM:<eve@example.net>\r\n")  # already read by the loop
    await connection.settled()
    assert connection.transport.said.endswith(b"220 2.0.0 ready to start TLS\r\n")
    assert connection.transport.closing
    assert not connection.reception.connections


async def test_many_commands_are_obeyed_some_at_a_time_and_others_come_in_between():
    connection = Connection(max_commands=1000)
    others: list[int] = []
    connection.receiver.data_received(b"NOOP\r\n" * 300)
    while connection.receiver._awaiting:
        assert connection.transport.reading_paused
        others.append(connection.transport.said.count(b"250 2.0.0 ok\r\n"))
        await asyncio.sleep(0)
    assert others == [64, 128, 192, 256]
    assert connection.transport.said.count(b"250 2.0.0 ok\r\n") == 300
    assert not connection.transport.reading_paused


async def test_behind_much_content_others_come_first():
    connection = Connection()
    await connection.feed(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<fast@x>\r\nDATA\r\n")
    connection.receiver.data_received(b"x" * 65_537)
    assert connection.transport.reading_paused
    await connection.settled()
    assert not connection.transport.reading_paused
