"""`mailstack account`: who has a maildrop here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mailstack.auth import passwords
from mailstack.cli import account_import, account_logins, ask, limits, show
from mailstack.cli.exits import Usage
from mailstack.cli.options import Address, Json, Yes, admin
from mailstack.store import accounts, aliases, logins
from mailstack.store.accounts import Account
from mailstack.store.clock import now

app = typer.Typer(name="account", help="Who has a maildrop here.", no_args_is_help=True)

PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Take the password from the first line of standard input.")
]


@app.command("add", epilog="Example: mailstack account add jo@example.org --quota 2GiB")
def add(
    context: typer.Context,
    address: Address,
    password_stdin: PasswordStdin = False,
    quota: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Like 2GiB; none is no limit; without it, what the domain says."),
    ] = None,
    json: Json = False,
) -> None:
    """Make an account; without a password it asks for one, or makes one up and prints it once."""
    settings = admin(context).settings
    mailbox, quota_octets = ask.mailbox(address, settings), _quota(quota)
    with admin(context).database() as database:
        with database.reading() as connection:
            accounts.refuse_taken(connection, mailbox)  # before somebody types a password in vain
        password, made_up = ask.password(stdin=password_stdin)
        kept = passwords.stored(password, iterations=settings.auth.scram_iterations)
        with database.writing() as connection:
            first = not accounts.list_accounts(connection)
            added = accounts.add_account(
                connection,
                mailbox,
                password_hash=kept.password_hash,
                scram_keys=kept.scram_keys,
                quota_octets=quota_octets,
            )
    if json:
        show.as_json(_fields(added) | ({"password": password} if made_up else {}))
        return
    print(f"{added.mailbox} can receive and fetch mail now")
    if made_up:
        print(f"password: {password}")
    if first and settings.postmaster is None:
        show.note("it is the first account, so mail for postmaster and abuse comes to it")


@app.command("list", epilog="Example: mailstack account list example.org --json")
def list_(
    context: typer.Context,
    domain: Annotated[str | None, typer.Argument(metavar="[DOMAIN]", help="Only of this domain.")] = None,
    json: Json = False,
) -> None:
    """Show all accounts."""
    with admin(context).database() as database, database.reading() as connection:
        found = accounts.list_accounts(connection, domain)
    if json:
        show.as_json([_fields(each) for each in found])
        return
    show.table(
        ("account", "messages", "size", "quota", "added", ""),
        (
            (
                str(each.mailbox),
                str(each.messages),
                show.octets(each.octets),
                limits.quota(each),
                show.moment(each.created_at),
                "disabled" if each.disabled_at else "",
            )
            for each in found
        ),
        empty="there are no accounts yet; mailstack account add makes one",
        numbers=("messages", "size", "quota"),
    )


@app.command("show", epilog="Example: mailstack account show jo@example.org")
def show_(context: typer.Context, address: Address, json: Json = False) -> None:
    """Show all that is known of an account, and the aliases that lead to it."""
    mailbox = ask.mailbox(address, admin(context).settings)
    with admin(context).database() as database:
        with database.reading() as connection:
            found = accounts.find_account(connection, mailbox)
            leading = [each for each in aliases.list_aliases(connection) if found.mailbox in each.targets]
            standing = account_logins.standing(logins.devices(connection, str(found.mailbox), now()))
        holding = limits.of_account(context, database, found.id)
    names = [aliases.written(each.mailbox) for each in leading]
    if json:
        kept = limits.kept_fields(holding)
        show.as_json(_fields(found) | {"aliases": names} | account_logins.fields(standing) | kept)
        return
    show.facts(
        {
            "account": str(found.mailbox),
            "state": f"disabled since {show.moment(found.disabled_at)}" if found.disabled_at else "enabled",
            "messages": str(found.messages),
            "size": show.octets(found.octets),
            "quota": limits.fullness(found),
            "kept": limits.kept(holding),
            "added": show.moment(found.created_at),
            "uid validity": str(found.uid_validity),
            "aliases": ", ".join(names) or "none",
            "failed logins": account_logins.sentence(standing),
            "known devices": ", ".join(standing.known) or "none",
        }
    )


@app.command(
    "passwd", epilog="Example: echo 'a new secret' | mailstack account passwd jo@example.org --password-stdin"
)
def passwd(
    context: typer.Context, address: Address, password_stdin: PasswordStdin = False, json: Json = False
) -> None:
    """Give an account another password; without one it asks, or makes one up and prints it once."""
    settings = admin(context).settings
    mailbox = ask.mailbox(address, settings)
    with admin(context).database() as database:
        with database.reading() as connection:
            found = accounts.find_account(connection, mailbox)
        password, made_up = ask.password(stdin=password_stdin)
        kept = passwords.stored(password, iterations=settings.auth.scram_iterations)
        with database.writing() as connection:
            accounts.set_password(connection, mailbox, kept.password_hash, scram_keys=kept.scram_keys)
    if json:
        show.as_json(_fields(found) | ({"password": password} if made_up else {}))
        return
    print(f"{found.mailbox} has a new password")
    if made_up:
        print(f"password: {password}")


@app.command("disable", epilog="Example: mailstack account disable jo@example.org")
def disable(context: typer.Context, address: Address) -> None:
    """Refuse logins and new mail; what is there stays."""
    mailbox = ask.mailbox(address, admin(context).settings)
    with admin(context).database() as database, database.writing() as connection:
        changed = accounts.disable(connection, mailbox)
    print(f"{mailbox} is disabled" if changed else f"{mailbox} was disabled already")


@app.command("enable", epilog="Example: mailstack account enable jo@example.org")
def enable(context: typer.Context, address: Address) -> None:
    """Allow logins and new mail again."""
    mailbox = ask.mailbox(address, admin(context).settings)
    with admin(context).database() as database, database.writing() as connection:
        changed = accounts.enable(connection, mailbox)
    print(f"{mailbox} is enabled" if changed else f"{mailbox} was enabled already")


@app.command("rename", epilog="Example: mailstack account rename jo@example.org joanna@example.org")
def rename(
    context: typer.Context,
    old: Annotated[str, typer.Argument(metavar="OLD@DOMAIN", show_default=False)],
    new: Annotated[str, typer.Argument(metavar="NEW@DOMAIN", show_default=False)],
) -> None:
    """Give an account another address: mail and unique-ids stay, and the old address becomes an alias."""
    settings = admin(context).settings
    mailboxes = ask.mailbox(old, settings), ask.mailbox(new, settings)
    with admin(context).database() as database, database.writing() as connection:
        renamed = accounts.rename_account(connection, *mailboxes)
    print(f"the account is {renamed.mailbox} now; mail to {mailboxes[0]} and logins with it go on working")


@app.command("remove", epilog="Example: mailstack account remove jo@example.org --yes")
def remove(context: typer.Context, address: Address, yes: Yes = False) -> None:
    """Remove an account with all its mail; nothing brings that back."""
    from mailstack.cli import account_remove  # with the service's way to the store

    settings = admin(context).settings
    mailbox = ask.mailbox(address, settings)
    with admin(context).database() as database:
        with database.reading() as connection:
            found = accounts.find_account(connection, mailbox)
        mail = f"{show.counted(found.messages, 'message')} ({show.octets(found.octets)})"
        ask.confirm(f"Remove {found.mailbox} with {mail} for good?", yes=yes)
        changed = account_remove.remove(database, settings, found)
    print(f"{found.mailbox} is gone, with {mail}")
    if changed.left:
        print(f"it is no target any more of {', '.join(map(aliases.written, changed.left))}")
    if changed.gone:
        print(f"gone with it, for they led nowhere else: {', '.join(map(aliases.written, changed.gone))}")


# In --help, what is used every day stands first.
app.command("import", epilog=account_import.EXAMPLE)(account_import.import_)
app.command("unlock", epilog=account_logins.EXAMPLE)(account_logins.unlock)
app.command("quota", epilog=limits.ACCOUNT_QUOTA)(limits.account_quota)
app.command("keep", epilog=limits.ACCOUNT_KEEP)(limits.account_keep)


def _quota(size: str | None) -> int | None:
    if size is None:
        return None
    try:
        return limits.parsed_quota(size)
    except ValueError as error:
        raise Usage(f"the quota {error}") from error


def _fields(account: Account) -> dict[str, Any]:
    return {
        "address": str(account.mailbox),
        "enabled": account.disabled_at is None,
        "messages": account.messages,
        "octets": account.octets,
        "quota_octets": account.quota_octets,
        "quota_messages": account.quota_messages,
        "uid_validity": account.uid_validity,
        "created_at": account.created_at,
        "disabled_at": account.disabled_at,
    }
