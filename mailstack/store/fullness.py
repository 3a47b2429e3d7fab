"""Full maildrops: their owners are told at 80 and at 95 per cent, once a crossing, and the admin at 100."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from email.utils import format_datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Select, select, update

from mailstack.mail import trace
from mailstack.mail.address import Mailbox
from mailstack.mail.spool import Spool
from mailstack.mail.surrogate import in_ascii
from mailstack.store import aliases, messages, quotas, routing
from mailstack.store.clock import moment
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.routes import is_postmasters
from mailstack.store.routing import Place, Reached
from mailstack.store.tables import account, domain, effective
from mailstack.values import rounded_size

LEVELS: Final = (80, 95)
"""Per cent of a quota, in octets or messages, whichever is fuller."""

_RELIEF: Final = 5
"""So many per cent below a level it counts as left: a maildrop at the brink is not warned every hour."""


class Warn(NamedTuple):
    """Look at all maildrops at this time; the warnings come from this address, else from postmaster."""

    postmaster: str | None
    at: int


def warn(connection: Connection, jobs: Sequence[Warn]) -> list[list[int]]:
    """Deposit the warnings that are due; return the accounts that got one.

    Warning and note are one transaction, so that nobody is warned twice or never.
    """
    return [_warn(connection, job) for job in jobs]


class Full(NamedTuple):
    """A maildrop that takes no more, and the names whose mail is refused to others, too, because of it."""

    mailbox: Mailbox
    percentage: int
    groups: tuple[str, ...]  # as `aliases.written` has them


def full(connection: Connection) -> list[Full]:
    """All of them, in the order in which they were made."""
    found = {row.id: row for row in connection.execute(_limited()).all() if _full(row) >= 100}
    groups: dict[int, list[str]] = {}
    for group, members in _groups(connection) if found else ():
        for each in quotas.in_the_way(members):
            groups.setdefault(each.account_id, []).append(group)
    return [
        Full(Mailbox(row.local_part, row.name), _full(row), tuple(groups.get(each, ())))
        for each, row in found.items()
        if each in groups or not is_postmasters(row.local_part)
    ]


def _groups(connection: Connection) -> Iterator[tuple[str, list[Reached]]]:
    """The names that lead to several accounts, as an admin writes them, and those accounts."""
    for name, _ in aliases.list_aliases(connection):
        if not is_postmasters(name.local_part):
            where = Place(routing.domain_id(connection, name.domain), name.local_part)
            reached = [each for each in routing.expand(connection, [where]) if not each.disabled]
            if len(reached) > 1:
                yield aliases.written(name), reached


def percentage(used: int, limit: int | None) -> int:
    """How full something is; no limit is never full."""
    if limit is None:
        return 0
    return 100 if limit == 0 else used * 100 // limit


def _warn(connection: Connection, job: Warn) -> list[int]:
    warned = []
    for row in connection.execute(_limited()).all():
        full = _full(row)
        if _level(full) > row.quota_warned:
            added = _deposit(connection, row, full, job)
            warned.append(row.id)
            told = _level(_full(row, octets=added, number=1))  # our own mail is no reason for another
        else:
            told = min(row.quota_warned, _level(full + _RELIEF))
        if told != row.quota_warned:
            connection.execute(update(account).where(account.c.id == row.id).values(quota_warned=told))
    return warned


def _full(row: Any, *, octets: int = 0, number: int = 0) -> int:
    """Per cent of the fuller of the two quotas, with so much more in the maildrop."""
    return max(
        percentage(row.octets + octets, row.quota_octets),
        percentage(row.messages + number, row.quota_messages),
    )


def _level(full: int) -> int:
    return max((each for each in LEVELS if full >= each), default=0)


def _limited() -> Select[Any]:
    octets, number = effective("quota_octets"), effective("quota_messages")
    return (
        select(
            account.c.id,
            account.c.local_part,
            domain.c.name,
            account.c.octets,
            account.c.messages,
            account.c.quota_warned,
            octets.label("quota_octets"),
            number.label("quota_messages"),
        )
        .join(domain, domain.c.id == account.c.domain_id)
        .where(
            octets.is_not(None) | number.is_not(None) | (account.c.quota_warned != 0),
            account.c.disabled_at.is_(None),
        )
        .order_by(account.c.id)
    )


def _deposit(connection: Connection, row: Any, full: int, job: Warn) -> int:
    """Put the warning into the maildrop; return its octets there."""
    owner = Mailbox(row.local_part, row.name)
    content = _text(owner, row, full, job)
    prefix = trace.return_path(None) + trace.delivered_to(owner)
    with Spool.holding(content) as spool, Spool.holding(in_ascii(content)) as surrogate:
        mail = Deposit(
            mail_id=f"quota-{row.id}-{job.at}",
            reverse_path="",
            spool=spool,
            dotted=False,
            recipients=(Recipient(row.id, prefix),),
            at=job.at,
        )
        if not prefix.isascii():  # of an owner whose address is not: the other form of the header, too
            mail = mail._replace(
                recipients=(Recipient(row.id, prefix, in_ascii(prefix)),), surrogate=surrogate
            )
        messages.deposit(connection, [mail])
        return len(prefix) + spool.octets


def _text(owner: Mailbox, row: Any, full: int, job: Warn) -> bytes:
    sender = job.postmaster or f"postmaster@{row.name}"
    limits = [rounded_size(row.quota_octets)] if row.quota_octets is not None else []
    limits += [f"{row.quota_messages} messages"] if row.quota_messages is not None else []
    lines = [
        f"Date: {format_datetime(moment(job.at))}",
        f"From: {sender}",
        f"To: {owner}",
        f"Subject: Your mailbox is {min(full, 100)} % full",
        f"Message-ID: <quota.{row.id}.{job.at}@{row.name}>",
        "Auto-Submitted: auto-generated",  # RFC 3834 §5: no vacation program answers it
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        f"The mailbox {owner} has {row.messages} messages, {rounded_size(row.octets)} in all.",
        f"It may hold {' and '.join(limits)}.",
        "",
        "Once it is full, new mail is refused and its senders are told so. What comes to an address that",
        "you share with others still comes until it holds twice as much, and is then refused to all of you.",
        "",
        "Please delete what you do not need, or let your mail program do it",
        '("leave messages on server" is the setting).',
    ]
    return "".join(f"{line}\r\n" for line in lines).encode()
