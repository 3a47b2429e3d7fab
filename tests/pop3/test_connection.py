"""Connections: flow, locks and deletion; over sockets and on the real store."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from base64 import b64encode

import pytest

from mailstack.errors import StoreUnavailable
from mailstack.log import line
from mailstack.mail.spool import PART_OCTETS
from mailstack.pop3.outlet import HIGH_WATER
from mailstack.store import fetching, story
from mailstack.store.events import Kind
from mailstack.store.listing import PAGE_ENTRIES
from tests.pop3.transcript import NAME, SECRET, dotted, sized

# -- flow ----------------------------------------------------------------------------------------


async def test_ten_thousand_noops_in_one_go_are_answered_in_order(start):  # RFC 2449 §6.6
    async with start() as rig:
        client = await rig.log_in()
        client.send(b"NOOP\r\n" * 9_999 + b"STAT\r\nQUIT\r\n")
        answers = (await client.rest()).split(b"\r\n")
        assert answers[:9_999] == [b"+OK"] * 9_999
        assert answers[9_999:] == [b"+OK 0 0", b"+OK bye", b""]


@pytest.mark.parametrize("content", [sized(3 * PART_OCTETS + 17), dotted(3 * PART_OCTETS)])
async def test_large_messages_come_whole_and_pipelined(start, content):
    async with start() as rig:
        await rig.deliver(content, content)
        client = await rig.log_in()
        client.send(b"RETR 1\r\nRETR 2\r\nQUIT\r\n")
        expected = content.replace(b"\n.", b"\n..") + b".\r\n"
        status = f"+OK {len(content)} octets\r\n".encode()
        assert await client.rest() == 2 * (status + expected) + b"+OK bye\r\n"


async def test_sixty_pipelined_retr_after_a_half_close(start):
    async with start() as rig:
        await rig.deliver(*(sized(100 + n) for n in range(60)))
        client = await rig.log_in()
        for number in range(1, 61):
            client.send(f"RETR {number}\r\n".encode())
        client.half_close()
        got = await client.rest()
        assert [int(line.split()[1]) for line in got.splitlines() if line.startswith(b"+OK")] == [
            100 + n for n in range(60)
        ]
        assert got.endswith(b"\r\n.\r\n")


@pytest.mark.parametrize("tls", [False, True])
async def test_a_client_that_does_not_read_costs_bounded_memory_and_nobody_elses_time(
    start, server_context, client_context, tls
):
    async with start(tls=server_context, implicit_tls=tls) as rig:
        await rig.deliver(sized(40 * PART_OCTETS))
        context = client_context if tls else None
        blocked = await rig.log_in(context)
        blocked.writer.transport.pause_reading()
        blocked.send(b"RETR 1\r\n" * 2000 + b"NOOP\r\n" * 20_000)
        connection = next(iter(rig.listener._crowd))
        await asyncio.sleep(0.3)
        assert connection._transport.get_write_buffer_size() <= HIGH_WATER + 64 * 1024 + 1024
        assert len(connection._inlet) <= 64 * 1024 + 256 * 1024
        worked = time.thread_time()  # not the time that passes: others may have the processor meanwhile
        other = await rig.connect(context)
        assert b"TOP\r\n" in await other.body(b"CAPA")
        assert time.thread_time() - worked < 0.5
        blocked.reset()
        await rig.until_sessions(1)
        assert (await other.log_in()).startswith(b"+OK")  # the lock was freed in the middle of RETR


async def test_an_endless_line_ends_the_session(start):
    async with start() as rig:
        client = await rig.connect()
        client.send(b"A" * 20_000)
        assert await client.line() == b"-ERR line too long\r\n"
        assert await client.rest() == b""


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(("octets", "last"), [(b"FOO\r\n", "too many bad commands"), (b"A", "line too long")])
async def test_the_last_words_reach_a_client_that_still_sends(  # noqa: PLR0917 (pytest's)
    start, server_context, client_context, tls, octets, last
):
    """Where the connection was just closed, a reset would overtake them."""
    async with start(tls=server_context, implicit_tls=tls) as rig:
        client = await rig.connect(client_context if tls else None)
        client.send(octets * (300_000 // len(octets)))
        assert (await client.rest()).endswith(f"-ERR {last}\r\n".encode())


async def test_a_long_list_is_complete(start):
    async with start() as rig:
        content = sized(30)
        messages = PAGE_ENTRIES + 100
        await rig.deliver(*[content] * messages)
        client = await rig.log_in()
        expected = b"".join(f"{n} 30\r\n".encode() for n in range(1, messages + 1))
        assert await client.body(b"LIST") == expected
        unique_ids = (await client.body(b"UIDL")).splitlines()
        assert len({line.split()[1] for line in unique_ids}) == messages
        for number in (7, PAGE_ENTRIES, PAGE_ENTRIES + 1, messages):
            assert await client.ask(b"UIDL %d" % number) == b"+OK " + unique_ids[number - 1] + b"\r\n"
        assert await client.body(b"RETR %d" % messages) == content


async def test_a_list_ends_where_its_session_loses_the_lock(start):
    """Another session may delete by now, and what it leaves would be the rest of this list."""
    async with start() as rig:
        await rig.deliver(*[sized(30)] * (PAGE_ENTRIES + 1))
        client = await rig.log_in()
        read = rig.store.listing

        async def losing(*words, **more):
            for tell in rig.store.on_locks_lost:
                tell()
            return await read(*words, **more)

        rig.store.listing = losing
        client.send(b"LIST\r\n")
        said = await client.rest()
        assert said.count(b"\r\n") <= PAGE_ENTRIES + 1
        assert not said.endswith(b"\r\n.\r\n")
        await rig.until_sessions(0)


# -- the lock ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["quit", "close", "reset", "half-close"])
async def test_the_maildrop_is_free_when_the_session_ends(start, end):
    async with start() as rig:
        await rig.deliver(sized(50))
        first = await rig.log_in()
        second = await rig.connect()
        assert (await second.log_in()).startswith(b"-ERR [IN-USE] ")
        match end:
            case "quit":
                assert (await first.ask(b"QUIT")).startswith(b"+OK")
            case "close":
                await first.close()
                await rig.until_sessions(1)
            case "reset":
                first.reset()
                await rig.until_sessions(1)
            case "half-close":
                first.half_close()
                await first.rest()
        assert (await second.log_in()).startswith(b"+OK ")


async def test_a_wrong_password_does_not_take_the_lock(start):
    async with start() as rig:
        first = await rig.connect()
        assert (await first.log_in("wrong")).startswith(b"-ERR [AUTH]")
        second = await rig.log_in()
        assert (await second.ask(b"STAT")) == b"+OK 0 0\r\n"


async def test_a_session_that_lost_its_lock_says_so_and_deletes_nothing(start):
    async with start() as rig:
        await rig.deliver(sized(50))
        client = await rig.log_in()
        assert (await client.ask(b"DELE 1")).startswith(b"+OK")
        for tell in rig.store.on_locks_lost:
            tell()
        await asyncio.sleep(0)
        assert (await client.ask(b"QUIT")).startswith(b"-ERR [SYS/TEMP]")
        assert await client.rest() == b""
        assert await rig.messages() == 1


# -- deletion ------------------------------------------------------------------------------------


async def test_quit_is_finished_when_the_client_does_not_wait_for_it(start):  # RFC 1939 §6
    async with start() as rig:
        await rig.deliver(sized(50), sized(60))
        client = await rig.log_in()
        client.send(b"DELE 1\r\nQUIT\r\n")
        client.half_close()
        assert (await client.rest()).startswith(b"+OK deleted\r\n+OK bye")
        assert await rig.messages() == 1


async def test_a_commit_under_way_survives_the_end_of_its_connection(start, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="mailstack")
    async with start() as rig:
        await rig.deliver(sized(50))
        begun, go_on = asyncio.Event(), asyncio.Event()
        expunge = rig.store.expunge

        async def slow(account_id, uids, **lock):
            begun.set()
            await go_on.wait()
            await expunge(account_id, uids, **lock)

        monkeypatch.setattr(rig.store, "expunge", slow)
        client = await rig.log_in()
        client.send(b"DELE 1\r\nQUIT\r\n")
        await begun.wait()
        client.reset()
        other = await rig.connect()
        assert (await other.log_in()).startswith(b"-ERR [IN-USE]")  # until the commit is done
        go_on.set()
        await rig.until_sessions(1)
        [fields] = [each.fields for each in caplog.records if each.getMessage() == "pop3.session"]
        assert (fields["deleted"], fields["deleted_octets"], fields["trouble"]) == (1, 50, None)
        assert rig.store.counts["deleted"] == 1
        await rig.store.journal.flush()
        [session] = (await rig.store.read(story.find, None, 0)).events
        assert (session.kind, session.told["deleted"]) == (Kind.SESSION, "1")
        assert (await other.log_in()).startswith(b"+OK")
        assert await rig.messages() == 0


async def test_why_a_commit_failed_is_logged_where_nobody_waits_for_it_any_more(start, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="mailstack")
    async with start() as rig:
        await rig.deliver(sized(50))

        async def fail(account_id, uids, **lock):
            client.reset()
            await rig.until(lambda: connection._outlet.lost)
            raise StoreUnavailable("the disk is on fire")

        monkeypatch.setattr(rig.store, "expunge", fail)
        client = await rig.log_in()
        connection = next(iter(rig.listener._crowd))
        client.send(b"DELE 1\r\nQUIT\r\n")
        await rig.until_sessions(0)
        [fields] = [each.fields for each in caplog.records if each.getMessage() == "pop3.session"]
        assert (fields["deleted"], fields["trouble"]) == (0, "the disk is on fire")
        assert await rig.messages() == 1


async def test_a_quit_whose_commit_fails_says_so_once(start, monkeypatch):
    async with start() as rig:
        await rig.deliver(sized(50))

        async def fail(account_id, uids, **lock):
            raise StoreUnavailable("the disk is on fire")

        monkeypatch.setattr(rig.store, "expunge", fail)
        client = await rig.log_in()
        client.send(b"DELE 1\r\nQUIT\r\n")
        answers = (await client.rest()).splitlines()
        assert answers[0] == b"+OK deleted"
        assert answers[1:] == [b"-ERR [SYS/TEMP] the mail store does not answer, try again later"]
        assert await rig.messages() == 1


async def test_an_error_that_nobody_foresaw_is_temporary_and_logged(start, monkeypatch, caplog):
    async with start() as rig:

        async def fail(account_id, last_uid, **surrogates):
            raise RuntimeError("a bug")

        monkeypatch.setattr(rig.store, "listing", fail)
        client = await rig.log_in()
        with caplog.at_level(logging.ERROR, logger="mailstack"):
            assert await client.ask(b"LIST") == b"-ERR [SYS/TEMP] local error, try again later\r\n"
        assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["a bug"]
        assert await client.ask(b"NOOP") == b"+OK\r\n"


async def test_a_message_that_breaks_off_is_never_ended_with_a_dot(start, monkeypatch):
    async with start() as rig:
        await rig.deliver(sized(3 * PART_OCTETS))
        client = await rig.log_in()

        def broken(connection, opened, number):
            raise StoreUnavailable("the disk is on fire")

        monkeypatch.setattr(fetching, "step", broken)
        client.send(b"RETR 1\r\n")
        assert b".\r\n" not in await client.ended()
        monkeypatch.undo()
        await rig.until_sessions(0)


async def test_ipv6_loopback_counts_as_loopback(start):
    async with start(host="::1") as rig:
        client = await rig.log_in()
        assert await client.ask(b"STAT") == b"+OK 0 0\r\n"


async def test_one_line_a_session_is_logged_and_no_secret(start, caplog):
    with caplog.at_level(logging.INFO, logger="mailstack"):
        async with start() as rig:
            await rig.deliver(sized(50), sized(60))
            client = await rig.connect()
            await client.log_in("wrong password")
            await client.log_in()
            await client.body(b"RETR 1")
            await client.body(b"RETR 2")  # from what was read ahead
            await client.ask(b"DELE 1")
            await client.ask(b"QUIT")
            await client.rest()
            await rig.until_sessions(0)
    [record] = [record for record in caplog.records if record.getMessage() == "pop3.session"]
    fields = record.fields
    assert (fields["account"], fields["address"], fields["ended"]) == (NAME, "127.0.0.1", "quit")
    assert (fields["retrieved"], fields["retrieved_octets"]) == (2, 110)
    assert (fields["deleted"], fields["deleted_octets"], fields["refused"]) == (1, 50, 1)
    assert SECRET not in str(vars(record))


@pytest.mark.parametrize(
    ("commands", "tried"),
    [
        ([b"USER jo@exmaple.org", b"PASS secret"], "jo@exmaple.org"),
        (
            [b"USER first", b"PASS secret", b"AUTH PLAIN " + b64encode(b"\0j\xc3\xb6 k\0secret")],
            "j\u00f6 k",
        ),
        ([b"USER " + b"x" * 200, b"PASS secret"], "x" * 100),
        ([b"AUTH PLAIN " + b64encode(b"\0kim@example.org\0secret")], "kim@example.org"),
        ([b"USER jo@example.org", b"STAT"], None),
    ],
)
async def test_the_name_of_a_refused_login_is_logged_and_never_its_password(start, caplog, commands, tried):
    caplog.set_level(logging.INFO, logger="mailstack")
    async with start() as rig:
        client = await rig.connect()
        for command in commands:
            await client.ask(command)
        await client.ask(b"QUIT")
        await rig.until_sessions(0)
    [record] = [record for record in caplog.records if record.getMessage() == "pop3.session"]
    assert record.fields["tried"] == tried
    assert "secret" not in str(vars(record))
    assert line("pop3.session", "info", record.fields).isprintable()


async def test_a_message_that_was_cut_is_not_logged_as_retrieved(start, caplog):
    with caplog.at_level(logging.INFO, logger="mailstack"):
        async with start() as rig:
            await rig.deliver(sized(50), sized(40 * PART_OCTETS))
            client = await rig.log_in()
            await client.body(b"RETR 1")
            client.writer.transport.pause_reading()
            client.send(b"RETR 2\r\n")
            connection = next(iter(rig.listener._crowd))
            await rig.until(lambda: connection._outlet.blocked)
            client.reset()
            await rig.until_sessions(0)
    [record] = [record for record in caplog.records if record.getMessage() == "pop3.session"]
    fields = record.fields
    assert (fields["retrieved"], fields["retrieved_octets"], fields["cut"]) == (1, 50, 1)


async def test_an_idle_session_is_a_few_small_objects(start):
    async with start() as rig:
        await (await rig.log_in()).ask(b"NOOP")
        connection = next(iter(rig.listener._crowd))
        assert connection._task is None
        seen: dict[int, int] = {}
        todo: list[object] = [connection]
        while todo:
            thing = todo.pop()
            ours = type(thing).__module__.startswith("mailstack.pop3") or isinstance(
                thing, list | bytearray | dict
            )
            shared = type(thing).__name__ in {"Surroundings", "Expiries", "Crowd", "type", "module"}
            if id(thing) not in seen and ours and not shared and not isinstance(thing, type):
                seen[id(thing)] = thing.__sizeof__()
                assert not hasattr(thing, "__dict__"), f"{type(thing)} has no slots"
                todo += gc.get_referents(thing)
        assert sum(seen.values()) < 2048
