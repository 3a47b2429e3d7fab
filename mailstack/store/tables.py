"""The tables, as SQLAlchemy Core sees them; `migrations/` is what makes them.

Names follow the RFCs: a *maildrop* is the list of an account's *entries*; an entry points to a
*message*, which is stored once for all its recipients, its *content* cut into parts.

What only one of the databases knows by its name (`sqlite_where`) is written down for SQLite alone: the
migrations make the same in PostgreSQL, of which an option here would import 3 MiB of SQLAlchemy.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    literal_column,
    text,
)

UNLIMITED = -1
"""A limit of an account or a domain that says "none", where NULL says "ask the next higher place"."""

CATCH_ALL = ""
"""The local-part under which a domain's catch-all alias is kept; no address can have it."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _limits() -> tuple[Column[int], ...]:
    """What may be kept, and for how long: of an account, or of all of a domain's.

    NULL asks the next higher place (the domain, then the settings); UNLIMITED is none at all.
    """
    return (
        Column("quota_octets", BigInteger),
        Column("quota_messages", BigInteger),
        Column("keep_seconds", BigInteger),  # after arrival
        Column("keep_read_seconds", BigInteger),  # after the first download
        Column("keep_messages", BigInteger),  # the newest ones
    )


# Times are whole microseconds since the epoch, UTC: exact, comparable and the same on every database.

domain = Table(
    "domain",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),  # A-labels, lower case
    # A renamed domain's old name: every address of it means the same address of that domain.
    Column("alias_of", Integer, ForeignKey("domain.id")),
    Column("created_at", BigInteger, nullable=False),
    *_limits(),  # of every account that says nothing else
)

account = Table(
    "account",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("domain_id", Integer, ForeignKey("domain.id"), nullable=False),
    Column("local_part", Text, nullable=False),  # folded: NFC, then casefold
    Column("password_hash", Text, nullable=False),  # passlib's format
    Column("scram_keys", Text),  # of the same password, see auth/scram.py; NULL: none were made yet
    Column("uid_validity", BigInteger, nullable=False),
    Column("next_uid", BigInteger, nullable=False),
    Column("octets", BigInteger, nullable=False),  # what the entries add up to, in the same transaction
    Column("messages", BigInteger, nullable=False),
    # How many entries have a surrogate (RFC 6858), and what sending those instead adds to `octets`.
    Column("surrogates", BigInteger, nullable=False, server_default="0"),
    Column("surrogate_octets", BigInteger, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    # The percentage of the quota that its owner was warned at last; 0 where there is no reason to.
    Column("quota_warned", SmallInteger, nullable=False, server_default="0"),
    *_limits(),
    UniqueConstraint("domain_id", "local_part"),
    sqlite_autoincrement=True,  # an id is never given twice: trace and locks may outlive the account
)

alias = Table(
    "alias",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("domain_id", Integer, ForeignKey("domain.id"), nullable=False),
    Column("local_part", Text, nullable=False),  # folded; CATCH_ALL for the rest of the domain
    Column("target_domain_id", Integer, ForeignKey("domain.id"), nullable=False),
    Column("target_local_part", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint(
        "domain_id", "local_part", "target_domain_id", "target_local_part", name="uq_alias_route"
    ),
    Index("ix_alias_target", "target_domain_id", "target_local_part"),
)

message = Table(
    "message",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("octets", BigInteger, nullable=False),  # of the shared content, without any entry's prefix
    Column("dotted", Boolean, nullable=False),  # some line begins with a dot: RETR has to stuff it
    Column("reverse_path", Text, nullable=False),  # "" is the null reverse-path
    Column("received_at", BigInteger, nullable=False),
    Column("mail_id", Text, nullable=False),  # the id in our `Received:`, in the 250 reply and in the log
    Column("digests", LargeBinary),  # DIGEST_OCTETS for each part; NULL: deposited before there were any
    Column("damaged_at", BigInteger),  # when a digest was found not to fit
    # The message whose content a client gets that has not said UTF8; NULL: this one's. No entry
    # points to that one, it lives as long as this.
    Column("surrogate_id", BigInteger),
    Index(
        "ix_message_surrogate_id",
        "surrogate_id",
        sqlite_where=text("surrogate_id IS NOT NULL"),
    ),
    sqlite_autoincrement=True,  # an id is never given twice: a slow reader must not find another's content
)

content = Table(
    "content",
    metadata,
    # Of the message and the part, see store/parts.py.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("octets", LargeBinary, nullable=False),  # at most PART_OCTETS
)

IS_FOREIGN = text("unique_id NOT LIKE '%.' || uid")
"""Of an entry, whose own uid its unique-id does not end in; so as `ix_entry_foreign_id` has to be asked."""

entry = Table(
    "entry",
    metadata,
    Column("account_id", Integer, ForeignKey("account.id"), primary_key=True),
    Column("uid", BigInteger, primary_key=True),
    Column("unique_id", Text, nullable=False),  # the UIDL, RFC 1939 §7: 1 to 70 of 0x21-0x7E
    Column("message_id", BigInteger, ForeignKey("message.id"), nullable=False),
    Column("octets", BigInteger, nullable=False),  # prefix and content: exactly what RETR sends
    Column("prefix", LargeBinary, nullable=False),  # this recipient's own trace fields
    Column("delivered_at", BigInteger, nullable=False),
    Column("first_read_at", BigInteger),  # when a session first ended with QUIT that had sent the whole of it
    Column("surrogate_octets", BigInteger),  # as `octets`, of the surrogate; NULL: there is none
    Column("surrogate_prefix", LargeBinary),  # as `prefix`, in ASCII
    Index("ix_entry_message_id", "message_id"),
    # The unique-ids that we give end in the uid, which is the key already. An index of those too would
    # be another page to write for every message, for in a grown store each maildrop has its own.
    Index(
        "ix_entry_foreign_id",
        "account_id",
        "unique_id",
        unique=True,
        sqlite_where=IS_FOREIGN,
    ),
    sqlite_with_rowid=False,  # the primary key is the order in which a maildrop is listed
)

removed = Table(  # entries that can still be brought back; no session sees them, no quota counts them
    "removed",
    metadata,
    Column("account_id", Integer, ForeignKey("account.id"), primary_key=True),
    Column("uid", BigInteger, primary_key=True),
    Column("unique_id", Text, nullable=False),
    Column("message_id", BigInteger, ForeignKey("message.id"), nullable=False),
    Column("octets", BigInteger, nullable=False),
    Column("prefix", LargeBinary, nullable=False),
    Column("delivered_at", BigInteger, nullable=False),
    Column("first_read_at", BigInteger),
    Column("surrogate_octets", BigInteger),
    Column("surrogate_prefix", LargeBinary),
    Column("removed_at", BigInteger, nullable=False),
    Column("removed_by", Text, nullable=False),  # one of REMOVED_BY_...
    Index("ix_removed_message_id", "message_id"),
    Index("ix_removed_removed_by_removed_at", "removed_by", "removed_at"),
    sqlite_with_rowid=False,
)

leftover = Table(  # whose entry was removed, until its content is, too: see store/leftovers.py
    "leftover",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    # No foreign key and no index: writing only ever appends, and a message may have gone by another note.
    Column("message_id", BigInteger, nullable=False),
)

REMOVED_BY_CLIENT = "client"
REMOVED_BY_HOUSEKEEPING = "housekeeping"
REMOVED_BY_ADMIN = "admin"

imported = Table(  # what imports have brought, so that none brings it again, not even what was deleted since
    "imported",
    metadata,
    Column("account_id", Integer, ForeignKey("account.id"), primary_key=True),
    Column("number", BigInteger, primary_key=True),  # 1, 2, 3 and so on, of the account
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of what RETR sends, or FORGOTTEN and that
    Column("source_id", Text, nullable=False),  # the UIDL where it came from, if that is known; else ""
    Column("unique_id", Text, nullable=False),  # what it has here of foreign ones; "": one of our own
    sqlite_with_rowid=False,
)

FORGOTTEN = b"-"  # it may come again, under its unique-id too, which no other message is given all the same

state = Table(  # what the store has to remember about itself, a number a name
    "state",
    metadata,
    Column("name", Text, primary_key=True),  # as `mailstack.store.facts` lists them
    Column("value", BigInteger, nullable=False),
)

secret = Table(  # what the processes of one server have to know and nobody else
    "secret",
    metadata,
    Column("name", Text, primary_key=True),  # "scram": what the salts of unknown names are made with
    Column("value", LargeBinary, nullable=False),
)

login = Table(  # who tried to log in from where: what the throttle goes by
    "login",
    metadata,
    Column("name", Text, primary_key=True),  # an account's address, or what somebody took for one
    Column("address", Text, primary_key=True),  # an IPv4 address or IPv6 /64; "" for all of them together
    Column("failures", Integer, nullable=False),  # in a row, see store/logins.py
    Column("failed_at", BigInteger),
    Column("succeeded_at", BigInteger),  # for a device, that is a name and an address
    Index("ix_login_failed_at", "failed_at"),
    sqlite_with_rowid=False,
)


maildrop_holder = Table(  # UNLOGGED on PostgreSQL: a login writes here and must not wait for the disk
    "maildrop_holder",
    metadata,
    # No foreign key: what is left of an account that was removed means nothing to anybody.
    Column("account_id", Integer, primary_key=True, autoincrement=False),
    Column("since", BigInteger, nullable=False),  # when the lock was taken, which may be free again
    Column("logged_in_at", BigInteger, nullable=False),  # for LOGIN-DELAY (RFC 2449 §6.5)
    Column("holder", Text, nullable=False),  # where the session came from
)
"""Who holds the lock of a maildrop, where hosts share a database; SQLite's lock file has that itself."""


event = Table(  # what happened to mail, a row a finished transaction or session, see store/events.py
    "event",
    metadata,
    # Nothing but this is an index, so that writing only ever appends; a trace reads the whole table.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("name", Text, nullable=False),  # the mail's or session's id, as in `Received:`, reply and log
    Column("kind", Text, nullable=False),  # one of events.Kind
    Column("about", Text, nullable=False),  # a line each: folded addresses, a peer's address, `#account_id`
    Column("told", Text, nullable=False),  # JSON
)


def effective(name: str) -> ColumnElement[Any]:
    """A limit in a query that joins `account` and `domain`: NULL means none."""
    return func.nullif(func.coalesce(account.c[name], domain.c[name]), literal_column(str(UNLIMITED)))
