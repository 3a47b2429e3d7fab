"""From an address to the accounts behind it: our domains, their old names, aliases, plus-addressing.

The rule, in this order: the address itself as an account, then as an alias; the same without what
follows the first `+`; the domain's catch-all. The admin's commands and delivery both ask here, so
that what `alias add` accepts is what mail will reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, select

from mailstack.errors import BadAddress, NotOurDomain
from mailstack.mail.address import Mailbox, domain_key, fold_domain, fold_local_part
from mailstack.store.prepared import Prepared, names, packed_names
from mailstack.store.tables import CATCH_ALL, account, alias, domain, effective


class Place(NamedTuple):
    """An address as the tables keep it: a domain of ours and a folded local-part."""

    domain_id: int
    local_part: str


class Reached(NamedTuple):
    """An account that mail for an address goes to, with what decides whether it may."""

    account_id: int
    mailbox: Mailbox
    octets: int
    quota_octets: int | None
    disabled: bool
    messages: int = 0
    quota_messages: int | None = None


class Expansion(NamedTuple):
    """All that mail for some addresses passes through: the accounts, and the aliases on the way."""

    accounts: tuple[Reached, ...]
    aliases: frozenset[Place]


def place(connection: Connection, mailbox: Mailbox) -> Place:
    """Where a mailbox is kept, its domain's old names understood; raises NotOurDomain or BadAddress."""
    return places(connection, [mailbox])[0]


def places(connection: Connection, mailboxes: Sequence[Mailbox]) -> list[Place]:
    """As `place`, for thousands: each domain is asked for once."""
    ids: dict[str, int] = {}
    found = []
    for each in mailboxes:
        if (local_part := fold_local_part(each.local_part)) == CATCH_ALL:
            raise BadAddress("the local-part is empty")
        if each.domain not in ids:
            ids[each.domain] = domain_id(connection, each.domain)
        found.append(Place(ids[each.domain], local_part))
    return found


def domain_id(connection: Connection, name: str) -> int:
    """The id of a domain of ours, by its name or an old one; raises NotOurDomain."""
    folded = domain_key(name)
    row = _DOMAIN.row(connection, folded)
    if row is None:
        raise NotOurDomain(f"{folded} is none of our domains")
    found: int = row[0]
    return found


def expand(connection: Connection, places: Iterable[Place], *, catch_all: bool = True) -> tuple[Reached, ...]:
    """The accounts that mail for these addresses goes to, each once; none where nobody is there."""
    return expansion(connection, places, catch_all=catch_all).accounts


def expansion(connection: Connection, places: Iterable[Place], *, catch_all: bool = True) -> Expansion:
    """Follow every alias (RFC 5321 §3.9.1), each address once: a circle ends by itself and leads nowhere."""
    found: dict[int, Reached] = {}
    passed: set[Place] = set()
    seen: set[Place] = set()
    ahead = list(dict.fromkeys(places))
    while ahead:
        seen.update(ahead)
        accounts, aliases = _at(connection, [c for p in ahead for c in _candidates(p, catch_all=catch_all)])
        further: dict[Place, None] = {}
        for wanted in ahead:
            for candidate in _candidates(wanted, catch_all=catch_all):
                if reached := accounts.get(candidate):
                    found[reached.account_id] = reached
                    break
                if targets := aliases.get(candidate):
                    passed.add(candidate)
                    further.update(dict.fromkeys(targets))
                    break
        ahead = [target for target in further if target not in seen]
    return Expansion(tuple(found.values()), frozenset(passed))


def _candidates(wanted: Place, *, catch_all: bool) -> Iterator[Place]:
    yield wanted
    if base := _base(wanted.local_part):
        yield Place(wanted.domain_id, base)
    if catch_all:
        yield Place(wanted.domain_id, CATCH_ALL)


def _base(local_part: str) -> str:
    """What stands before the first `+`; "" where there is none, or nothing before it."""
    base, plus, _ = local_part.partition("+")
    return base if plus else ""


def presumed(connection: Connection, folded: Mailbox) -> Mailbox:
    """Whose a name that is nobody's would be: without a `+` and the rest, in its domain's present name."""
    row = _PRESENT_NAME.row(connection, folded.domain)
    local_part = _base(folded.local_part) or folded.local_part
    return Mailbox(local_part, folded.domain if row is None else row[0])


def _at(
    connection: Connection, places: Sequence[Place]
) -> tuple[dict[Place, Reached], dict[Place, list[Place]]]:
    accounts: dict[Place, Reached] = {}
    for row in _ACCOUNTS.rows(connection, packed_names(places)):
        reached = _reached(row)
        accounts[Place(row[1], reached.mailbox.local_part)] = reached
    aliases: dict[Place, list[Place]] = {}
    if others := [each for each in places if each not in accounts]:
        for domain_id, local_part, *target in _ALIASES.rows(connection, packed_names(others)):
            aliases.setdefault(Place(domain_id, local_part), []).append(Place(*target))
    return accounts, aliases


def own(connection: Connection, mailbox: Mailbox) -> Reached | None:
    """The account whose own address this is, in a domain's present name; None says nothing of others."""
    row = _OWN.row(connection, fold_domain(mailbox.domain), fold_local_part(mailbox.local_part))
    return None if row is None else _reached(row)


def _reached(row: Sequence[Any]) -> Reached:
    account_id, _, local_part, octets, messages, quota_octets, quota_messages, disabled_at, name = row
    mailbox = Mailbox(local_part, name)
    return Reached(
        account_id, mailbox, octets, quota_octets, disabled_at is not None, messages, quota_messages
    )


_DOMAIN = Prepared(
    select(func.coalesce(domain.c.alias_of, domain.c.id)).where(domain.c.name == bindparam("name")), "name"
)
_PRESENT = domain.alias("present")
_PRESENT_NAME = Prepared(
    select(_PRESENT.c.name)
    .join(domain, _PRESENT.c.id == func.coalesce(domain.c.alias_of, domain.c.id))
    .where(domain.c.name == bindparam("name")),
    "name",
)
_ACCOUNT = select(
    account.c.id,
    account.c.domain_id,
    account.c.local_part,
    account.c.octets,
    account.c.messages,
    effective("quota_octets"),
    effective("quota_messages"),
    account.c.disabled_at,
    domain.c.name,
).join(domain, domain.c.id == account.c.domain_id)
_OWN = Prepared(
    _ACCOUNT.where(
        domain.c.name == bindparam("name"),
        domain.c.alias_of.is_(None),
        account.c.local_part == bindparam("local_part"),
    ),
    "name",
    "local_part",
)
_PLACES = names("places")
_ACCOUNTS = Prepared(
    _ACCOUNT.join(
        _PLACES, (account.c.domain_id == _PLACES.c.number) & (account.c.local_part == _PLACES.c.name)
    ),
    "places",
)
_ALIASES = Prepared(
    select(alias.c.domain_id, alias.c.local_part, alias.c.target_domain_id, alias.c.target_local_part)
    .join(_PLACES, (alias.c.domain_id == _PLACES.c.number) & (alias.c.local_part == _PLACES.c.name))
    .order_by(alias.c.id),
    "places",
)


def taken(connection: Connection, places: Sequence[Place]) -> dict[Place, str]:
    """Those of the addresses that mean something already, and what."""
    accounts, aliases = _at(connection, places)
    return dict.fromkeys(aliases, "an alias already") | dict.fromkeys(accounts, "an account already")


def mailbox(connection: Connection, where: Place) -> Mailbox:
    """A place as people write it; the local-part of a catch-all is empty."""
    name = connection.execute(select(domain.c.name).where(domain.c.id == where.domain_id)).scalar_one()
    return Mailbox(where.local_part, name)
