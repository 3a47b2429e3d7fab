"""Content that nobody has any more goes after its entries, in slices: so nobody waits for a big removal.

Whoever removes entries notes their messages in the table `leftover`, in the same transaction. A sweep
takes notes and removes what is in no maildrop of theirs, by one short transaction after the other, in
turn with all others that write. A message goes whole: content that is there is complete.

Small messages of many maildrops lie mixed, three on a page of SQLite's. A page that loses one of them is
read, logged and copied back; one that loses all of them at once falls free without being written. So a
sweep waits until nobody has deleted anything for a while, and for so much or so long at most, and takes
messages in the order in which they lie. The notes are on disk: to wait loses nothing.

- A kill at any moment: a note goes with its content, in one transaction. What is noted is found by
  whoever sweeps next, which the next process to serve and housekeeping do without being asked.
- A message with another entry, or with one that can be brought back, stays; the note goes. Whoever
  removes that one later notes it again.
- Several processes of one SQLite file: one writes at a time, and each sees what the other has committed.
- Several hosts of one PostgreSQL: those that remove a message's last two entries at once do not see each
  other's, but each leaves a note, and the one whose COMMIT came last is swept when both have gone.
  Sweeps take different notes (SKIP LOCKED). Two notes of one message may come to two sweeps: they lock
  messages in one order, and who comes second finds nothing.
- A restore that enters a message anew locks it first. Either it finds it gone and brings its own, or
  the sweep waits for it and looks again, see `_orphans`.
- Whoever reads content has the maildrop's lock and the entry in it, which keeps the content there. A
  backup reads in a snapshot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, and_, bindparam, delete, exists, literal_column, select

from mailstack import log
from mailstack.errors import MailstackError, StoreDamaged
from mailstack.store import surrogate
from mailstack.store.parts import content_ids
from mailstack.store.prepared import Prepared, Row, is_among, packed
from mailstack.store.readers import Readers
from mailstack.store.tables import content, entry, leftover, message, removed
from mailstack.store.writer import Writer

QUIET_SECONDS: Final = 2.0
"""A sweep begins so long after the last note of this process: what others wait for is done by then."""

LATEST_SECONDS: Final = 30.0
"""It begins so long after the first note, however many follow."""

ENOUGH_OCTETS: Final = 64 * 1024 * 1024
"""It begins with so much to remove: new mail finds no room where that lies, and lets the file grow."""

_WINDOW: Final = 20_000
"""So many notes, the oldest, are put in order at a time: some 10 ms on a reading thread, and 1 MB."""

_MANY_OCTETS: Final = 1024 * 1024
"""Less is one slice, as a rule, within which the notes need no order."""

_OTHERS: Final = 3
"""For so many times as long as a slice took, the writer is everybody else's."""


IN_NO_MAILDROP: Final = and_(
    ~exists().where(entry.c.message_id == message.c.id),
    ~exists().where(removed.c.message_id == message.c.id),
)
"""Of a row of `message`: no entry points to it, not even one that can be brought back."""


class Slice(NamedTuple):
    """How much one transaction looks at, and removes: at least one message, whatever its size."""

    messages: int
    octets: int
    seconds: float = 60.0
    """After so long it begins no other bundle: what 5 MB cost depends on how they lie, 0.4 ms to 20."""
    notes: Sequence[int] = ()
    """Which notes, as many as `messages` at most; none named: the oldest ones."""


# The more goes at once, the fewer pages are changed twice. 500 small messages cost 12 us each, 2,000 cost
# 7, some 15 ms together; 4,000 cost as much each.
_SLICE: Final = Slice(messages=2000, octets=64 * 1024 * 1024, seconds=0.02)
_BUNDLE_OCTETS: Final = 1024 * 1024
_ONE: Final = Slice(messages=1, octets=0)


def sweep(connection: Connection, jobs: Sequence[Slice]) -> list[bool]:
    """Remove what is noted and in no maildrop; return for each job whether there may be more of it."""
    return [_swept(connection, job) for job in jobs]


def pass_over(connection: Connection, jobs: Sequence[Slice]) -> list[bool]:
    """The same, but drop the notes alone: `database check` tells of the messages."""
    for job in jobs:
        _DROP_NOTES.run(connection, packed(number for number, _ in _notes(connection, job)))
    return [True] * len(jobs)


def _swept(connection: Connection, job: Slice) -> bool:
    notes = _notes(connection, job)
    if not notes:
        return False
    put_off: set[int] = set()
    until = time.monotonic() + job.seconds
    octets = 0
    for bundle in _bundles(_orphans(connection, {message_id for _, message_id in notes}), job.octets):
        size = sum(each[1] for each in bundle)
        if octets and (octets + size > job.octets or time.monotonic() > until):
            put_off.update(number for number, _, _ in bundle)
        else:
            _remove(connection, bundle)
            octets += size
    done = [number for number, message_id in notes if message_id not in put_off]
    _DROP_NOTES.run(connection, packed(done))
    return bool(put_off) or (not job.notes and len(notes) == job.messages)


def _bundles(rows: list[Row], most_octets: int) -> Iterator[list[Row]]:
    """Messages that are removed together, one at least."""
    bundle: list[Row] = []
    octets = 0
    for row in rows:
        octets += row[1]
        if bundle and octets > min(_BUNDLE_OCTETS, most_octets):
            yield bundle
            bundle, octets = [], row[1]
        bundle.append(row)
    if bundle:
        yield bundle


def _notes(connection: Connection, job: Slice) -> Sequence[Any]:
    if job.notes:
        return _NOTED.rows(connection, packed(job.notes))
    return _OLDEST_TO_REMOVE.rows(connection, job.messages)


def in_order(connection: Connection) -> list[int]:
    """The oldest notes, in the order in which SQLite has their messages on its pages."""
    notes = _OLDEST.rows(connection, _WINDOW)
    return [number for _, number in sorted((message_id, number) for number, message_id in notes)]


def _orphans(connection: Connection, message_ids: set[int]) -> list[Row]:
    """Those of the messages that no entry points to, not even a removed one: id, octets, surrogate's id."""
    found = _ORPHANS.rows(connection, packed(message_ids))
    if connection.dialect.name == "postgresql":
        # Whoever had to wait here for a restore sees only now what that has entered.
        found = _ORPHANS.rows(connection, packed(number for number, _, _ in found))
    return found


def _remove(connection: Connection, doomed: list[Row]) -> None:
    if surrogates := [surrogate_id for _, _, surrogate_id in doomed if surrogate_id is not None]:
        doomed = doomed + surrogate.FOUND.rows(connection, packed(surrogates))
    parts = [each for number, octets, _ in doomed for each in content_ids(number, octets)]
    _DELETE_CONTENT.run(connection, packed(parts))
    _DELETE_MESSAGES.run(connection, packed(number for number, _, _ in doomed))


def _sliced(notes: Sequence[int], how_much: Slice) -> Iterator[Slice]:
    for first in range(0, len(notes), how_much.messages):
        yield how_much._replace(notes=notes[first : first + how_much.messages])


# An offset, or SQLAlchemy makes a parameter of its own of one for SQLite.
_OLDEST_NOTES = (
    select(leftover.c.id, leftover.c.message_id)
    .order_by(leftover.c.id)
    .limit(bindparam("most"))
    .offset(literal_column("0"))
)
_OLDEST = Prepared(_OLDEST_NOTES, "most")
_OLDEST_TO_REMOVE = Prepared(_OLDEST_NOTES.with_for_update(skip_locked=True), "most")
_NOTED = Prepared(
    select(leftover.c.id, leftover.c.message_id)
    .where(is_among(leftover.c.id, "ids"))
    .order_by(leftover.c.id)
    .with_for_update(skip_locked=True),
    "ids",
)
_ORPHANS = Prepared(
    select(message.c.id, message.c.octets, message.c.surrogate_id)
    .where(is_among(message.c.id, "ids"), IN_NO_MAILDROP)
    .order_by(message.c.id)
    .with_for_update(),
    "ids",
)
_DELETE_CONTENT = Prepared(delete(content).where(is_among(content.c.id, "ids")), "ids")
_DELETE_MESSAGES = Prepared(delete(message).where(is_among(message.c.id, "ids")), "ids")
_DROP_NOTES = Prepared(delete(leftover).where(is_among(leftover.c.id, "ids")), "ids")

_ATTEMPTS: Final[Sequence[tuple[Callable[[Connection, Sequence[Slice]], list[bool]], Slice]]] = (
    (sweep, _SLICE),
    (sweep, _ONE),  # where a page is lost, what lies elsewhere goes all the same
    (pass_over, _ONE),
)


class Leftovers:
    """One process's sweeps; belongs to the event loop. Nothing runs while nobody asks."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers
        self._loop = asyncio.get_running_loop()
        self.octets = 0
        """Noted here since the last sweep began, and still there."""
        self._asked = False  # since then
        self._asked_at = 0.0  # for the last time
        self._at_once = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def ask(self, octets: int = 0) -> None:
        """Have all that is left over removed, with what others leave soon; so much is new."""
        self.octets += octets
        self._asked = True
        self._asked_at = self._loop.time()
        if self.octets >= ENOUGH_OCTETS:
            self._at_once.set()
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    def hurry(self) -> None:
        """Have it removed now: somebody needs the room."""
        self._at_once.set()
        self.ask()

    async def slice(self, wanted: Slice | None = None) -> bool:
        """Remove one slice now, the oldest or the one that is wanted; return whether there may be more."""
        for work, how_much in _ATTEMPTS[:-1]:
            try:
                return await self._writer.write(work, wanted or how_much)
            except StoreDamaged as error:
                damage, wanted = error, None
        log.failure("removal of content", damage)
        work, how_much = _ATTEMPTS[-1]
        return await self._writer.write(work, how_much)

    async def finish(self) -> None:
        """Remove all of it; between two slices others have the writer for longer than a slice took."""
        more = True
        while more:
            notes = await self._readers.read(in_order)
            more = len(notes) == _WINDOW
            for some in _sliced(notes, _ATTEMPTS[0][1]):
                began = time.monotonic()
                more |= await self.slice(some)
                await asyncio.sleep(_OTHERS * (time.monotonic() - began))

    async def _run(self) -> None:
        try:
            while self._asked:
                await self._quiet(self._loop.time() + LATEST_SECONDS)
                octets, self.octets = self.octets, 0
                self._asked = False  # what is noted from now on asks again
                self._at_once.clear()
                if octets >= _MANY_OCTETS or await self.slice():
                    await self.finish()
        except MailstackError as error:  # the notes stay, and the next one who asks does it
            log.failure("removal of content", error)
        finally:
            self._task = None

    async def _quiet(self, latest: float) -> None:
        """Wait until nobody has asked for a while, but not beyond `latest`, nor where it is wanted now."""
        while (until := min(self._asked_at + QUIET_SECONDS, latest)) > self._loop.time():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._at_once.wait()
                    return

    async def close(self) -> None:
        """Leave the rest to the next process; a slice that is under way is finished by the writer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
