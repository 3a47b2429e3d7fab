"""What an administrator takes out of a maildrop: messages by name, or all that imports have brought."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, LargeBinary, cast, func, literal, select, update

from mailstack.errors import NotFound
from mailstack.store import events, removal
from mailstack.store.clock import SECOND, now
from mailstack.store.events import Kind
from mailstack.store.imports import DIGEST_OCTETS
from mailstack.store.removal import Expunge, Expunged
from mailstack.store.runs import Runs
from mailstack.store.tables import FORGOTTEN, REMOVED_BY_ADMIN, entry, imported


def named(connection: Connection, account_id: int, unique_ids: Iterable[str]) -> dict[int, int]:
    """The uids of these messages with their octets; raises NotFound."""
    wanted = set(unique_ids)
    rows = connection.execute(
        select(entry.c.uid, entry.c.octets, entry.c.unique_id)
        .where(entry.c.account_id == account_id, entry.c.unique_id.in_(wanted))
        .order_by(entry.c.uid)
    ).all()
    if unknown := wanted - {row.unique_id for row in rows}:
        raise NotFound(f"there is no message {', '.join(sorted(unknown))} in this maildrop")
    return {row.uid: row.octets for row in rows}


def brought(connection: Connection, account_id: int) -> dict[int, int]:
    """The uids of what imports have brought, with their octets.

    What came otherwise begins with trace fields of ours (RFC 5321 §4.4).
    """
    rows = connection.execute(
        select(entry.c.uid, entry.c.octets)
        .where(entry.c.account_id == account_id, entry.c.prefix == b"")
        .order_by(entry.c.uid)
    )
    return {row.uid: row.octets for row in rows}


def discard(connection: Connection, account_id: int, uids: Iterable[int], *, undo_seconds: int) -> Expunged:
    """Remove these entries, so that they can be brought back; the caller holds the maildrop's lock."""
    numbers = list(uids)
    removed_by = REMOVED_BY_ADMIN if undo_seconds else None
    (gone,) = removal.expunge(connection, [Expunge(account_id, numbers, removed_by)])
    until = now() + undo_seconds * SECOND
    told = {"uids": str(Runs.of(numbers)), "why": REMOVED_BY_ADMIN, "undo_until": until}
    events.add(connection, Kind.REMOVED, account_id, **told)
    return gone


def forget_imports(connection: Connection, account_id: int) -> None:
    """Let all that was imported come again; its unique-ids still are nobody else's (RFC 1939 §7)."""
    remembered = (imported.c.account_id == account_id) & (func.length(imported.c.digest) == DIGEST_OCTETS)
    forgotten = cast(literal(FORGOTTEN).op("||")(imported.c.digest), LargeBinary)  # SQLite makes a text of it
    connection.execute(update(imported).where(remembered).values(digest=forgotten))
