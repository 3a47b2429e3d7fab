"""What an account may keep, and for how long: its own word, else its domain's, else the settings'."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, func, select, update

from mailstack.store import routing
from mailstack.store.tables import UNLIMITED, account, domain
from mailstack.values import DAY_SECONDS


class Limits(NamedTuple):
    """Of an account or of a domain; None is none at all, or says nothing, as the function says."""

    quota_octets: int | None = None
    quota_messages: int | None = None
    keep_seconds: int | None = None
    keep_read_seconds: int | None = None
    keep_messages: int | None = None


NO_LIMITS: Final = Limits()


class Expiry(NamedTuple):
    """What EXPIRE may announce (RFC 2449 §6.7): whole days, or None for NEVER."""

    days: int | None
    differs: bool  # by account, so that before a login it is only the least of them


def of_account(connection: Connection, account_id: int, default: Limits = NO_LIMITS) -> Limits:
    """What holds for an account in the end; None is no limit."""
    names = [func.coalesce(account.c[name], domain.c[name]) for name in Limits._fields]
    row = connection.execute(
        select(*names).join(domain, domain.c.id == account.c.domain_id).where(account.c.id == account_id)
    ).one()
    return _settled(row, default)


def of_all(connection: Connection, default: Limits = NO_LIMITS) -> dict[int, Limits]:
    """What holds for every account, by its id."""
    names = [func.coalesce(account.c[name], domain.c[name]) for name in Limits._fields]
    rows = connection.execute(
        select(account.c.id, *names).join(domain, domain.c.id == account.c.domain_id).order_by(account.c.id)
    )
    return {row[0]: _settled(row[1:], default) for row in rows}


def set_for_account(connection: Connection, account_id: int, **limits: int | None) -> None:
    """Change an account's own: UNLIMITED is none, None is what its domain says."""
    assert limits.keys() <= set(Limits._fields)
    connection.execute(update(account).where(account.c.id == account_id).values(**limits))


def set_for_domain(connection: Connection, name: str, **limits: int | None) -> None:
    """Change what holds for a domain's accounts that say nothing; raises NotOurDomain."""
    assert limits.keys() <= set(Limits._fields)
    where = domain.c.id == routing.domain_id(connection, name)
    connection.execute(update(domain).where(where).values(**limits))


def said_by_domain(connection: Connection, name: str) -> Limits:
    """What a domain says, None where it says nothing; raises NotOurDomain."""
    where = domain.c.id == routing.domain_id(connection, name)
    row = connection.execute(select(*(domain.c[each] for each in Limits._fields)).where(where)).one()
    return Limits(*row)


def expiry(connection: Connection, default: Limits, account_id: int | None = None) -> Expiry | None:
    """How many days a message is safe here: of an account, or the least of all before a login.

    None where a number of messages is kept: a flood may push any of them out on the day it came, so
    no number of days is true, and 0 would say that nothing may be left here at all.
    """
    if account_id is not None:
        settled = [of_account(connection, account_id, default)]
    else:
        settled = list(of_all(connection, default).values()) or [default]
    if any(each.keep_messages is not None for each in settled):
        return None
    known = {_days(each) for each in settled}
    numbers = [each for each in known if each is not None]
    return Expiry(min(numbers, default=None), differs=len(known) > 1)


def _days(limits: Limits) -> int | None:
    ages = [each for each in (limits.keep_seconds, limits.keep_read_seconds) if each is not None]
    return min(ages) // DAY_SECONDS if ages else None


def _settled(row: Any, default: Limits) -> Limits:
    found = (fallback if said is None else said for said, fallback in zip(row, default, strict=True))
    return Limits(*(None if each == UNLIMITED else each for each in found))
