"""`mailstack domain`: the domains that mail is received for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from mailstack.cli import limits, show
from mailstack.cli.options import Json, admin
from mailstack.mail.address import fold_domain
from mailstack.store import domains
from mailstack.store.domains import Domain

app = typer.Typer(name="domain", help="The domains that mail is received for.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="DOMAIN", show_default=False)]


@app.command("add", epilog="Example: mailstack domain add example.org")
def add(context: typer.Context, name: Name) -> None:
    """Receive mail for a domain from now on."""
    with admin(context).database() as database, database.writing() as connection:
        added = domains.add_domain(connection, name)
    print(f"{added} is one of our domains now")


@app.command("list", epilog="Example: mailstack domain list --json")
def list_(context: typer.Context, json: Json = False) -> None:
    """Show all domains and what is in them."""
    with admin(context).database() as database, database.reading() as connection:
        found = domains.list_domains(connection)
    if json:
        show.as_json([each._asdict() for each in found])
        return
    show.table(
        ("domain", "accounts", "aliases", "messages", "size", ""),
        (
            (
                each.name,
                str(each.accounts),
                str(each.aliases),
                str(each.messages),
                show.octets(each.octets),
                f"old name of {each.renamed_to}" if each.renamed_to else "",
            )
            for each in found
        ),
        empty="there are no domains yet; mailstack domain add makes one",
        numbers=("accounts", "aliases", "messages", "size"),
    )


@app.command("remove", epilog="Example: mailstack domain remove example.org")
def remove(context: typer.Context, name: Name) -> None:
    """Receive no more mail for a domain; only one without accounts and aliases can go."""
    with admin(context).database() as database, database.writing() as connection:
        removed = domains.remove_domain(connection, name)
        known = domains.list_domains(connection)
    print(f"{removed} is none of our domains any more")
    for setting, domain in _named_by_settings(context, known):
        show.note(f"{setting} in {admin(context).config} still names {domain}: change it, too")


@app.command("rename", epilog="Example: mailstack domain rename example.org example.net")
def rename(context: typer.Context, old: Name, new: Name) -> None:
    """Give a domain another name: mail and unique-ids stay, and the old name goes on working."""
    with admin(context).database() as database, database.writing() as connection:
        renamed = domains.rename_domain(connection, old, new)
        known = domains.list_domains(connection)
    print(f"the domain is {renamed} now; mail to {old} and logins with it go on working")
    for setting, domain in _named_by_settings(context, known):
        show.note(
            f"{setting} in {admin(context).config} still names {domain}: change it before that name goes"
        )


def _named_by_settings(context: typer.Context, known: Iterable[Domain]) -> Iterator[tuple[str, str]]:
    """The settings that name a domain that is none of ours, or an old name of one."""
    settings = admin(context).settings
    current = {each.name for each in known if each.renamed_to is None}
    postmaster = (settings.postmaster or "").rpartition("@")[2]
    for setting, name in (("default_domain", settings.default_domain), ("postmaster", postmaster)):
        if name and fold_domain(name) not in current:
            yield setting, name


# In --help, what is used every day stands first.
app.command("quota", epilog=limits.DOMAIN_QUOTA)(limits.domain_quota)
app.command("keep", epilog=limits.DOMAIN_KEEP)(limits.domain_keep)
