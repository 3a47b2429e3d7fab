"""`mailstack doctor`: everything that can be wrong, and what mends it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from mailstack.checks import table
from mailstack.checks.finding import Finding, Level
from mailstack.checks.table import Said
from mailstack.cli import doctor_night, look, show
from mailstack.cli.exits import Usage
from mailstack.cli.look import Glasses
from mailstack.cli.options import Json, admin

EXAMPLE = "Example: mailstack doctor --json"

Resolver = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Ask this resolver (ADDRESS or ADDRESS:PORT), not the system's."),
]
PublicAddress = Annotated[
    list[str] | None,
    typer.Option("--address", metavar="ADDRESS", help="A public address of this server, if a router has it."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Ask nobody beyond this machine.")]

_WIDTH = 100


def doctor(
    context: typer.Context,
    *,
    nightly: Annotated[
        bool, typer.Option("--nightly", help="Mail the postmaster what has changed since the last time.")
    ] = False,
    offline: Offline = False,
    resolver: Resolver = None,
    address: PublicAddress = None,
    json: Json = False,
) -> None:
    """Check all that can be wrong: names, ports, certificate, store, backups, units, the machine.

    The exit code is 65 if something is wrong or soon will be.
    """
    glasses = Glasses(resolver, checked_addresses(address or ()), offline)
    facts = look.all_of_it(admin(context), glasses, recount=True)
    said = list(table.afterwards(facts))
    if nightly:
        print(doctor_night.told(admin(context), facts, said))
        return
    if json:
        show.as_json({"findings": [fields(each) for each in said], "worst": worst(said).word})
    else:
        for each in said:
            print(paragraph(each.finding))
        print(verdict(said))
    if worst(said) >= Level.WARNING:
        raise typer.Exit(os.EX_DATAERR)


def paragraph(finding: Finding) -> str:
    """A line where all is well; else what it is, why it matters, and what mends it."""
    # What a record of the DNS says may be in it.
    head = show.printable(f"{finding.level.word:<8} {finding.subject}: {finding.what}")
    if finding.level is Level.FINE:
        return head
    lines = textwrap.wrap(
        head, _WIDTH, subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False
    )
    if finding.why:
        lines += _indented(finding.why)
    # What is to be copied stays in one piece, however long.
    return "\n".join([*lines, f"{' ' * 9}> {show.printable(finding.mend)}"] if finding.mend else lines)


def verdict(said: Sequence[Said]) -> str:
    """The sum of it in a sentence."""
    counts = {level: sum(each.finding.level is level for each in said) for level in Level}
    bad = [
        f"{counts[level]} {level.word}"
        for level in reversed(Level)
        if counts[level] and level is not Level.FINE
    ]
    return f"{counts[Level.FINE]} ok, {', '.join(bad)}" if bad else f"all is well: {counts[Level.FINE]} ok"


def worst(said: Iterable[Said]) -> Level:
    """The worst level of all."""
    return max((each.finding.level for each in said), default=Level.FINE)


def fields(said: Said) -> dict[str, Any]:
    """A finding for a script."""
    found = said.finding
    return {
        "check": said.check,
        "level": found.level.word,
        "subject": found.subject,
        "what": found.what,
        "why": found.why,
        "mend": found.mend,
    }


def _indented(text: str) -> list[str]:
    indent = " " * 9
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def checked_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """The addresses that somebody named, each in its one spelling; raises Usage."""
    from ipaddress import ip_address

    try:
        return tuple(str(ip_address(each)) for each in addresses)
    except ValueError as error:
        raise Usage(f"--address: {error}") from error
