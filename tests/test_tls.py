"""The TLS of a session: what is received and sent, how it ends, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailstack import tls
from tests.support.tls_pair import KIB, Pair

PATIENCE = 10.0
SECRET_SIZES = st.lists(st.integers(1, 40 * KIB), min_size=1, max_size=5)


@pytest.fixture
def pair(server_context, client_context) -> Callable[[], Pair]:
    """Makes one, in a running loop."""
    return lambda: Pair(server_context, client_context)


# -- octets --------------------------------------------------------------------------------------


@given(
    sizes=SECRET_SIZES,
    cuts=st.lists(st.integers(1, 50 * KIB), min_size=1, max_size=6),
    pauses=st.sets(st.integers(0, 8)),
    ends=st.sampled_from(["close_notify", "eof", "both"]),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_received_depends_neither_on_packets_nor_on_pauses(pair, sizes, cuts, pauses, ends):
    async def run() -> None:
        it = pair()
        texts = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
        begins = len(texts) % 2  # in the packet with which the handshake ends
        await it.shake_hands(and_say=b"".join(texts[:begins]))
        calls = 0

        def pause_sometimes() -> None:
            nonlocal calls
            if calls in pauses:
                it.tls.pause_reading()
                assert not it.plain.reading
                asyncio.get_running_loop().call_later(0, it.tls.resume_reading)
            calls += 1

        it.session.on_data = pause_sometimes
        it.tls.resume_reading()
        for text in texts[begins:]:
            it.client.write(text)
        if ends != "eof":
            with contextlib.suppress(ssl.SSLWantReadError):
                it.client.unwrap()
        sent, at = it.said(), 0
        for cut in [*cuts, len(sent)]:
            if at < len(sent):
                it.tls.data_received(sent[at : at + cut])
            at += cut
            await asyncio.sleep(0)
        if ends != "close_notify":
            it.tls.eof_received()
        while "eof" not in it.session.told:  # noqa: ASYNC110 (nothing else happens here)
            await asyncio.sleep(0)
        assert it.session.got == b"".join(texts)
        assert it.session.told == ["eof"]
        assert it.plain.said in (["eof"], ["close"], ["eof", "close"])

    asyncio.run(asyncio.wait_for(run(), PATIENCE))


@given(sizes=SECRET_SIZES)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_sent_arrives_and_ends_clean(pair, sizes):
    async def run() -> None:
        it = pair()
        await it.shake_hands()
        expected = b""
        for number, size in enumerate(sizes):
            it.tls.write(bytes([65 + number]) * size)
            expected += bytes([65 + number]) * size
        it.tls.writelines([b"status", b"message", b"."])
        expected += b"statusmessage."
        it.tls.close()
        assert it.read() == expected  # and then a close_notify: an end without one would raise
        it.tls.write(b"behind the end")
        assert it.read() == b""
        assert it.plain.said == ["eof"]
        it.tls.eof_received()
        assert it.plain.said == ["eof", "close"]

    asyncio.run(run())


async def test_no_buffer_is_larger_than_a_record(pair):
    """OpenSSL keeps its buffers as large as they have once been."""
    it = pair()
    await it.shake_hands()
    sizes = []
    write = it.plain.write
    it.plain.write = lambda data: (sizes.append(len(data)), write(data))[1]
    it.tls.write(b"x" * 1_000_000)
    assert max(sizes) < 17 * KIB
    assert it.read() == b"x" * 1_000_000


async def test_flow_control_goes_through(pair):
    it = pair()
    told = []
    it.session.pause_writing = lambda: told.append("pause")
    it.session.resume_writing = lambda: told.append("resume")
    await it.shake_hands()
    it.tls.pause_writing()
    it.tls.resume_writing()
    assert told == ["pause", "resume"]


async def test_who_reads_nothing_is_not_read(pair):
    """OpenSSL answers some records by itself, so what waits for such a client could grow without end."""
    it = pair()
    await it.shake_hands()
    it.tls.resume_reading()
    await asyncio.sleep(0)
    assert it.plain.reading
    it.tls.pause_writing()
    assert not it.plain.reading
    for line in (b"NOOP\r\n", b"STAT\r\n"):  # what the loop had already
        it.client.write(line)
        it.tls.data_received(it.said())
    it.tls.resume_reading()  # the session may want more, but has no say in this
    await asyncio.sleep(0)
    assert it.session.got == b""
    assert not it.plain.reading
    it.tls.resume_writing()
    await asyncio.sleep(0)
    assert it.session.got == b"NOOP\r\nSTAT\r\n"
    assert it.plain.reading


async def test_who_is_not_read_may_end_meanwhile(pair):
    it = pair()
    await it.shake_hands()
    it.tls.resume_reading()
    await asyncio.sleep(0)
    it.tls.pause_writing()
    it.client.write(b"QUIT\r\n")
    it.tls.data_received(it.said())
    it.tls.eof_received()
    assert (it.session.got, it.session.told) == (b"", [])
    it.tls.resume_writing()
    await asyncio.sleep(0)
    assert (it.session.got, it.session.told) == (b"QUIT\r\n", ["eof"])
    assert it.plain.said == ["close"]


# -- ends ----------------------------------------------------------------------------------------


async def test_a_record_that_was_changed_on_its_way_ends_the_session(pair):
    it = pair()
    await it.shake_hands()
    it.tls.resume_reading()
    it.client.write(b"STAT\r\n")
    record = bytearray(it.said())
    record[-1] ^= 1
    it.tls.data_received(bytes(record))
    assert it.session.got == b""
    assert it.plain.said == ["close"]
    it.tls.connection_lost(None)
    assert it.session.told == ["lost"]
    with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):  # the alert
        it.read()


@pytest.mark.parametrize("changed", [False, True])
async def test_nothing_is_obeyed_or_sent_behind_the_end(pair, changed):
    """Whatever came in the same packet as the line that ended the session."""
    it = pair()
    await it.shake_hands()
    it.session.on_data = it.tls.close
    it.tls.resume_reading()
    for line in (b"QUIT\r\n", b"STAT\r\n"):
        it.client.write(line)
    records = bytearray(it.said())
    records[-1] ^= changed
    it.tls.data_received(bytes(records))
    it.tls.data_received(b"more")
    await asyncio.sleep(0)
    assert it.session.got == b"QUIT\r\n"
    assert it.plain.said == ["eof"]
    assert it.read() == b""  # a clean end
    it.tls.connection_lost(None)
    assert it.session.told == ["lost"]


async def test_who_does_not_end_its_half_is_cut(pair, monkeypatch):
    monkeypatch.setattr(tls, "_SHUTDOWN_SECONDS", 0.01)
    it = pair()
    await it.shake_hands()
    it.tls.close()
    async with asyncio.timeout(PATIENCE):
        while "abort" not in it.plain.said:  # noqa: ASYNC110 (looks from outside)
            await asyncio.sleep(0.005)


async def test_what_was_said_last_is_not_cut_off_on_a_slow_link(pair, monkeypatch):
    monkeypatch.setattr(tls, "_SHUTDOWN_SECONDS", 0.01)
    it = pair()
    await it.shake_hands()
    it.plain.unsent = 1000
    looked = 0

    def size() -> int:
        nonlocal looked
        looked += 1
        return it.plain.unsent

    monkeypatch.setattr(it.plain, "get_write_buffer_size", size)
    it.tls.close()
    async with asyncio.timeout(PATIENCE):
        while looked < 3:  # noqa: ASYNC110 (looks from outside)
            await asyncio.sleep(0.005)
        assert it.plain.said == ["eof"]
        it.plain.unsent = 0
        while it.plain.said != ["eof", "abort"]:  # noqa: ASYNC110 (looks from outside)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("how", ["closed", "eof", "lost", "garbage", "silence"])
async def test_a_handshake_that_fails_is_an_error_and_not_told_to_the_session(pair, how, monkeypatch):
    if how == "silence":
        monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.01)
    it = pair()
    if how == "closed":
        it.plain.close()
    shaken = asyncio.ensure_future(it.tls.shake_hands(it.plain))
    await asyncio.sleep(0)
    match how:
        case "eof":
            it.tls.eof_received()
        case "lost":
            it.tls.connection_lost(None)
        case "garbage":
            it.tls.data_received(b"USER mrose\r\n" * 10)
    expected = {"garbage": ssl.SSLError, "silence": TimeoutError}
    with pytest.raises(expected.get(how, ConnectionResetError)):
        await shaken
    if how != "lost":
        assert it.plain.said == ["close"]
        it.tls.connection_lost(None)
    assert it.session.told == []


async def test_what_comes_in_one_packet_with_the_end_of_the_connection_is_received(pair):
    """Of a client that says QUIT and leaves."""
    it = pair()
    await it.shake_hands(and_say=b"QUIT\r\n")
    it.tls.eof_received()  # before the session has begun to read
    it.tls.resume_reading()
    await asyncio.sleep(0)
    assert (it.session.got, it.session.told) == (b"QUIT\r\n", ["eof"])


@pytest.mark.parametrize("ends", ["close_notify", "eof"])
async def test_who_says_no_more_still_hears_what_it_is_owed(pair, ends):
    """RFC 8446 §6.1: the end of one direction does not end the other."""
    it = pair()
    it.session.has_more_to_say = True
    await it.shake_hands(and_say=b"PASS secret\r\n")
    if ends == "close_notify":
        with contextlib.suppress(ssl.SSLWantReadError):
            it.client.unwrap()
        it.tls.data_received(it.said())
    else:
        it.tls.eof_received()
    it.tls.resume_reading()
    await asyncio.sleep(0)
    it.tls.pause_reading()
    it.tls.resume_reading()
    await asyncio.sleep(0)
    assert (it.session.got, it.session.told) == (b"PASS secret\r\n", ["eof"])
    assert it.plain.said == []
    it.tls.write(b"+OK\r\n")
    it.tls.close()
    assert it.plain.said == (["close"] if ends == "eof" else ["eof"])
    assert it.read() == b"+OK\r\n"


async def test_a_connection_that_is_lost_right_behind_the_handshake_never_begins(pair):
    it = pair()
    shaken = asyncio.ensure_future(it.shake_hands())
    await asyncio.sleep(0)
    while it.tls.get_extra_info("ssl_object").version() is None:  # noqa: ASYNC110 (looks from outside)
        await asyncio.sleep(0)
    it.tls.connection_lost(None)
    with pytest.raises(ConnectionResetError):
        await shaken
    assert it.session.told == []
