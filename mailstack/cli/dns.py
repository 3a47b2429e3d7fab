"""`mailstack dns`: the records that the world still lacks, to paste into a zone file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

import typer

from mailstack.checks import records
from mailstack.checks.facts import Facts
from mailstack.checks.probes import machine
from mailstack.checks.records import Record
from mailstack.cli import look, show
from mailstack.cli.doctor import PublicAddress, Resolver, checked_addresses
from mailstack.cli.look import Glasses
from mailstack.cli.options import Json, admin
from mailstack.store import domains

EXAMPLE = "Example: mailstack dns --all"


def dns(
    context: typer.Context,
    *,
    all_: Annotated[
        bool, typer.Option("--all", help="Print those that are there, too, and ask nobody.")
    ] = False,
    resolver: Resolver = None,
    address: PublicAddress = None,
    json: Json = False,
) -> None:
    """Print the records that the DNS lacks for our domains, in zone-file form.

    The exit code is 65 if one that mail needs is missing, and 75 if the DNS could not be asked.
    """
    settings = admin(context).settings
    glasses = Glasses(resolver, checked_addresses(address or ()), all_)
    with admin(context).database() as database, database.reading() as connection:
        ours = tuple(each.name for each in domains.list_domains(connection) if each.renamed_to is None)
    facts = Facts(
        datetime.now(UTC),
        settings,
        domains=ours,
        addresses=tuple(glasses.addresses),
        machine=machine.look(settings.state_dir, settings.backup.folder),
    )
    if not all_:
        facts = look.named(facts, glasses)
    found = records.wanted(facts) if all_ else records.missing(facts)
    if json:
        show.as_json([each._asdict() for each in found])
    else:
        for line in zone(found):
            print(line)
    unheard = sum(bool(each.problem) for each in (facts.names or {}).values())
    if unheard:
        show.note(f"{show.counted(unheard, 'question')} had no answer; mailstack doctor tells more")
        raise typer.Exit(os.EX_TEMPFAIL)
    if not all_:
        if not found:
            show.note("the DNS has every record that it needs")
        if any(each.required for each in found):
            raise typer.Exit(os.EX_DATAERR)


def zone(found: Iterable[Record]) -> list[str]:
    """Lines of a zone file: what mail needs first; what has to be filled in is a comment."""
    lines: list[str] = []
    given = list(found)
    for heading, required in (("needed", True), ("recommended", False)):
        several = [each for each in given if each.required is required]
        for note in dict.fromkeys(each.note for each in several):
            lines.append(f"; {heading}: {note}")
            lines += [f"{each}" if each.is_known else f"; {each}" for each in several if each.note == note]
    return lines
