"""Asks the database, by the store's own functions."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime

from mailstack.checks.facts import Store
from mailstack.errors import MailstackError
from mailstack.mail.address import Mailbox, fold_local_part
from mailstack.store import accounts, aliases, clock, domains, facts, fitness, fullness, integrity, schema
from mailstack.store.domains import Domain
from mailstack.store.engine import Database


def look(database: Database, *, recount: bool) -> Store:
    """What it tells of itself; `recount` compares every counter, and reads no message.

    Raises PermissionError where this user may not even look.
    """
    if database.path is not None:
        _refuse_unseen(database.path)
    try:
        fitness.check(database)
        return _look(database, recount=recount)
    except MailstackError as error:
        return Store(str(error))


def _refuse_unseen(path: str) -> None:
    with suppress(FileNotFoundError):
        os.stat(path)
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def _look(database: Database, *, recount: bool) -> Store:
    with database.reading() as connection:
        revision = schema.revision(connection)
        if revision != schema.HEAD:
            return Store("", revision)
        known = domains.list_domains(connection)
        everybody = [each.mailbox for each in accounts.list_accounts(connection)]
        routed = [each.mailbox for each in aliases.list_aliases(connection)]
        backed_up, verified, kept_house = (
            _moment(facts.get(connection, name))
            for name in (facts.LAST_BACKUP, facts.LAST_VERIFIED, facts.LAST_HOUSEKEEPING)
        )
        identity = facts.get(connection, facts.IDENTITY)
        full = fullness.full(connection)
    found: list[str] = []
    if recount:
        steps = integrity.check(database, read_content=False)
        found = [finding.text for step in steps for finding in step.findings]
    return Store(
        "",
        revision,
        tuple(found),
        recount,
        tuple(each.name for each in known if each.renamed_to is None),
        len(everybody),
        backed_up,
        verified,
        kept_house,
        identity,
        names=frozenset(each.name for each in known),
        addresses=frozenset(_spelt([*everybody, *routed], known)),
        full=tuple(full),
    )


def _spelt(mailboxes: Iterable[Mailbox], known: Sequence[Domain]) -> Iterator[str]:
    """Addresses under each name of their domains, as folded text."""
    names: dict[str, list[str]] = {}
    for each in known:
        names.setdefault(each.renamed_to or each.name, []).append(each.name)
    for mailbox in mailboxes:
        for name in names.get(mailbox.domain, ()):
            yield f"{fold_local_part(mailbox.local_part)}@{name}"


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else clock.moment(microseconds)
