"""Accounts: SQL as plain functions `f(connection, ...)`.

An address is an account or an alias, never both. The id, and with it the mail, the unique-ids and
the maildrop's lock, stays the same through a rename.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, case, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from mailstack.errors import AlreadyThere, NotFound, NotOurDomain
from mailstack.mail.address import Mailbox
from mailstack.store import aliases, events, facts, logins, routing, upsert
from mailstack.store.clock import moment, now
from mailstack.store.events import Kind
from mailstack.store.routing import Place
from mailstack.store.tables import account, domain, effective, entry, imported, leftover, removed, state


class Account(NamedTuple):
    """An account as its administrator sees it; its password hash stays where it is."""

    id: int
    mailbox: Mailbox
    messages: int
    octets: int
    quota_octets: int | None  # its own or its domain's; None: no limit
    uid_validity: int
    created_at: datetime
    disabled_at: datetime | None
    quota_messages: int | None


class NewAccount(NamedTuple):
    """What `add_accounts` makes an account of."""

    mailbox: Mailbox
    password_hash: str
    quota_octets: int | None = None
    scram_keys: str | None = None


def add_account(
    connection: Connection,
    mailbox: Mailbox,
    *,
    password_hash: str,
    quota_octets: int | None = None,
    scram_keys: str | None = None,
) -> Account:
    """Make one account; raises AlreadyThere, NotOurDomain or BadAddress."""
    add_accounts(connection, [NewAccount(mailbox, password_hash, quota_octets, scram_keys)])
    return find_account(connection, mailbox)


def add_accounts(connection: Connection, accounts: Sequence[NewAccount]) -> None:
    """Make all of them or none, in one statement."""
    if not accounts:
        return
    places = _places(connection, [new.mailbox for new in accounts])
    refuse_taken(connection, *(new.mailbox for new in accounts))
    last = _new_uid_validities(connection, len(accounts))
    rows = [
        {
            **where._asdict(),
            "password_hash": new.password_hash,
            "scram_keys": new.scram_keys,
            "uid_validity": last - len(accounts) + 1 + number,
            "next_uid": 1,
            "octets": 0,
            "messages": 0,
            "quota_octets": new.quota_octets,
            "created_at": now(),
        }
        for number, (new, where) in enumerate(zip(accounts, places, strict=True))
    ]
    try:
        connection.execute(insert(account), rows)
    except IntegrityError as error:  # somebody else added one of them since we looked
        raise AlreadyThere("one of these accounts has just been added by somebody else") from error


def taken(connection: Connection, mailboxes: Sequence[Mailbox]) -> dict[Mailbox, str]:
    """Those of the addresses that nobody may be given, and what they are already."""
    places = _places(connection, mailboxes)
    known = routing.taken(connection, places)
    found: dict[Mailbox, str] = {}
    seen: set[Place] = set()
    for mailbox, where in zip(mailboxes, places, strict=True):
        if where in known or where in seen:
            found[mailbox] = known.get(where, "twice in the list")
        seen.add(where)
    return found


def refuse_taken(connection: Connection, *mailboxes: Mailbox) -> None:
    """Raise AlreadyThere if one of the addresses is taken, or given twice."""
    for mailbox, what in taken(connection, mailboxes).items():
        raise AlreadyThere(f"{mailbox} is {what}")


def find_account(connection: Connection, mailbox: Mailbox) -> Account:
    """The account of exactly this address, or NotFound that says what else the address is."""
    where = _place(connection, mailbox)
    row = connection.execute(
        _accounts().where(account.c.domain_id == where.domain_id, account.c.local_part == where.local_part)
    ).one_or_none()
    if row is not None:
        return _account(row)
    if targets := aliases.targets(connection, where):
        raise NotFound(f"{mailbox} is not an account but an alias of {', '.join(map(str, targets))}")
    raise NotFound(f"there is no account {mailbox}")


def list_accounts(connection: Connection, domain_name: str | None = None) -> list[Account]:
    """All accounts, or those of one domain, by address."""
    wanted = _accounts().order_by(domain.c.name, account.c.local_part)
    if domain_name is not None:
        wanted = wanted.where(account.c.domain_id == routing.domain_id(connection, domain_name))
    return [_account(row) for row in connection.execute(wanted)]


def set_password(
    connection: Connection, mailbox: Mailbox, password_hash: str, *, scram_keys: str | None = None
) -> None:
    """Replace the password, and with it the keys: those of the old one must not go on working."""
    _change(connection, mailbox, password_hash=password_hash, scram_keys=scram_keys)


def disable(connection: Connection, mailbox: Mailbox) -> bool:
    """Refuse mail and logins, keep what is there; return whether anything changed."""
    if find_account(connection, mailbox).disabled_at is not None:
        return False
    _change(connection, mailbox, disabled_at=now())
    return True


def enable(connection: Connection, mailbox: Mailbox) -> bool:
    """Undo `disable`; return whether anything changed."""
    if find_account(connection, mailbox).disabled_at is None:
        return False
    _change(connection, mailbox, disabled_at=None)
    return True


def remove_account(connection: Connection, mailbox: Mailbox) -> list[Mailbox]:
    """Remove an account, its entries and every alias target that means it; the caller holds its lock.

    Returns the aliases that have changed or gone.
    """
    found = find_account(connection, mailbox)
    # The lock comes before the entries: a deposit that is under way is either wholly there or refused.
    connection.execute(select(account.c.id).where(account.c.id == found.id).with_for_update())
    for table in (entry, removed):
        mine = table.c.account_id == found.id
        noted = select(table.c.message_id).where(mine)
        connection.execute(insert(leftover).from_select([leftover.c.message_id], noted))
        connection.execute(delete(table).where(mine))
    connection.execute(delete(imported).where(imported.c.account_id == found.id))
    changed = aliases.drop_target(connection, _place(connection, found.mailbox))
    logins.forget(connection, str(found.mailbox))
    events.add(connection, Kind.REMOVED, found.id, account=str(found.mailbox), why="the account was removed")
    connection.execute(delete(account).where(account.c.id == found.id))
    return changed


def rename_account(connection: Connection, old: Mailbox, new: Mailbox) -> Account:
    """Give an account another address; mail and unique-ids stay, and the old address becomes an alias."""
    found = find_account(connection, old)
    here, there = _place(connection, found.mailbox), _place(connection, new)
    if here == there:
        raise AlreadyThere(f"{new} is the account's address already")
    # Back to an address it had before: the alias that a rename left there makes room.
    if aliases.targets(connection, there) == [found.mailbox]:
        aliases.remove(connection, there)
    refuse_taken(connection, new)
    try:
        connection.execute(update(account).where(account.c.id == found.id).values(**there._asdict()))
        aliases.move_target(connection, here, there)
        aliases.insert_targets(connection, here, [there])
    except IntegrityError as error:
        raise AlreadyThere(f"{new} has just been taken by somebody else") from error
    renamed = find_account(connection, new)
    logins.rename(connection, str(found.mailbox), str(renamed.mailbox))
    return renamed


def _place(connection: Connection, mailbox: Mailbox) -> Place:
    return _places(connection, [mailbox])[0]


def _places(connection: Connection, mailboxes: Sequence[Mailbox]) -> list[Place]:
    try:
        return routing.places(connection, mailboxes)
    except NotOurDomain as error:
        raise NotOurDomain(f"{error}; mailstack domain add makes it ours") from error


def _change(connection: Connection, mailbox: Mailbox, **columns: Any) -> None:
    found = find_account(connection, mailbox)
    connection.execute(update(account).where(account.c.id == found.id).values(**columns))


def renew_uid_validities(connection: Connection, *account_ids: int) -> None:
    """Give accounts, or all, a uid validity that none ever had: their next unique-ids are new for certain."""
    wanted = select(account.c.id).order_by(account.c.id)
    if account_ids:
        wanted = wanted.where(account.c.id.in_(account_ids))
    ids = connection.execute(wanted).scalars().all()
    if ids:
        last = _new_uid_validities(connection, len(ids))
        connection.execute(
            update(account).where(account.c.id == bindparam("key")).values(uid_validity=bindparam("new")),
            [{"key": key, "new": last - number} for number, key in enumerate(ids)],
        )


def surpass_uid_validity(connection: Connection, account_id: int, foreign: int) -> int:
    """The same for one account, beyond a number of another server's: no next unique-id can be one of its."""
    given = upsert.insert(connection.dialect.name, state).values(name=facts.UID_VALIDITY, value=foreign)
    larger = case((state.c.value >= foreign, state.c.value), else_=foreign)
    connection.execute(given.on_conflict_do_update(index_elements=[state.c.name], set_={"value": larger}))
    renew_uid_validities(connection, account_id)
    mine = select(account.c.uid_validity).where(account.c.id == account_id)
    return int(connection.execute(mine).scalar_one())


def _new_uid_validities(connection: Connection, count: int) -> int:
    """Take `count` numbers that no account ever had; return the last of them.

    They follow the clock, so that a store that was restored from a backup goes on beyond those it
    gave out after the backup was made.
    """
    seconds = int(time.time())
    given = upsert.insert(connection.dialect.name, state).values(
        name=facts.UID_VALIDITY, value=seconds + count - 1
    )
    following = case((state.c.value >= seconds, state.c.value + count), else_=seconds + count - 1)
    statement = given.on_conflict_do_update(index_elements=[state.c.name], set_={"value": following})
    return int(connection.execute(statement.returning(state.c.value)).scalar_one())


def _accounts() -> Select[Any]:
    quotas = (effective(name).label(f"effective_{name}") for name in ("quota_octets", "quota_messages"))
    return select(account, domain.c.name, *quotas).join(domain, domain.c.id == account.c.domain_id)


def _account(row: Any) -> Account:
    return Account(
        id=row.id,
        mailbox=Mailbox(row.local_part, row.name),
        messages=row.messages,
        octets=row.octets,
        quota_octets=row.effective_quota_octets,
        quota_messages=row.effective_quota_messages,
        uid_validity=row.uid_validity,
        created_at=moment(row.created_at),
        disabled_at=None if row.disabled_at is None else moment(row.disabled_at),
    )
