"""Logins as the throttle counts them: how often each name failed, in all and from each address.

The counters are rows, so that all processes of a server, and all hosts of a PostgreSQL store, count
together. An `address` is where a device is, as `auth/throttle.py` writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Connection,
    Insert,
    Text,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
    update,
)

from mailstack.errors import BadAddress
from mailstack.mail.address import Mailbox, fold_domain, fold_local_part
from mailstack.store import routes, routing, upsert
from mailstack.store.clock import SECOND
from mailstack.store.prepared import Prepared
from mailstack.store.routes import Credentials
from mailstack.store.tables import account, login, secret
from mailstack.values import DAY_SECONDS

STREAK_SECONDS: Final = 3600
"""Failures count together until there was none for so long."""

EVERYWHERE: Final = ""
"""The address of the row that counts a name's failures from unknown places."""

_NAME_CHARACTERS: Final = 320
"""What is no address is counted by no more than this; an address is at most that long."""

_KEPT_FAILURES: Final = 20_000
"""Rows without a success beyond so many, the oldest first, are forgotten: names can be made up."""

_KEPT_SECONDS: Final = 90 * DAY_SECONDS


class History(NamedTuple):
    """What is known of a name, and of it at one address, at this moment."""

    failures: int  # of the name, from places it had not logged in from
    device_failures: int
    succeeded_at: int | None  # the device's last success


class Claim(NamedTuple):
    """A login name looked up: the account if there is one, and the name that the counters go by."""

    key: str
    credentials: Credentials | None
    history: History
    address: str = ""  # the account's, without quotes, if that is the name


class Attempt(NamedTuple):
    """One login that was decided: of which name, from where, when."""

    key: str
    address: str
    at: int
    known: bool = False  # the device had logged in before, so its failure counts for itself alone


class Device(NamedTuple):
    """A row, as an administrator sees it."""

    address: str
    failures: int
    failed_at: int | None
    succeeded_at: int | None


def look_up(connection: Connection, name: str, spellings: Sequence[Mailbox], address: str, at: int) -> Claim:
    """The account behind the first spelling of a name that is one, and its history."""
    for mailbox in spellings:
        if credentials := _credentials(connection, mailbox):
            key, own = credentials.name, _folded(mailbox)
            said = f"{own.local_part}@{own.domain}" if str(own) == key else ""
            return Claim(key, credentials, history(connection, key, address, at), said)
    # As if it were somebody's: by all names that lead to one account failures are counted together.
    key = str(routing.presumed(connection, _folded(spellings[-1]))) if spellings else _printable(name)
    return Claim(key, None, history(connection, key, address, at))


def look_up_keys(
    connection: Connection,
    name: str,
    spellings: Sequence[Mailbox],
    address: str,
    at: int,
    *,
    number: Callable[[str], int],
) -> tuple[Claim, str | None]:
    """As `look_up`; and for whom has no SCRAM keys those of an account, whose iterations may be shown."""
    claim = look_up(connection, name, spellings, address, at)
    if claim.credentials and claim.credentials.scram_keys:
        return claim, None
    return claim, lent_keys(connection, number(claim.key))


def lent_keys(connection: Connection, number: int) -> str | None:
    """The SCRAM keys of an account, by and large the same one for the same number; None: nobody has any.

    Linear hashing gives the ids their shares of the numbers: an account more or less changes the
    answer to its own share. So any iterations are about as frequent among strangers as among accounts.
    """
    last = _LAST_WITH_KEYS.row(connection)
    if last is None:
        return None
    shares: int = last[0]
    mask = (1 << shares.bit_length()) - 1
    share = number & mask
    if share >= shares:
        share &= mask >> 1
    row = _KEYS_FROM.row(connection, share + 1)
    return None if row is None else row[0]


def owner(connection: Connection, spellings: Sequence[Mailbox]) -> int | None:
    """The id of the account that a name belongs to."""
    found = (_credentials(connection, mailbox) for mailbox in spellings)
    return next((each.account_id for each in found if each), None)


def history(connection: Connection, key: str, address: str, at: int) -> History:
    """What is known of a name and of it at this address."""
    rows = {row[0]: Device(*row) for row in _ROWS.rows(connection, key, EVERYWHERE, address)}
    everywhere, device = rows.get(EVERYWHERE), rows.get(address)
    return History(
        _counted(everywhere, at), _counted(device, at), device.succeeded_at if device is not None else None
    )


def record_failures(connection: Connection, attempts: Sequence[Attempt]) -> list[None]:
    """Count failures for the device, and for the name where the device was unknown."""
    rows = [(each.key, each.address, each.at) for each in attempts]
    rows += [(each.key, EVERYWHERE, each.at) for each in attempts if not each.known]
    # In one order: two hosts that write to the same rows must not wait for each other.
    for key, address, at in sorted(rows):
        connection.execute(
            _upsert(
                connection,
                {"name": key, "address": address, "failures": 1, "failed_at": at},
                failures=case(
                    (login.c.failed_at > at - STREAK_SECONDS * SECOND, login.c.failures + 1), else_=1
                ),
                failed_at=at,
            )
        )
    _forget(connection, max(each.at for each in attempts))
    return [None] * len(attempts)


def record_successes(connection: Connection, attempts: Sequence[Attempt]) -> list[None]:
    """Remember that the devices belong to their names; their failures are forgiven."""
    for key, address, at, _ in sorted(attempts):
        _FORGET_DEVICES.run(connection, key, at - _KEPT_SECONDS * SECOND)
        _SUCCEEDED.run(connection, key, address, 0, None, at)
    return [None] * len(attempts)


def devices(connection: Connection, key: str, at: int) -> list[Device]:
    """All rows of a name; that of EVERYWHERE comes first."""
    rows = connection.execute(select(login).where(login.c.name == key).order_by(login.c.address))
    found = (Device(row.address, row.failures, row.failed_at, row.succeeded_at) for row in rows)
    return [each._replace(failures=_counted(each, at)) for each in found]


def unlock(connection: Connection, key: str) -> int:
    """Forget all failures of a name; return how many rows had some."""
    theirs = login.c.name == key
    forgiven = connection.execute(
        update(login).where(theirs, login.c.failures > 0).values(failures=0, failed_at=None)
    )
    connection.execute(delete(login).where(theirs, login.c.succeeded_at.is_(None)))
    return forgiven.rowcount


def forget(connection: Connection, key: str) -> None:
    """Forget all of a name, since its account is gone."""
    connection.execute(delete(login).where(login.c.name == key))


def rename(connection: Connection, old: str, new: str) -> None:
    """Let the devices of an account be known by its new name, too."""
    forget(connection, new)
    connection.execute(update(login).where(login.c.name == old).values(name=new))


def rename_domain(connection: Connection, old: str, new: str) -> None:
    """Let all that is known of names in a domain be known by its new name: of accounts, and of strangers."""
    connection.execute(delete(login).where(login.c.name.endswith(f"@{new}", autoescape=True)))
    before = func.substr(login.c.name, 1, func.length(login.c.name) - len(old), type_=Text)
    connection.execute(
        update(login).where(login.c.name.endswith(f"@{old}", autoescape=True)).values(name=before.concat(new))
    )


def lacking_keys(connection: Connection) -> int:
    """How many enabled accounts have no SCRAM keys yet."""
    return connection.execute(select(func.count()).select_from(account).where(*_LACKING)).scalar_one()


def some_lack_keys(connection: Connection) -> bool:
    """Whether `lacking_keys` is not 0."""
    return connection.execute(select(account.c.id).where(*_LACKING).limit(1)).first() is not None


def scram_secret(connection: Connection) -> bytes:
    """What the salts of unknown names are made with: the same in every process, for ever."""
    return bytes(connection.execute(select(secret.c.value).where(secret.c.name == "scram")).scalar_one())


def _credentials(connection: Connection, mailbox: Mailbox) -> Credentials | None:
    try:
        return routes.credentials(connection, mailbox)
    except BadAddress:
        return None


def _folded(mailbox: Mailbox) -> Mailbox:
    local_part = fold_local_part(mailbox.local_part)
    try:
        return Mailbox(local_part, fold_domain(mailbox.domain))
    except BadAddress:
        return Mailbox(local_part, mailbox.domain)


def _printable(name: str) -> str:
    return "".join(character for character in name if character.isprintable())[:_NAME_CHARACTERS]


def _counted(row: Device | None, at: int) -> int:
    if row is None or row.failed_at is None or row.failed_at <= at - STREAK_SECONDS * SECOND:
        return 0
    return row.failures


def _upsert(connection: Connection, values: dict[str, Any], **changes: Any) -> Any:
    statement = upsert.insert(connection.dialect.name, login).values(**values)
    return statement.on_conflict_do_update(index_elements=[login.c.name, login.c.address], set_=changes)


def _forget(connection: Connection, at: int) -> None:
    """Keep the table small, whatever names strangers think of."""
    failed_only = login.c.succeeded_at.is_(None)
    newest = select(login.c.failed_at).where(failed_only).order_by(login.c.failed_at.desc())
    bound = connection.execute(newest.offset(_KEPT_FAILURES).limit(1)).scalar_one_or_none()
    if bound is not None:
        connection.execute(delete(login).where(failed_only, login.c.failed_at <= bound))
    long_ago = at - _KEPT_SECONDS * SECOND
    connection.execute(delete(login).where(failed_only, login.c.failed_at < long_ago))


_LACKING: Final = (account.c.disabled_at.is_(None), account.c.scram_keys.is_(None))

_WITH_KEYS: Final = account.c.scram_keys.is_not(None)

_LAST_WITH_KEYS: Final = Prepared(
    select(account.c.id)
    .where(_WITH_KEYS)
    .order_by(account.c.id.desc())
    .limit(literal_column("1"))
    .offset(literal_column("0"))
)

_KEYS_FROM: Final = Prepared(
    select(account.c.scram_keys)
    .where(_WITH_KEYS, account.c.id >= bindparam("least"))
    .order_by(account.c.id)
    .limit(literal_column("1"))
    .offset(literal_column("0")),
    "least",
)

_ROWS: Final = Prepared(
    select(login.c.address, login.c.failures, login.c.failed_at, login.c.succeeded_at).where(
        login.c.name == bindparam("key"),
        or_(login.c.address == bindparam("everywhere"), login.c.address == bindparam("address")),
    ),
    "key",
    "everywhere",
    "address",
)


def _in_place(dialect: str) -> Insert:
    """A row in the place of the one that the device may have."""
    given = upsert.insert(dialect, login)
    return given.on_conflict_do_update(
        index_elements=[login.c.name, login.c.address],
        set_={name: given.excluded[name] for name in ("failures", "failed_at", "succeeded_at")},
    )


_SUCCEEDED: Final = Prepared(_in_place, "name", "address", "failures", "failed_at", "succeeded_at")

_FORGET_DEVICES: Final = Prepared(
    delete(login).where(login.c.name == bindparam("key"), login.c.succeeded_at < bindparam("before")),
    "key",
    "before",
)
"""Those of a name that have not logged in since then."""
