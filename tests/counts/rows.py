"""What is counted: each kind of work, and what one unit of it may cost.

The bounds are what was counted, and a little more where it varies; one that is twice what is counted
fails, too. Whoever makes something cheaper lowers them; whoever has to raise one says in the commit
what is bought with it.
`python -m tests.counts` prints what is counted now.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from typing import Final, NamedTuple

from tests.counts.rig import CONTENT, HUGE, LARGE, Before, Counted, Counts, Work

UNITS: Final = 30
LISTED: Final = 500
SESSIONS: Final = 10

NOISE: Final = 0.35
"""Of a count for each unit, which happens now and then whatever is done."""


def _lockstep(server: Counted) -> int:
    with server.sender() as sender:
        for _ in range(UNITS):
            sender.send("ben")
    return UNITS


def _pipelined(server: Counted) -> int:
    with server.sender() as sender:
        for _ in range(UNITS):
            sender.begin("ben")
            sender.lines(1)
    return UNITS


def _connection_each(server: Counted) -> int:
    for _ in range(UNITS):
        with server.sender() as sender:
            sender.send("ben")
    return UNITS


def _at_once(server: Counted, units: int = UNITS, content: bytes = CONTENT) -> int:
    """As many senders, whose messages all wait before the writer may write the second one."""
    with ExitStack() as stack:
        senders = [stack.enter_context(server.sender()) for _ in range(units)]
        with server.appliance.database() as database, database.writing():
            for sender in senders:
                sender.begin("ben", content)
            server.now()
        for sender in senders:
            sender.lines(1)
    return units


def _huge_at_once(server: Counted) -> int:
    return _at_once(server, 5, HUGE)


_new = itertools.count()


def _recipients(server: Counted) -> int:
    """One message to as many recipients as UNITS, pipelined; a unit is one of them.

    Each time others: whom the server still knows depends on how long ago they were asked for.
    """
    names = [b"RCPT TO:<ben+%d@example.test>" % next(_new) for _ in range(UNITS)]
    with server.sender() as sender:
        sender.say(b"MAIL FROM:<sender@example.net>", *names, b"DATA")
        sender.lines(UNITS + 2)
        sender.ask(b"Subject: to many\r\n\r\n.")
    return UNITS


def _say_many_lines(server: Counted) -> None:
    """Until the server remembers as many lines as it ever does."""
    with server.sender() as sender:
        sender.say(*(b"NOOP %d" % next(_new) for _ in range(128)))
        sender.lines(128)


def _poll(server: Counted) -> int:
    for _ in range(UNITS):
        with server.session("anna") as session:
            session.ask(b"STAT")
    return UNITS


def _poll_under_tls(server: Counted) -> int:
    for _ in range(UNITS):
        session = server.appliance.pop3("anna", tls=True)
        session.stat()
        session.quit()
    return UNITS


def _retr(server: Counted) -> int:
    with server.session("listed") as session:
        for number in range(UNITS):
            session.say(b"RETR %d" % (number + 1))
            session.multiline()
    return UNITS


def _retr_pipelined(server: Counted) -> int:
    with server.session("listed") as session:
        session.say(*(b"RETR %d" % (number + 1) for number in range(UNITS)))
        session.multiline(UNITS)
    return UNITS


def _retr_large(server: Counted) -> int:
    with server.session("large") as session:
        session.say(*(b"RETR %d" % (number + 1) for number in range(UNITS)))
        session.multiline(UNITS)
    return UNITS


def _drain(server: Counted) -> int:
    with server.session("drained") as session:
        for number in range(UNITS):
            session.say(b"RETR %d" % (number + 1))
            session.multiline()
            session.ask(b"DELE %d" % (number + 1))
    return UNITS


def _drain_pipelined(server: Counted) -> int:
    with server.session("drained") as session:
        for number in range(UNITS):
            session.say(b"RETR %d" % (number + 1), b"DELE %d" % (number + 1))
        for _ in range(UNITS):
            session.multiline()
            session.lines(1)
    return UNITS


def _deleting_sessions(server: Counted) -> int:
    """Sessions that delete as many as UNITS, each."""
    for _ in range(SESSIONS):
        with server.session("drained") as session:
            session.say(*(b"DELE %d" % (number + 1) for number in range(UNITS)))
            session.lines(UNITS)
    return SESSIONS


def _list_and_uidl(server: Counted) -> int:
    with server.session("listed") as session:
        for command in (b"LIST", b"UIDL"):
            session.say(command)
            session.multiline()
    return 1


def _fill(server: Counted) -> None:
    server.fill("drained", UNITS)


def _fill_for_sessions(server: Counted) -> None:
    server.fill("drained", UNITS * SESSIONS)


class Bounds(NamedTuple):
    """What a unit may cost at most; the words are those of Counts."""

    calls: float
    statements: float
    commits: float
    hops: float
    writes: float
    syncs: float

    def hold(self, found: Counts) -> bool:
        """Whether nothing costs more."""
        return all(cost <= most for cost, most in zip(found[:-1], self, strict=True))

    def slack(self, found: Counts) -> list[str]:
        """What could cost twice as much, and these bounds would still hold."""
        each = zip(self._fields, found[:-1], self, strict=True)
        return [f"{name}: {cost:.2f} of {most}" for name, cost, most in each if 2 * cost + NOISE <= most]


class Row(NamedTuple):
    """One kind of work."""

    name: str
    work: Work
    before: Before | None
    bounds: Bounds
    on_postgresql: tuple[float, float] | None
    """Statements and commits there; None where the work is made for SQLite alone."""
    kept: float = 12
    """Blocks of memory for each unit, some of which are only remembered for the next one."""


ROWS: Final = (
    # Of a message that is alone, a sixth of the calls hand it to the process that writes and hear of it.
    # EHLO and QUIT are shared among the messages of a connection: 4 replies each, and a share. A route is
    # looked up again after a second, so a slow machine has some statements more.
    Row("a message, lockstep", _lockstep, None, Bounds(327, 9.2, 1, 0.1, 4.2, 1.2), (8.2, 1)),
    Row("a message, pipelined", _pipelined, None, Bounds(319, 9.2, 1, 0.1, 2.2, 1.2), (8.2, 1)),
    Row(
        "a message in a connection of its own",
        _connection_each,
        None,
        Bounds(381, 9.2, 1, 0.1, 7, 1.2),
        (8.2, 1),
    ),
    # One commit for the first, one for all that came while it was under way.
    Row(
        "a message of many that are written at once",
        _at_once,
        None,
        Bounds(272, 4.6, 0.1, 0.1, 5.1, 0.2),
        None,
    ),
    # A commit each: while one is on its way to the disk, the others come in. A statement for each part.
    # And where the log begins anew, up to three syncs more: once for 32 MiB, so for five of these at most.
    Row(
        "5 MB of many that are written at once", _huge_at_once, None, Bounds(1600, 32, 1, 0.1, 5.1, 1.6), None
    ),
    Row(
        "a recipient of many",
        _recipients,
        _say_many_lines,
        Bounds(173, 6.4, 0.1, 1.2, 1.4, 0.1),
        (6, 0.1),
        kept=25,
    ),
    # The greeting and four replies. Nothing is written to the disk: the holder is in a file, unsynced.
    Row("a poll", _poll, None, Bounds(202, 1.1, 0.1, 0.3, 5, 0.1), (5.2, 0.1)),
    # Of TLS the calls are counted, which a loop that does it in C had not; they cost a fifth less time.
    Row("a poll under TLS", _poll_under_tls, None, Bounds(285, 1.1, 0.1, 0.3, 7, 0.1), (5.2, 0.1)),
    # What was fetched is noted some seconds later, for all sessions at once.
    Row("a RETR, lockstep", _retr, None, Bounds(68, 0.45, 0.1, 0.15, 1.2, 0.1), (2.4, 0.1)),
    Row("a RETR, pipelined", _retr_pipelined, None, Bounds(46, 0.45, 0.1, 0.19, 0.35, 0.1), (2.4, 0.1)),
    # Its status line, its octets and its end in one system call.
    Row("a RETR of 50 KB, pipelined", _retr_large, None, Bounds(55, 0.7, 0.1, 0.2, 1.3, 0.1), (2.4, 0.1)),
    # The session's event, which is written before what it has deleted is removed, has its share.
    Row("a RETR and DELE, lockstep", _drain, _fill, Bounds(95, 1, 0.1, 0.19, 2.2, 0.1), (2.8, 0.1)),
    Row(
        "a RETR and DELE, pipelined",
        _drain_pipelined,
        _fill,
        Bounds(82, 1, 0.1, 0.25, 0.4, 0.25),
        (2.8, 0.1),
    ),
    # QUIT has one commit. Content goes in another, which all sessions share.
    Row(
        "a session that deletes 30, of ten",
        _deleting_sessions,
        _fill_for_sessions,
        Bounds(1085, 12, 1.4, 1.4, 5, 1.4),
        (15, 1.4),
    ),
    Row("LIST and UIDL of 500", _list_and_uidl, None, Bounds(500, 7, 0.1, 2.2, 7, 0.1), (11, 1)),
)


def prepare(server: Counted) -> None:
    """Fill the maildrops that are listed and fetched."""
    server.fill("listed", LISTED)
    server.fill("large", UNITS, LARGE)
