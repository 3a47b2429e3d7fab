"""A counted server, and what each kind of work costs it."""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import exists, select

from mailstack.store.tables import leftover
from tests.counts.counted import COUNTS_SOCKET, TRACE_FILE
from tests.support.appliance import DOMAIN, PASSWORD, POP3_PORT, SMTP_PORT, Appliance

CONTENT = b"Subject: one\r\n\r\n" + (b"x" * 70 + b"\r\n") * 28
"""Some 2 KB."""

LARGE = b"Subject: one\r\n\r\n" + (b"x" * 70 + b"\r\n") * 700
"""Some 50 KB."""

HUGE = b"Subject: one\r\n\r\n" + (b"x" * 76 + b"\r\n") * 67_000
"""Some 5 MB."""

SESSIONS = [f"idle{number}" for number in range(40)]
"""Accounts that log in and do nothing."""

# Who only has the kernel begin to write, sync_file_range with no flag to wait, does not wait for the disk.
_SYNC = re.compile(r"^(\d+) +(?:fsync\(|fdatasync\(|sync_file_range\(.*_WAIT_)", re.MULTILINE)
_WRITE = re.compile(r"^\d+ +(?:write|writev|sendto|sendmsg)\(\d+<TCP", re.MULTILINE)


@cache
def _is_first(thread: str) -> bool:
    """Whether its process began with it; what that of the writing process waits for, senders wait for."""
    try:
        return f"\nTgid:\t{thread}\n" in Path(f"/proc/{thread}/status").read_text()
    except FileNotFoundError:  # it has ended, as no first thread has
        return False


class Counts(NamedTuple):
    """What a server has done, or what it does for one unit of work."""

    calls: float
    """Functions of Python that were entered."""
    statements: float
    """That the database ran; one of many rows counts for each of them."""
    commits: float
    hops: float
    """Wake-ups of the loop by another thread."""
    writes: float
    """System calls that wrote to a TCP connection."""
    syncs: float
    """System calls by which a process' first thread waited for the disk; for the others nobody waits."""
    blocks: float
    """Of memory that Python holds."""

    def per(self, before: Counts, units: int) -> Counts:
        """For each of so many units since then."""
        return Counts(*((now - then) / units for now, then in zip(self, before, strict=True)))


class Counted:
    """One appliance whose server counts, in each of its processes."""

    def __init__(self, appliance: Appliance) -> None:
        self.appliance = appliance
        self._socket = appliance.folder / "counts"
        self._trace = appliance.folder / "trace"
        appliance.run(environ={COUNTS_SOCKET: str(self._socket), TRACE_FILE: str(self._trace)}).wait_ready()

    def now(self) -> Counts:
        """What it has done until it was still: what follows a reply is counted, too."""
        before = None
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            owes = self._is_left_over()  # asked first: what is done right behind it is still counted
            found = self._told()
            if not owes and before is not None and found[:-1] == before[:-1]:
                return found
            before = found
            time.sleep(0.05)
        raise AssertionError("it is never still")

    def _is_left_over(self) -> bool:
        """Whether content is still to be removed of what was deleted."""
        with self.appliance.database() as database, database.reading() as connection:
            return bool(connection.scalar(select(exists().select_from(leftover))))

    def _told(self) -> Counts:
        told: Counter[str] = Counter()
        for process in self._socket.parent.glob(f"{self._socket.name}*"):
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(str(process))
                told.update(json.loads(b"".join(iter(lambda: asking.recv(4096), b""))))
        trace = self._trace.read_text()
        syncs = sum(_is_first(thread) for thread in _SYNC.findall(trace))
        return Counts(**told, writes=len(_WRITE.findall(trace)), syncs=syncs)

    def costs(self, work: Work, before: Before | None, enough: Callable[[Counts], bool]) -> Counts:
        """What each unit costs. It is done once before, uncounted.

        What is written a moment later for many (what was fetched, say) may fall into any unit: where
        it is not `enough`, the work is done again, and the least of each count is what it costs.
        """
        self._once(work, before)
        found = self._once(work, before)
        for _ in range(3):
            if not enough(found):
                found = Counts(*map(min, found, self._once(work, before)))
        return found

    def _once(self, work: Work, before: Before | None) -> Counts:
        if before is not None:
            before(self)
        began = self.now()
        units = work(self)
        return self.now().per(began, units)

    def fill(self, name: str, count: int, content: bytes = CONTENT) -> None:
        """Put so many messages into a maildrop."""
        with self.sender() as sender:
            for _ in range(count):
                sender.begin(name, content)
                sender.lines(1)

    # -- clients that wait for each reply, or for none -------------------------------------------

    @contextmanager
    def wire(self, port: int) -> Iterator[Wire]:
        """A connection that has been greeted."""
        with socket.create_connection((self.appliance.host, port), timeout=60) as connection:
            wire = Wire(connection)
            wire.lines(1)
            yield wire

    @contextmanager
    def sender(self) -> Iterator[Wire]:
        """A connection that has said EHLO."""
        with self.wire(SMTP_PORT) as wire:
            wire.say(b"EHLO client.example.net")
            while wire.lines(1)[0][3:4] == b"-":
                pass
            yield wire
            wire.ask(b"QUIT")

    @contextmanager
    def session(self, name: str) -> Iterator[Wire]:
        """A POP3 session that has logged in; QUIT at its end."""
        with self.wire(POP3_PORT) as wire:
            wire.ask(b"USER " + name.encode())
            wire.ask(b"PASS " + PASSWORD.encode())
            yield wire
            wire.ask(b"QUIT")


Work = Callable[[Counted], int]
"""Does it, and says how many units that were."""

Before = Callable[[Counted], None]
"""Makes what has to be there; not counted."""


class Wire:
    """One connection of a client."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")

    def say(self, *lines: bytes) -> None:
        """Send the lines in one packet."""
        self._connection.sendall(b"".join(line + b"\r\n" for line in lines))

    def lines(self, count: int) -> list[bytes]:
        """So many lines of the server's."""
        found = [self._file.readline() for _ in range(count)]
        assert all(line.endswith(b"\r\n") for line in found), found
        return found

    def ask(self, line: bytes) -> bytes:
        """A command and the one line of its reply, which has to be a good one."""
        self.say(line)
        (reply,) = self.lines(1)
        assert reply[:1] in b"+23", reply
        return reply

    def multiline(self, count: int = 1) -> None:
        """So many replies that end with a dot."""
        for _ in range(count):
            assert self.lines(1)[0].startswith(b"+OK")
            while self.lines(1)[0] != b".\r\n":
                pass

    def send(self, name: str) -> None:
        """One message, a reply awaited for each command."""
        self.ask(b"MAIL FROM:<sender@example.net>")
        self.ask(b"RCPT TO:<%s@%s>" % (name.encode(), DOMAIN.encode()))
        self.ask(b"DATA")
        self.ask(CONTENT + b".")

    def begin(self, name: str, content: bytes = CONTENT) -> None:
        """One message, its commands in one packet; the reply to its content is not awaited."""
        self.say(
            b"MAIL FROM:<sender@example.net>", b"RCPT TO:<%s@%s>" % (name.encode(), DOMAIN.encode()), b"DATA"
        )
        assert [line[:3] for line in self.lines(3)] == [b"250", b"250", b"354"]
        self.say(content + b".")


def started(appliance: Appliance) -> Counted:
    """A server that counts, of an appliance that was made for it, with accounts for all kinds of work."""
    appliance.add_accounts("anna", "ben", "drained", "large", "listed", *SESSIONS)
    return Counted(appliance)
