"""Aliases: one address that means others, and a domain's catch-all; plain functions `f(connection, ...)`.

There is no way out for mail yet, so a target is always an address of ours, and one that somebody
reads: what can be added can be delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select

from mailstack.errors import AlreadyThere, BadTarget, NotFound, NotOurDomain, StillInUse
from mailstack.mail.address import Mailbox
from mailstack.store import routing
from mailstack.store.clock import now
from mailstack.store.routing import Place
from mailstack.store.tables import CATCH_ALL, alias, domain


class Alias(NamedTuple):
    """An address and where its mail goes; the local-part of a catch-all is empty."""

    mailbox: Mailbox
    targets: tuple[Mailbox, ...]


def written(source: Mailbox) -> str:
    """An alias as the admin writes it: `@example.org` is a catch-all."""
    return str(source) if source.local_part else f"@{source.domain}"


def add_alias(connection: Connection, source: Mailbox, wanted: Sequence[Mailbox]) -> Alias:
    """Send mail for `source` to the targets too, those of which it has not yet.

    Raises AlreadyThere where it is an account, BadTarget or NotOurDomain.
    """
    here = source_place(connection, source)
    if routing.taken(connection, [here]).get(here) == "an account already":
        raise AlreadyThere(f"{source} is an account, and its mail stays there")
    places = dict.fromkeys(_target(connection, here, mailbox) for mailbox in wanted)
    present = _target_places(connection, here)
    if new := [where for where in places if where not in present]:
        insert_targets(connection, here, new)
    return Alias(routing.mailbox(connection, here), tuple(targets(connection, here)))


def list_aliases(connection: Connection, domain_name: str | None = None) -> list[Alias]:
    """All aliases, or those of one domain, by address; the catch-all comes first in its domain."""
    own, theirs = domain.alias("own"), domain.alias("theirs")
    wanted = (
        select(alias.c.local_part, own.c.name, alias.c.target_local_part, theirs.c.name.label("target_name"))
        .join(own, own.c.id == alias.c.domain_id)
        .join(theirs, theirs.c.id == alias.c.target_domain_id)
        .order_by(own.c.name, alias.c.local_part, alias.c.id)
    )
    if domain_name is not None:
        wanted = wanted.where(alias.c.domain_id == routing.domain_id(connection, domain_name))
    found: dict[Mailbox, list[Mailbox]] = {}
    for row in connection.execute(wanted):
        target = Mailbox(row.target_local_part, row.target_name)
        found.setdefault(Mailbox(row.local_part, row.name), []).append(target)
    return [Alias(mailbox, tuple(where)) for mailbox, where in found.items()]


def remove_alias(connection: Connection, source: Mailbox, unwanted: Sequence[Mailbox] = ()) -> list[Mailbox]:
    """Remove an alias, or only some of its targets; return the targets that are left."""
    here = source_place(connection, source)
    present = targets(connection, here)
    if not present:
        raise NotFound(f"there is no alias {written(source)}")
    places = set(routing.places(connection, unwanted)) or _target_places(connection, here)
    if missing := places - _target_places(connection, here):
        raise NotFound(f"{routing.mailbox(connection, missing.pop())} is no target of {written(source)}")
    if places == _target_places(connection, here) and (users := _sources(connection, here)):
        names = ", ".join(written(routing.mailbox(connection, user)) for user in users)
        raise StillInUse(f"{names} would lead nowhere; remove that target first")
    for where in places:
        _delete(connection, here, where)
    return targets(connection, here)


def source_place(connection: Connection, source: Mailbox) -> Place:
    """Where an alias is kept; an empty local-part means the catch-all of the domain."""
    if source.local_part == CATCH_ALL:
        return Place(routing.domain_id(connection, source.domain), CATCH_ALL)
    return routing.place(connection, source)


def targets(connection: Connection, here: Place) -> list[Mailbox]:
    """Where the mail of an alias goes, in the order in which it was said; empty where there is no alias."""
    return [
        Mailbox(row.target_local_part, row.name)
        for row in connection.execute(
            select(alias.c.target_local_part, domain.c.name)
            .join(domain, domain.c.id == alias.c.target_domain_id)
            .where(alias.c.domain_id == here.domain_id, alias.c.local_part == here.local_part)
            .order_by(alias.c.id)
        )
    ]


def insert_targets(connection: Connection, here: Place, places: Sequence[Place]) -> None:
    """Add targets that have been checked."""
    rows = [
        {**here._asdict(), "target_domain_id": d, "target_local_part": local_part, "created_at": now()}
        for d, local_part in places
    ]
    connection.execute(insert(alias), rows)


def remove(connection: Connection, here: Place) -> None:
    """Remove an alias whole, whoever points to it."""
    connection.execute(
        delete(alias).where(alias.c.domain_id == here.domain_id, alias.c.local_part == here.local_part)
    )


def move_target(connection: Connection, old: Place, new: Place) -> None:
    """Let every alias that names `old` as its target name `new`."""
    for source in _sources(connection, old):
        _delete(connection, source, old)
        if new not in _target_places(connection, source):
            insert_targets(connection, source, [new])


def drop_target(connection: Connection, gone: Place) -> list[Mailbox]:
    """Take an address out of every alias, and then each alias that leads nowhere; return those changed."""
    changed = []
    for source in _sources(connection, gone):
        changed.append(routing.mailbox(connection, source))
        _delete(connection, source, gone)
        if not _target_places(connection, source):
            changed.extend(drop_target(connection, source))
    return list(dict.fromkeys(changed))


def _target(connection: Connection, here: Place, mailbox: Mailbox) -> Place:
    try:
        where = routing.place(connection, mailbox)
    except NotOurDomain as error:
        raise BadTarget(
            f"{mailbox} is outside our domains, and mailstack does not send mail to other servers yet"
        ) from error
    expansion = routing.expansion(connection, [where], catch_all=False)
    if where == here or here in expansion.aliases:
        raise BadTarget(f"{mailbox} leads back to {written(routing.mailbox(connection, here))}")
    if where in routing.taken(connection, [where]):
        return where
    # A target with a tag would be forgotten when the account behind it is renamed or removed.
    hint = f"; name {expansion.accounts[0].mailbox} instead" if expansion.accounts else "; add it first"
    raise BadTarget(f"{mailbox} is neither an account nor an alias{hint}")


def _target_places(connection: Connection, here: Place) -> set[Place]:
    return {
        Place(row.target_domain_id, row.target_local_part)
        for row in connection.execute(
            select(alias.c.target_domain_id, alias.c.target_local_part).where(
                alias.c.domain_id == here.domain_id, alias.c.local_part == here.local_part
            )
        )
    }


def _sources(connection: Connection, target: Place) -> list[Place]:
    """The aliases that name this address as their target."""
    return [
        Place(row.domain_id, row.local_part)
        for row in connection.execute(
            select(alias.c.domain_id, alias.c.local_part)
            .where(
                alias.c.target_domain_id == target.domain_id, alias.c.target_local_part == target.local_part
            )
            .order_by(alias.c.id)
        )
    ]


def _delete(connection: Connection, source: Place, target: Place) -> None:
    connection.execute(
        delete(alias).where(
            alias.c.domain_id == source.domain_id,
            alias.c.local_part == source.local_part,
            alias.c.target_domain_id == target.domain_id,
            alias.c.target_local_part == target.local_part,
        )
    )
