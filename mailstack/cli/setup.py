"""`mailstack setup`: from a bare machine to a server that receives mail, with one argument."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from mailstack import settings
from mailstack.checks import judge_machine, table
from mailstack.checks.facts import Facts, Service
from mailstack.checks.finding import Level
from mailstack.checks.probes import machine, ports, units
from mailstack.cli import ask, look, make, places, setup_words, show
from mailstack.cli import units as systemd
from mailstack.cli.account import PasswordStdin
from mailstack.cli.doctor import Offline, PublicAddress, Resolver, checked_addresses, paragraph
from mailstack.cli.exits import Usage
from mailstack.cli.look import Glasses
from mailstack.cli.options import admin
from mailstack.cli.places import Place
from mailstack.errors import BadAddress, MailstackError
from mailstack.mail.address import Mailbox, ends_with_number, fold_domain, parse_mailbox, reason
from mailstack.settings import Settings

EXAMPLE = "Example: mailstack setup you@example.org"

_PATIENCE_SECONDS: Final = 30.0
_TRIAL_BASE_PORT: Final = 2500


def setup(
    context: typer.Context,
    address: Annotated[
        str,
        typer.Argument(
            metavar="YOU@DOMAIN", help="The first account, and the postmaster.", show_default=False
        ),
    ],
    *,
    hostname: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="This server's name in the DNS; else the machine's, or mail.DOMAIN."
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="To try it: put everything below DIR, without root and units."),
    ] = None,
    base_port: Annotated[
        int, typer.Option(metavar="N", help="With --directory: listen on ports N+25, N+110 and N+995.")
    ] = _TRIAL_BASE_PORT,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Whether to start the server.")] = True,
    password_stdin: PasswordStdin = False,
    offline: Offline = False,
    resolver: Resolver = None,
    public: PublicAddress = None,
) -> None:
    """Look at the machine, make all that is missing, start, and say what to publish and to type in.

    Nothing that is there is changed, so it can be run again at any time. The exit code is 69 if all
    is made and the server could not be started.
    """
    mailbox = _mailbox(address)
    place = _place(admin(context).config, directory, base_port)
    glasses = Glasses(resolver, checked_addresses(public or ()), offline)
    text = place.written(_hostname(hostname, mailbox.domain), mailbox.domain, mailbox)
    there = place.config.exists()
    found = settings.load(place.config, os.environ, None if there else text)
    if there and hostname and hostname.lower() != found.hostname.lower():
        show.note(f"{place.config} says hostname = {found.hostname}, which stays; change it there")

    print("Looking at the machine")
    facts = _seen(found, glasses, mailbox.domain, place)
    said = list(table.before_start(facts))
    for each in said:
        print(f"  {paragraph(each.finding)}".replace("\n", "\n  "))

    print("\nMaking what is missing")
    managed = make.surroundings(found.backup.folder, _told) if place.is_machine else False
    owner = places.user() if place.is_machine else None
    make.settings_file(place, text, _told)
    places.make_private(found.backup.folder, owner)
    with make.server(place, found, _told, owner) as database:
        ours = make.domain(database, mailbox.domain, _told)
        make.account(database, found, mailbox, lambda: ask.password(stdin=password_stdin), _told)
        make.postmaster(database, mailbox, _told)
    taken = [each.finding for each in said if each.check == "ports" and each.finding.level is Level.WRONG]
    problem = _started(managed, taken=bool(taken), wanted=start, place=place)

    print()
    for line in setup_words.names(replace(facts, domains=ours) if offline else facts):
        print(line)
    print()
    for line in setup_words.programs(found, mailbox):
        print(line)
    print(f"\n{_next(place, problem)}")
    if problem:
        raise typer.Exit(os.EX_UNAVAILABLE)


def _mailbox(address: str) -> Mailbox:
    try:
        mailbox = parse_mailbox(address)
        domain = fold_domain(mailbox.domain)
    except BadAddress as error:
        raise BadAddress(f"{address!r} is no address like you@example.org: {reason(error)}") from error
    if domain.startswith("[") or "." not in domain or ends_with_number(domain):
        raise BadAddress(f"{address!r}: {mailbox.domain} is no domain of the internet, like example.org")
    return Mailbox(mailbox.local_part, domain)


def _place(config: Path, directory: Path | None, base_port: int) -> Place:
    if directory is not None:
        return places.folder(directory, places.above(base_port))
    if os.geteuid() != 0:
        raise Usage("setup makes a system user and units, so it is for root; or try it with --directory DIR")
    if config.resolve() != settings.DEFAULT_PATH.resolve():
        raise Usage(
            f"the units read {settings.DEFAULT_PATH} and would not know {config}; leave out --config and"
            " MAILSTACK_CONFIG, or put everything elsewhere with --directory DIR"
        )
    return places.machine(settings.DEFAULT_PATH)


def _hostname(given: str | None, domain: str) -> str:
    """What the option says; else the machine's full name, if it has one that is public; else mail.DOMAIN."""
    if given is not None:
        return ask.host_name(given, "--hostname")
    name = machine.own_name()
    return name if judge_machine.is_public_name(name) else f"mail.{domain}"


def _seen(found: Settings, glasses: Glasses, domain: str, place: Place) -> Facts:
    facts = look.at_machine(found, glasses, (domain,))
    service = Service((), (), units.look() if place.is_machine else None, {})
    return replace(facts, service=service)


def _told(text: str) -> None:
    print(f"  {text}", flush=True)


def _started(managed: bool, *, taken: bool, wanted: bool, place: Place) -> str:
    """Why the server is not started although it should be; empty if it is, or nobody wants it."""
    if not wanted or not place.is_machine:
        return ""
    if taken:
        return "another program holds a port, as told above"
    if not managed:
        return "systemd does not run this machine"
    try:
        systemd.start()
    except MailstackError as error:
        return str(error)
    return _waited(place)


def _waited(place: Place) -> str:
    """Wait until every listener answers."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        silent = [each for each in ports.look(settings.load(place.config, {})) if not each.answers]
        if not silent:
            _told("the server is started, answers on every port, and will start with the machine")
            return ""
        if time.monotonic() > until:
            silent_ones = ", ".join(each.address for each in silent)
            return f"{silent_ones} does not answer; see journalctl -u 'mailstack*'"
        time.sleep(0.2)


def _next(place: Place, problem: str) -> str:
    option = "" if place.config == settings.DEFAULT_PATH else f" --config {place.config}"
    if problem:
        return (
            f"The server is not started: {problem}.\n"
            f"Once that is mended, run the same command again, or mailstack{option} serve."
        )
    if not place.is_machine:
        return f"Start it with: mailstack{option} serve"
    return "Once the records are published, mailstack doctor looks at everything, and again every night."
