"""What happened to mail: finds events, and follows a message from one to the next."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, TextClause, or_, select, true

from mailstack.errors import BadAddress, NotFound, Permanent
from mailstack.mail import unique_id as unique_ids
from mailstack.mail.address import fold_domain, fold_local_part, parse_sender
from mailstack.peers import ip_of
from mailstack.store import accounts, runs
from mailstack.store.events import Kind, account_mark
from mailstack.store.tables import IS_FOREIGN, account, entry, event, removed

_ID: Final = re.compile(r"[a-z2-7]{8}(-\d+)?")
_FORM_OF_OWN: Final = re.compile(r"[0-9]+\.[0-9]+")

_ACCOUNTS_AT_ONCE: Final = 50
_ROWS_AT_ONCE: Final = 500
_LATER: Final = (Kind.SESSION, Kind.REMOVED, Kind.FORGOTTEN, Kind.RESTORED, Kind.IMPORTED)

Entry = tuple[int, int]
"""An account's id and a uid."""


class Event(NamedTuple):
    """One thing that happened."""

    at: int
    name: str
    kind: Kind
    told: Mapping[str, Any]

    @property
    def entries(self) -> list[Entry]:
        """What a message was entered as."""
        return [(account_id, uid) for account_id, uid in self.told.get("entries", ())]

    @property
    def uids(self) -> list[str]:
        """What of its maildrop it is about, as runs."""
        return [self.told[name] for name in ("retrieved", "deleted", "uids") if name in self.told]


class Where(NamedTuple):
    """Where a message is now, for one of its recipients."""

    mail: str
    account_id: int
    uid: int
    state: str  # "there", "removed" (it can be brought back) or "gone"
    unique_id: str | None = None
    first_read_at: int | None = None


class Story(NamedTuple):
    """Events in the order of time, where the messages among them are now, and the accounts by their ids."""

    events: list[Event]
    now: list[Where]
    names: Mapping[int, str]


def find(connection: Connection, what: str | None, since: int) -> Story:
    """What happened since a time to an address, a mail, a session; or all of it.

    `what` is an account's or somebody's address, a peer's IP address, the id of a message or a
    session as replies, `Received:` and log have it, a Message-ID, or a UIDL, whatever other servers give
    out as such. Raises NotFound where it is none of these.
    """
    only: set[Entry] | None = None
    if what is None:
        found = _rows(connection, true(), since)
    elif _ID.fullmatch(what) and (named := _named(connection, what, since)):
        found = named
    elif entries := _entries(connection, what):
        only = entries
        found = _delivered(connection, only, since)
    elif _ID.fullmatch(what):
        found = []  # it may have been one of ours, that was forgotten since
    else:
        marks, own = _marks(connection, what)
        found = _rows(connection, or_(*map(_is_about, marks)), since)
        if own is not None:
            only = {each for mail in found for each in mail.entries if each[0] == own}
    mails = {each: one.name for one in found for each in one.entries if only is None or each in only}
    if only is not None:
        mails |= {each: what or "" for each in only if each not in mails}
    if what is not None:
        found += _followed(connection, mails, min((one.at for one in found), default=since))
    unique = {(one.at, one.name): one for one in found}
    names = {each.id: str(each.mailbox) for each in accounts.list_accounts(connection)}
    return Story(
        [unique[key] for key in sorted(unique)],
        list(_whereabouts(connection, mails)) if what is not None else [],
        names,
    )


def _rows(connection: Connection, wanted: ColumnElement[bool], since: int) -> list[Event]:
    order = event.c.at, event.c.id
    rows = connection.execute(select(event).where(event.c.at >= since, wanted).order_by(*order))
    return [Event(row.at, row.name, Kind(row.kind), json.loads(row.told)) for row in rows]


def _named(connection: Connection, name: str, since: int) -> list[Event]:
    """What has this id, of a message or of a session with its messages."""
    found = _rows(connection, (event.c.name == name) | event.c.name.like(f"{name}-%"), since)
    return found + _mails_of(connection, found)


def _is_about(mark: str) -> ColumnElement[bool]:
    return event.c.about.contains(f"\n{mark}\n", autoescape=True)


def _marks(connection: Connection, what: str) -> tuple[set[str], int | None]:
    """What events about this address have written in them, and the id of the account that it is."""
    try:
        return {str(ip_of(what))}, None
    except ValueError:
        pass
    if _FORM_OF_OWN.fullmatch(what):
        raise NotFound(f"nothing is known of the unique-id {what}: no maildrop has given it out")
    bare = what.strip("<>")
    if "@" not in bare:
        raise NotFound(
            f"{what!r} is no address (name@domain, or an IP address) and no id; ids are in the `Received:`"
            " field, in the reply 250, in the log, or are the Message-ID or the UIDL of a message"
        )
    marks = {bare.casefold(), f"<{bare.casefold()}>"}
    try:
        mailbox = parse_sender(bare)  # so can every recipient be
    except BadAddress:  # a Message-ID may look like one and be none
        return marks, None
    domain = fold_domain(mailbox.domain)
    marks |= {str(mailbox).casefold(), f"{fold_local_part(mailbox.local_part)}@{domain}"}
    try:
        own = accounts.find_account(connection, mailbox).id
    except Permanent:  # it is nobody's here
        return marks, None
    return marks | {account_mark(own)}, own


def _entries(connection: Connection, unique_id: str) -> set[Entry]:
    """What a UIDL was given out for: entries of several maildrops, where other servers gave it to several.

    Each account is asked, by the key or by `ix_entry_foreign_id`: 0.15 s for 10,000 accounts with a million
    entries, on SQLite. What can still be brought back has no such index, and is read whole.
    """
    if not unique_ids.is_valid(unique_id):
        return set()
    uid = unique_ids.uid_at_end(unique_id)
    ways: list[tuple[Table, ColumnElement[bool] | TextClause]] = [(entry, IS_FOREIGN), (removed, true())]
    if uid is not None:
        ways.insert(0, (entry, entry.c.uid == uid))
    found = set()
    for table, way in ways:
        everywhere = table.c.account_id.in_(select(account.c.id))
        wanted = select(table.c.account_id, table.c.uid).where(
            everywhere, table.c.unique_id == unique_id, way
        )
        found |= {(row.account_id, row.uid) for row in connection.execute(wanted)}
    return found or _given(connection, unique_id)


def _given(connection: Connection, unique_id: str) -> set[Entry]:
    """What one of our own was given out for, which is there no longer."""
    own = unique_ids.own(unique_id)
    if own is not None and own.uid_validity <= unique_ids.LARGEST:
        given = select(account.c.id, account.c.next_uid).where(account.c.uid_validity == own.uid_validity)
        found = connection.execute(given).first()
        if found is not None and 0 < own.uid < found.next_uid:
            return {(found.id, own.uid)}
    return set()


def _delivered(connection: Connection, entries: Collection[Entry], since: int) -> list[Event]:
    """The messages that came as one of these entries."""
    wanted = or_(*(_is_about(account_mark(number)) for number in {number for number, _ in entries}))
    mails = _rows(connection, wanted & (event.c.kind == Kind.ACCEPTED), since)
    return [mail for mail in mails if not set(entries).isdisjoint(mail.entries)]


def _mails_of(connection: Connection, sessions: Iterable[Event]) -> list[Event]:
    """The messages that sessions have downloaded or deleted."""
    found = []
    for one in sessions:
        if one.kind is Kind.SESSION:
            number = one.told["account_id"]
            mails = _rows(connection, _is_about(account_mark(number)) & (event.c.kind == Kind.ACCEPTED), 0)
            for mail in mails:
                uids = sorted(uid for account_id, uid in mail.entries if account_id == number)
                if _touches(one, uids):
                    found.append(mail)
    return found


def _followed(connection: Connection, mails: Mapping[Entry, str], since: int) -> list[Event]:
    """What happened later to the messages in their maildrops."""
    uids: dict[int, list[int]] = {}
    for account_id, uid in sorted(mails):
        uids.setdefault(account_id, []).append(uid)
    found = []
    for some in _slices(list(uids), _ACCOUNTS_AT_ONCE):
        wanted = or_(*(_is_about(account_mark(account_id)) for account_id in some))
        later = _rows(connection, wanted & event.c.kind.in_(_LATER), since)
        found += [one for one in later if _touches(one, uids.get(one.told["account_id"], []))]
    return found


def _touches(one: Event, uids: list[int]) -> bool:
    """Whether an event is about one of these uids, which are in order; one without uids is about all."""
    if not one.uids:
        return bool(uids)
    for first, last in (pair for text in one.uids for pair in runs.parsed(text)):
        place = bisect_left(uids, first)
        if place < len(uids) and uids[place] <= last:
            return True
    return False


def _whereabouts(connection: Connection, mails: Mapping[Entry, str]) -> Iterator[Where]:
    for some in _slices(sorted(mails), _ROWS_AT_ONCE):
        there: dict[Entry, tuple[str, str, int | None]] = {}
        for state, table in (("removed", removed), ("there", entry)):
            key = table.c.account_id, table.c.uid
            ids, uids = {each[0] for each in some}, {each[1] for each in some}
            rows = connection.execute(
                select(*key, table.c.unique_id, table.c.first_read_at).where(
                    key[0].in_(ids), key[1].in_(uids)
                )
            )
            there |= {(row.account_id, row.uid): (state, row.unique_id, row.first_read_at) for row in rows}
        for each in some:
            yield Where(mails[each], *each, *there.get(each, ("gone",)))


def _slices(values: list[Any], size: int) -> Iterator[list[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))
