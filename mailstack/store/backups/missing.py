"""What a backup has of one account, and its maildrop has not, or not whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, func, select, update

from mailstack.errors import NotFound
from mailstack.mail.address import Mailbox, fold_domain, fold_local_part
from mailstack.store import accounts, aliases
from mailstack.store.accounts import Account
from mailstack.store.backups.copy import Copy
from mailstack.store.tables import account, entry, message

_twin: Final = message.alias("twin")


class Kept(NamedTuple):
    """An entry as the backup has it."""

    uid: int
    unique_id: str
    message_id: int
    octets: int
    prefix: bytes
    delivered_at: int
    first_read_at: int | None
    surrogate_octets: int | None
    surrogate_prefix: bytes | None

    def without_surrogate(self) -> Kept:
        """As it is when the surrogate cannot be had: its client gets the message as it came."""
        return self._replace(surrogate_octets=None, surrogate_prefix=None)


class Plan(NamedTuple):
    """What a restore would bring back."""

    account_id: int  # in the backup
    account: dict[str, Any]  # what was known of it beside its mail: AS_IT_WAS
    missing: tuple[Kept, ...]
    present: int
    damaged: frozenset[str]
    """Unique-ids of those missing whose entries are there, but not their content, or their surrogate's."""

    def of_those_in(self, earlier: Plan) -> Plan:
        """Without what was not missing yet: nobody has said yes to that."""
        known = {each.unique_id for each in earlier.missing}
        return self._replace(missing=tuple(each for each in self.missing if each.unique_id in known))

    @property
    def octets(self) -> int:
        """How much mail that is."""
        return sum(each.octets for each in self.missing)


AS_IT_WAS: Final = (
    "password_hash", "scram_keys", "disabled_at",
    "quota_octets", "quota_messages", "keep_seconds", "keep_read_seconds", "keep_messages",
)  # fmt: skip
"""The columns of an account that are its own, and nothing that its mail adds up to."""


def renamed(connection: Connection, mailbox: Mailbox) -> Mailbox:
    """What an account is called now: a name that it had before leads to it as an alias."""
    try:
        accounts.find_account(connection, mailbox)
    except NotFound:
        try:
            led = aliases.targets(connection, aliases.source_place(connection, mailbox))
        except NotFound:  # not even the domain is there
            return mailbox
        return led[0] if len(led) == 1 else mailbox
    return mailbox


def plan(
    connection: Connection,
    copy: Copy,
    mailbox: Mailbox,
    unique_ids: Sequence[str] = (),
    *,
    target: Mailbox | None = None,
) -> Plan:
    """What the backup has for this address and the maildrop, of that name or `target`, has not.

    Raises NotFound.
    """
    found = copy.rows(
        f"SELECT a.id, {', '.join(f'a.{name}' for name in AS_IT_WAS)} FROM account AS a JOIN domain AS d"
        " ON a.domain_id = coalesce(d.alias_of, d.id) WHERE d.name = ? AND a.local_part = ?",
        (fold_domain(mailbox.domain), fold_local_part(mailbox.local_part)),
    )
    row = next(found, None)
    if row is None:
        raise NotFound(
            f"the backup has no account {mailbox}; if it had another name then, add --from OLD-ADDRESS"
        )
    wanted = set(unique_ids)
    backed_up = [
        Kept(*each)
        for each in copy.rows(
            f"SELECT {', '.join(Kept._fields)} FROM entry WHERE account_id = ? ORDER BY uid", (row[0],)
        )
        if not wanted or each[1] in wanted
    ]
    if unknown := wanted - {each.unique_id for each in backed_up}:
        raise NotFound(f"the backup has no message {', '.join(sorted(unknown))} of {mailbox}")
    try:
        here = accounts.find_account(connection, target or mailbox).id
    except NotFound:
        here = 0
    rows = connection.execute(
        select(entry.c.unique_id, func.coalesce(message.c.damaged_at, _twin.c.damaged_at).label("damaged_at"))
        .join(message, message.c.id == entry.c.message_id)
        .outerjoin(_twin, _twin.c.id == message.c.surrogate_id)
        .where(entry.c.account_id == here)
    ).all()
    there = {each.unique_id for each in rows}
    damaged = frozenset(each.unique_id for each in rows if each.damaged_at is not None)
    missing = tuple(each for each in backed_up if each.unique_id not in there or each.unique_id in damaged)
    known = dict(zip(AS_IT_WAS, row[1:], strict=True))
    return Plan(row[0], known, missing, len(backed_up) - len(missing), damaged)


def make_again(connection: Connection, mailbox: Mailbox, found: Plan) -> Account:
    """The account, which was removed, as the backup knows it: who was locked out then stays locked out."""
    made = accounts.add_account(connection, mailbox, password_hash=found.account["password_hash"])
    connection.execute(update(account).where(account.c.id == made.id).values(found.account))
    return accounts.find_account(connection, mailbox)
