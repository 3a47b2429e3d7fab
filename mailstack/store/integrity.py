"""Does the store add up? Recounts what is counted, and finds what belongs to nothing.

Every step is a short transaction of its own, so a check runs beside the service. What is found is
looked at again, inside the transaction that mends it: mail may have come or gone in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from mailstack.errors import StoreDamaged
from mailstack.store import legible, messages, reread
from mailstack.store.engine import Database
from mailstack.store.finding import Finding
from mailstack.store.legible import Scan
from mailstack.store.links import Range
from mailstack.store.parts import message_of
from mailstack.store.progress import Progress
from mailstack.store.recount import Counters
from mailstack.store.runs import Runs
from mailstack.store.tables import account, content, message

_IDS_A_STEP = 5000


class Step(NamedTuple):
    """How far a check has come, and what the step found."""

    progress: Progress
    findings: tuple[Finding, ...]


def check(database: Database, *, repair: bool = False, read_content: bool = True) -> Iterator[Step]:
    """Look through the whole store, mending what can be if `repair`; yields after every step.

    Reading every message takes as long as a backup; without it counters and links are compared.
    """
    ranges = _ranges(*_all_ends(database))
    steps: list[Iterator[Finding]] = [
        *(_scanned(database, each) for each in legible.scans(database)),
        # Messages first: mending an entry's octets changes what its account's counters have to be.
        *(_messages_step(database, each, repair=repair) for each in ranges),
        *(_account_step(database, Counters(each), repair=repair) for each in _accounts(database)),
        *(_content(database, each) for each in ranges if read_content),
    ]
    for done, step in enumerate(steps, 1):
        yield Step(Progress(done, len(steps)), tuple(step))


def _accounts(database: Database) -> Sequence[int]:
    try:
        with database.reading() as connection:
            return connection.execute(select(account.c.id).order_by(account.c.id)).scalars().all()
    except StoreDamaged:  # which the step that reads the table tells
        return ()


def _scanned(database: Database, scan: Scan) -> Iterator[Finding]:
    if not legible.can_be_read(database, scan):
        yield Finding(f"some of the {scan.name} {legible.UNREADABLE}", mendable=False)


def _content(database: Database, part: Range) -> Iterator[Finding]:
    for found in reread.reread(database, part.low - 1, part.high - 1):
        with suppress(StoreDamaged):  # of what it could not note the finding tells all the same
            reread.note(database, found)
        for said in (*(said for _, said in found.damaged), *found.uncanonical):
            yield Finding(said, mendable=False)


def _ranges(first: int, last: int) -> list[Range]:
    return [Range(low, low + _IDS_A_STEP) for low in range(first, last + 1, _IDS_A_STEP)]


def _all_ends(database: Database) -> tuple[int, int]:
    try:
        with database.reading() as connection:
            return _ends(connection)
    except StoreDamaged:  # at an end: then every number that was given to a message is looked at
        with database.writing() as connection:
            return 1, messages.new_message_ids(connection, 1)[0]


def _ends(connection: Connection) -> tuple[int, int]:
    """The lowest and the highest message id; content may be left of messages beyond both ends."""
    low, high = connection.execute(select(func.min(message.c.id), func.max(message.c.id))).one()
    first, last = connection.execute(select(func.min(content.c.id), func.max(content.c.id))).one()
    ids = [low, high] if low is not None else []
    ids += [message_of(first), message_of(last)] if first is not None else []
    return (min(ids), max(ids)) if ids else (0, -1)


def _account_step(database: Database, part: Counters, *, repair: bool) -> Iterator[Finding]:
    try:
        yield from _looked_at(database, part, repair=repair)
    except StoreDamaged:
        yield _lost(part.name(database))


def _messages_step(database: Database, part: Range, *, repair: bool) -> Iterator[Finding]:
    lost = Runs()
    yield from _with_halves(database, part, lost, repair=repair)
    if lost:
        yield _lost(f"messages {lost}")


def _with_halves(database: Database, part: Range, lost: Runs, *, repair: bool) -> Iterator[Finding]:
    """What there is to say of the range; where it cannot be read, of its halves, down to what is `lost`."""
    try:
        yield from _looked_at(database, part, repair=repair)
    except StoreDamaged:
        halves = part.halves()
        if not halves:
            lost.add(part.low)
        for half in halves:
            yield from _with_halves(database, half, lost, repair=repair)


def _lost(whose: str) -> Finding:
    return Finding(f"some of what belongs to {whose} {legible.UNREADABLE}", mendable=False)


def _looked_at(database: Database, part: Counters | Range, *, repair: bool) -> tuple[Finding, ...]:
    with database.reading() as connection:
        found = part.look(connection)
    if not repair or not any(finding.mendable for finding in found):
        return found
    with database.writing() as connection:
        part.lock(connection)
        found = part.look(connection)
        part.mend(connection)
    return found


def sweep(database: Database) -> Iterator[int]:
    """Remove what belongs to nothing, range by range; yields how much that was in each."""
    with database.reading() as connection:
        ends = _ends(connection)
    for here in _ranges(*ends):
        with database.reading() as connection:
            litter = [*here.orphans(connection), *here.strays(connection)]
        if litter:
            with database.writing() as connection:
                here.sweep(connection)
        yield len(litter)
