"""A maildrop's lists: read page by page, written slice by slice, and the same on pages of any size."""

from __future__ import annotations

import asyncio
import tracemalloc
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailstack.errors import StoreUnavailable
from mailstack.pop3 import pages, sending
from mailstack.pop3.asks import Ask, Expunge, LoadLayout, LoadListing, LoadUniqueIds, OpenMessage
from mailstack.pop3.maildrop import Maildrop
from mailstack.pop3.outlet import HIGH_WATER, Gone, Outlet
from mailstack.pop3.replies import Lines
from mailstack.store.listing import PAGE_ENTRIES, Layout, Listing, UniqueIds
from mailstack.store.messages import Snapshot
from tests.pop3.pure import Maildrops, PureServer
from tests.pop3.transcript import NAME, SECRET, sized

LOGIN = f"USER {NAME}\r\nPASS {SECRET}\r\n".encode()
KIB = 1024


def logged_in(*sizes: int, gaps: int = 0) -> PureServer:
    """A session with messages of these sizes, between whose uids so many are missing."""
    maildrops = Maildrops()
    for size in sizes:
        maildrops.deliver(sized(size))
        maildrops.next_uid += gaps
    server = PureServer(maildrops)
    server.feed(LOGIN)
    maildrops.asked.clear()
    return server


class Many:
    """The answers of a store that has so many messages, their unique-ids as long as may be."""

    def __init__(self, messages: int) -> None:
        self.snapshot = Snapshot(messages, 10 * messages, 2 * messages, None)  # every second uid
        self.read: list[Ask] = []

    async def to(self, ask: Ask) -> object:
        self.read.append(ask)
        return self.answer(ask)

    def answer(self, ask: Ask) -> object:
        if isinstance(ask, LoadLayout):
            firsts = range(2, self.snapshot.last_uid + 1, 2 * PAGE_ENTRIES)
            return Layout(array("q", firsts), self.snapshot.messages)
        assert isinstance(ask, LoadListing | LoadUniqueIds)
        uids = range(ask.first_uid + ask.first_uid % 2 or 2, ask.last_uid + 1, 2)
        if isinstance(ask, LoadListing):
            return Listing(array("I", uids), array("I", [10] * len(uids)))
        return UniqueIds(" ".join(unique_id(uid) for uid in uids))


def unique_id(uid: int) -> str:
    return f"{uid:070}"


def slices(many: Many, lines: Lines) -> Iterator[bytes]:
    """All of a list, its asks answered."""
    some = next(lines, None)
    while some is not None:
        if isinstance(some, bytes):
            yield some
            some = next(lines, None)
        else:
            some = lines.send(many.answer(some))


# -- pages ---------------------------------------------------------------------------------------

COMMANDS = (
    st.sampled_from([b"LIST", b"UIDL", b"STAT", b"RSET"])
    | st.tuples(
        st.sampled_from([b"LIST", b"UIDL", b"DELE", b"RETR"]), st.integers(1, 12).map(b"%d".__mod__)
    ).map(b" ".join)
    | st.integers(1, 12).map(b"TOP %d 0".__mod__)
)


@given(
    sizes=st.lists(st.integers(30, 60), max_size=11),
    gaps=st.integers(0, 3),
    page=st.integers(1, 5),
    commands=st.lists(COMMANDS, max_size=25),
)
@settings(max_examples=300, deadline=None)
def test_what_is_said_does_not_depend_on_the_pages(sizes, gaps, page, commands):
    said = b"\r\n".join([*commands, b"LIST", b"UIDL", b"QUIT", b""])
    whole = logged_in(*sizes, gaps=gaps)
    expected = whole.feed(said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "PAGE_ENTRIES", page)
        paged = logged_in(*sizes, gaps=gaps)
        assert paged.feed(said) == expected
    assert paged.maildrops.messages == whole.maildrops.messages  # after what QUIT removed


def kinds(server: PureServer, command: bytes) -> list[type[Ask]]:
    """What a command asked for."""
    server.maildrops.asked.clear()
    assert server.feed(command + b"\r\n").startswith(b"+OK")
    return [type(each) for each in server.maildrops.asked]


def test_a_maildrop_of_one_page_is_read_once():
    server = logged_in(50, 60, 70)
    assert kinds(server, b"LIST 2") == [LoadListing]
    for command in (b"LIST", b"LIST 3", b"DELE 1"):
        assert kinds(server, command) == []
    assert kinds(server, b"RETR 3") == [OpenMessage]
    assert kinds(server, b"UIDL 2") == [LoadUniqueIds]
    for command in (b"UIDL", b"UIDL 3"):
        assert kinds(server, command) == []
    assert kinds(server, b"QUIT") == [Expunge]


def test_of_several_pages_the_last_one_is_kept(monkeypatch):
    monkeypatch.setattr(pages, "PAGE_ENTRIES", 2)
    server = logged_in(50, 60, 70, 80, 90)
    assert kinds(server, b"LIST 3") == [LoadLayout, LoadListing]
    assert kinds(server, b"DELE 4") == []
    assert kinds(server, b"LIST 5") == [LoadListing]
    assert kinds(server, b"UIDL 5") == [LoadUniqueIds]
    assert kinds(server, b"UIDL") == [LoadUniqueIds, LoadUniqueIds]
    assert kinds(server, b"LIST") == [LoadListing, LoadListing, LoadListing]
    assert kinds(server, b"LIST 5") == []


# -- a store that contradicts itself, or fails ---------------------------------------------------


@pytest.mark.parametrize(
    "command", [b"LIST", b"LIST 1", b"UIDL", b"UIDL 1", b"RETR 1", b"TOP 1 0", b"DELE 1"]
)
@pytest.mark.parametrize("page", [1, 2, PAGE_ENTRIES])
def test_a_maildrop_that_contradicts_its_counters_is_refused(monkeypatch, command, page):
    monkeypatch.setattr(pages, "PAGE_ENTRIES", page)
    server = logged_in(50, 60, 70)
    del server.maildrops.messages[3]
    assert server.feed(command + b"\r\n").startswith(b"-ERR [SYS/TEMP]")
    assert server.feed(b"STAT\r\n") == b"+OK 3 180\r\n"


@pytest.mark.parametrize("command", [b"LIST", b"UIDL"])
def test_a_list_that_cannot_be_read_to_its_end_is_cut(monkeypatch, command):
    """Without the final dot, so nobody takes what is there for all."""
    monkeypatch.setattr(pages, "PAGE_ENTRIES", 2)
    server = logged_in(50, 60, 70)
    assert server.feed(b"LIST 1\r\n") == b"+OK 1 50\r\n"
    del server.maildrops.messages[3]  # the layout is known already
    said = server.feed(command + b"\r\nNOOP\r\n").splitlines()
    assert [line.split()[0] for line in said] == [b"+OK", b"1", b"2"]
    assert server.closed


@pytest.mark.parametrize("failing", [LoadListing, LoadLayout])
def test_a_list_that_cannot_be_read_is_refused_in_words(monkeypatch, failing):
    monkeypatch.setattr(pages, "PAGE_ENTRIES", 2)
    server = logged_in(50, 60, 70)
    server.maildrops.failing = {failing}
    assert server.feed(b"LIST\r\n").startswith(b"-ERR [SYS/TEMP]")
    assert server.feed(b"DELE 1\r\n").startswith(b"-ERR [SYS/TEMP]")
    server.maildrops.failing = set()
    assert server.feed(b"LIST\r\n").count(b"\r\n") == 5
    assert server.feed(b"STAT\r\n") == b"+OK 3 180\r\n"  # nothing was marked


# -- slices, and what they take ------------------------------------------------------------------


def test_long_lists_come_in_slices_and_skip_what_is_deleted():
    many = Many(2500)
    drop = Maildrop(many.snapshot)
    gone = {1, 1000, 1001, 2500}
    for number in gone:
        drop.delete(pages.Entry(number, 2 * number, 10))
    listed = list(slices(many, drop.sizes()))
    assert [some.count(b"\r\n") for some in listed] == [998, 999, 499, 1]
    kept = [number for number in range(1, 2501) if number not in gone]
    assert b"".join(listed) == b"".join(b"%d 10\r\n" % number for number in kept) + b".\r\n"
    listed = list(slices(many, drop.unique_ids()))
    assert max(map(len, listed)) < 32 * KIB
    lines = [f"{number} {unique_id(2 * number)}\r\n".encode() for number in kept]
    assert b"".join(listed) == b"".join(lines) + b".\r\n"


def test_a_slice_that_is_deleted_whole_is_empty():
    many = Many(1001)
    drop = Maildrop(many.snapshot)
    for number in range(1, 1001):
        drop.delete(pages.Entry(number, 2 * number, 10))
    assert b"".join(slices(many, drop.sizes())) == b"1001 10\r\n.\r\n"
    assert drop.deleted_uids() == list(range(2, 2001, 2))


@given(st.lists(st.integers(1, 70), max_size=600))
def test_unique_ids_are_kept_as_they_are(sizes):
    ids = [f"{number}{'x' * 70}"[:size] for number, size in enumerate(sizes)]
    kept = UniqueIds(" ".join(ids))
    assert list(kept) == ids
    assert [kept[index] for index in range(len(kept))] == ids


@pytest.mark.parametrize("verb", ["LIST", "UIDL"])
def test_a_list_of_any_length_takes_the_memory_of_a_page(verb):
    """Whoever stops to read at the worst moment: all that the session holds, of 100,000 messages."""
    many = Many(100_000)
    drop = Maildrop(many.snapshot)
    most, octets = 0, 0
    tracemalloc.start()
    try:
        for some in slices(many, drop.sizes() if verb == "LIST" else drop.unique_ids()):
            most = max(most, tracemalloc.get_traced_memory()[0])
            octets += len(some)
    finally:
        tracemalloc.stop()
    assert octets > 900_000
    assert most < (160 if verb == "LIST" else 512) * KIB


class Blocked:
    """A transport whose other end takes nothing."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self.octets = 0
        self.full = asyncio.Event()

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        pass

    def write(self, octets: bytes) -> None:
        self.octets += len(octets)
        if self.octets > HIGH_WATER:
            self._outlet.pause()
            self.full.set()


@pytest.mark.parametrize(("verb", "read"), [("LIST", 5), ("UIDL", 2)])
async def test_no_page_is_read_for_a_client_that_does_not_read(verb, read):
    many = Many(100_000)
    drop = Maildrop(many.snapshot)
    outlet = Outlet(asyncio.get_running_loop())
    transport = Blocked(outlet)
    outlet.use(transport)
    lines = drop.sizes() if verb == "LIST" else drop.unique_ids()
    sent = asyncio.ensure_future(sending.lines(outlet, many, lines))
    await transport.full.wait()
    held = transport.octets
    for _ in range(50):
        await asyncio.sleep(0)
    assert transport.octets == held < HIGH_WATER + 32 * KIB
    assert len(many.read) <= read
    outlet.lose()
    with pytest.raises(Gone):
        await sent


async def test_a_page_that_is_refused_to_who_has_left_is_no_failure_of_the_store():
    """The maildrop was let go with the connection; only a client that is there has its list cut."""
    outlet = Outlet(asyncio.get_running_loop())
    outlet.use(Blocked(outlet))
    many = Many(10)

    async def refuse(_ask: Ask) -> object:
        raise StoreUnavailable("the lock of the maildrop was lost")

    many.to = refuse
    with pytest.raises(StoreUnavailable):
        await sending.lines(outlet, many, Maildrop(many.snapshot).sizes())
    outlet.lose()
    with pytest.raises(Gone):
        await sending.lines(outlet, many, Maildrop(many.snapshot).sizes())
