"""`quota` and `keep`, of an account and of a domain: how much may be kept, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final

import typer

from mailstack import values
from mailstack.cli import ask, show
from mailstack.cli.exits import Usage
from mailstack.cli.options import Address, Json, admin
from mailstack.store import accounts, limits, retention
from mailstack.store.accounts import Account
from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.limits import NO_LIMITS, Limits
from mailstack.store.retention import Doomed
from mailstack.store.tables import UNLIMITED

ACCOUNT_QUOTA = "Example: mailstack account quota jo@example.org 2GiB --messages 50000"
DOMAIN_QUOTA = "Example: mailstack domain quota example.org 2GiB"
ACCOUNT_KEEP = "Example: mailstack account keep jo@example.org --read 30d"
DOMAIN_KEEP = "Example: mailstack domain keep example.org --for 1000d --read 90d"

Size = Annotated[
    str | None, typer.Argument(metavar="[SIZE]", help="Like 2GiB; none is no limit; default asks higher up.")
]
Messages = Annotated[
    str | None, typer.Option(metavar="N", help="At most so many messages; or none, or default.")
]
For = Annotated[
    str | None, typer.Option("--for", metavar="TIME", help="After arrival, like 90d; forever; or default.")
]
Read = Annotated[
    str | None, typer.Option(metavar="TIME", help="After the first download; forever; or default.")
]
Newest = Annotated[
    str | None, typer.Option("--messages", metavar="N", help="Only the N newest; none; or default.")
]
_NO_MAIL_IN = "no mail would come in; none is no limit"
_NONE_KEPT = "no mail would be kept; none is no limit"

_quota_octets = values.at_least(1, values.quota, _NO_MAIL_IN)  # people who mean no limit write 0

DomainName = Annotated[str, typer.Argument(metavar="DOMAIN", show_default=False)]


def account_quota(
    context: typer.Context,
    address: Address,
    size: Size = None,
    *,
    messages: Messages = None,
    json: Json = False,
) -> None:
    """Change how much mail an account may hold; what is there already stays. Shows it, too."""
    _account(context, address, _quotas(size, messages), json=json)


def domain_quota(
    context: typer.Context,
    name: DomainName,
    size: Size = None,
    *,
    messages: Messages = None,
    json: Json = False,
) -> None:
    """Change how much each account of a domain may hold that has no quota of its own. Shows it, too."""
    _domain(context, name, _quotas(size, messages), json=json)


def account_keep(
    context: typer.Context,
    address: Address,
    *,
    for_: For = None,
    read: Read = None,
    messages: Newest = None,
    json: Json = False,
) -> None:
    """Change how long an account's mail is kept; housekeeping removes the rest. Shows it, too."""
    _account(context, address, _keeping(for_, read, messages), json=json, keep=True)


def domain_keep(
    context: typer.Context,
    name: DomainName,
    *,
    for_: For = None,
    read: Read = None,
    messages: Newest = None,
    json: Json = False,
) -> None:
    """Change how long mail is kept of a domain's accounts that say nothing themselves. Shows it, too."""
    _domain(context, name, _keeping(for_, read, messages), json=json, keep=True)


def parsed(written: str, parse: Callable[[str], int]) -> int | None:
    """A limit as people write it: UNLIMITED for none or forever, None for default; raises ValueError."""
    if written in ("none", "forever"):
        return UNLIMITED
    return None if written == "default" else parse(written)


def parsed_quota(written: str) -> int | None:
    """The same of a quota in octets."""
    return parsed(written, _quota_octets)


def fullness(account: Account) -> str:
    """An account's quota for people, and how much of it is taken."""
    from mailstack.store.fullness import percentage  # with all that writes warning mails

    full = max(
        percentage(account.octets, account.quota_octets), percentage(account.messages, account.quota_messages)
    )
    limited = account.quota_octets is not None or account.quota_messages is not None
    return f"{quota(account)}, {full} % full" if limited else quota(account)


def quota(account: Account) -> str:
    """An account's quota for people."""
    parts = [show.octets(account.quota_octets)] if account.quota_octets is not None else []
    parts += [show.counted(account.quota_messages, "message")] if account.quota_messages is not None else []
    return ", ".join(parts) or "none"


def of_account(context: typer.Context, database: Database, account_id: int) -> Limits:
    """What holds for an account, the settings' defaults included."""
    from mailstack.store.housekeeping import Rules  # with all that looks through the store

    default = Rules.of(admin(context).settings).default
    with database.reading() as connection:
        return limits.of_account(connection, account_id, default)


def beyond(found: Limits, account: Account, *, messages: int) -> str | None:
    """What there is to say where housekeeping will remove some of so many messages for their number."""
    if found.keep_messages is None or messages <= found.keep_messages:
        return None
    number = show.counted(found.keep_messages, "newest message")
    return (
        f"housekeeping keeps the {number} of a maildrop, which are fewer than there are now;"
        f" mailstack account keep {account.mailbox} changes that"
    )


def kept(found: Limits) -> str:
    """How long mail is kept, for people."""
    parts = []
    if found.keep_seconds is not None:
        parts.append(f"{values.written_duration(found.keep_seconds)} after arrival")
    if found.keep_read_seconds is not None:
        parts.append(f"{values.written_duration(found.keep_read_seconds)} after the first download")
    if found.keep_messages is not None:
        parts.append(f"the newest {show.counted(found.keep_messages, 'message')}")
    return ", ".join(parts) or "forever"


def kept_fields(found: Limits) -> dict[str, Any]:
    """How long mail is kept, for scripts."""
    return {name: getattr(found, name) for name in Limits._fields if name.startswith("keep")}


def _account(
    context: typer.Context,
    address: str,
    changes: dict[str, int | None],
    *,
    json: bool,
    keep: bool = False,
) -> None:
    mailbox = ask.mailbox(address, admin(context).settings)
    with admin(context).database() as database:
        with database.writing() as connection:
            found = accounts.find_account(connection, mailbox)
            if changes:
                limits.set_for_account(connection, found.id, **changes)
        with database.reading() as connection:
            found = accounts.find_account(connection, mailbox)
        holding = of_account(context, database, found.id)
        doomed = _doomed(context, database, [found]) if keep else None
    if json:
        show.as_json({"address": str(found.mailbox)} | holding._asdict() | _doomed_fields(doomed))
        return
    print(f"{found.mailbox} has {show.octets(found.octets)} of mail; its quota is {quota(found)}")
    if kept(holding) != kept(NO_LIMITS) or any(name.startswith("keep") for name in changes):
        print(f"its mail is kept: {kept(holding)}")
    _tell_doomed(doomed)


def _domain(
    context: typer.Context, name: str, changes: dict[str, int | None], *, json: bool, keep: bool = False
) -> None:
    with admin(context).database() as database:
        if changes:
            with database.writing() as connection:
                limits.set_for_domain(connection, name, **changes)
        with database.reading() as connection:
            said = limits.said_by_domain(connection, name)
            there = accounts.list_accounts(connection, name)
        doomed = _doomed(context, database, there) if keep else None
    if json:
        show.as_json({"domain": name} | _said_fields(said) | _doomed_fields(doomed))
        return
    show.facts({"domain": name} | {label: _told(said, *each) for label, each in _DOMAIN_SAYS.items()})
    _tell_doomed(doomed)


def _doomed(context: typer.Context, database: Database, found: Iterable[Account]) -> Doomed:
    """What the next housekeeping removes from these maildrops, if nothing changes until then."""
    from mailstack.store.housekeeping import Rules  # with all that looks through the store

    default = Rules.of(admin(context).settings).default
    messages = octets = 0
    for each in found:
        with database.reading() as connection:
            holding = limits.of_account(connection, each.id, default)
            doomed = retention.count(connection, each.id, holding, now())
        messages, octets = messages + doomed.messages, octets + doomed.octets
    return Doomed(messages, octets)


def _doomed_fields(doomed: Doomed | None) -> dict[str, Any]:
    return {} if doomed is None else {"next_housekeeping": doomed._asdict()}


def _tell_doomed(doomed: Doomed | None) -> None:
    if doomed is not None and doomed.messages:
        what = f"{show.counted(doomed.messages, 'message')} ({show.octets(doomed.octets)})"
        show.note(f"the next housekeeping removes {what}")


def _told(said: Limits, name: str, written: Callable[[int], str]) -> str:
    value = getattr(said, name)
    if value is None:
        return "as the settings say" if name.startswith("keep") else "not said, so none"
    return "none" if value == UNLIMITED else written(value)


def _said_fields(said: Limits) -> dict[str, int | str | None]:
    """What a domain says, for scripts: null is nothing, which is not the same as "none"."""
    return {name: "none" if value == UNLIMITED else value for name, value in said._asdict().items()}


_DOMAIN_SAYS: Final[dict[str, tuple[str, Callable[[int], str]]]] = {
    "quota": ("quota_octets", show.octets),
    "messages": ("quota_messages", str),
    "kept after arrival": ("keep_seconds", values.written_duration),
    "kept after download": ("keep_read_seconds", values.written_duration),
    "newest messages kept": ("keep_messages", str),
}


def _quotas(size: str | None, messages: str | None) -> dict[str, int | None]:
    return _changes(
        ("quota_octets", size, _quota_octets, "quota"),
        ("quota_messages", messages, values.at_least(1, values.count, _NO_MAIL_IN), "number"),
    )


def _keeping(for_: str | None, read: str | None, messages: str | None) -> dict[str, int | None]:
    return _changes(
        ("keep_seconds", for_, values.at_least(1, values.age, _NONE_KEPT), "time"),
        ("keep_read_seconds", read, values.age, "time"),
        ("keep_messages", messages, values.at_least(1, values.count, _NONE_KEPT), "number"),
    )


def _changes(*given: tuple[str, str | None, Callable[[str], int], str]) -> dict[str, int | None]:
    """The columns to be changed; what was not given stays."""
    found: dict[str, int | None] = {}
    for name, written, parse, what in given:
        if written is None:
            continue
        try:
            found[name] = parsed(written, parse)
        except ValueError as error:
            raise Usage(f"the {what} {error}") from error
    return found
