"""Asks the database, by the store's own functions."""

from __future__ import annotations

from datetime import datetime

from mailstack.checks.facts import Store
from mailstack.errors import MailstackError
from mailstack.store import accounts, clock, domains, facts, fitness, integrity, schema
from mailstack.store.engine import Database


def look(database: Database, *, recount: bool) -> Store:
    """What it tells of itself; `recount` compares every counter, and reads no message."""
    try:
        fitness.check(database)
        return _look(database, recount=recount)
    except MailstackError as error:
        return Store(str(error))


def _look(database: Database, *, recount: bool) -> Store:
    with database.reading() as connection:
        revision = schema.revision(connection)
        if revision != schema.HEAD:
            return Store("", revision)
        ours = tuple(each.name for each in domains.list_domains(connection) if each.renamed_to is None)
        count = len(accounts.list_accounts(connection))
        backed_up, verified, kept_house = (
            _moment(facts.get(connection, name))
            for name in (facts.LAST_BACKUP, facts.LAST_VERIFIED, facts.LAST_HOUSEKEEPING)
        )
        identity = facts.get(connection, facts.IDENTITY)
    found: list[str] = []
    if recount:
        steps = integrity.check(database, read_content=False)
        found = [finding.text for step in steps for finding in step.findings]
    return Store("", revision, tuple(found), recount, ours, count, backed_up, verified, kept_house, identity)


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else clock.moment(microseconds)
