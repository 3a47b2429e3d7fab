"""`mailstack init`: from nothing to a server that can be started, without a question."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mailstack import settings
from mailstack.cli import ask, make, places
from mailstack.errors import AlreadyThere
from mailstack.store import domains

EXAMPLE = "Example: mailstack init --directory /srv/mail --hostname mail.example.org --domain example.org"


def init(
    directory: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes; made if need be.")],
    hostname: Annotated[str, typer.Option(metavar="NAME", help="This server's own name in the DNS.")],
    domain: Annotated[str, typer.Option(metavar="DOMAIN", help="The domain to receive mail for.")],
) -> None:
    """Write settings, a self-signed certificate and an empty store; overwrites nothing."""
    hostname, domain = ask.host_name(hostname, "--hostname"), domains.new_name(domain)
    place = places.folder(directory, tls="tls")
    file = place.config
    if file.exists():
        raise AlreadyThere(f"{file} is there already; nothing was changed")
    text = place.written(hostname, domain)
    with make.server(place, settings.load(file, {}, text), print) as database:
        make.domain(database, domain, print)
    # Last of all: an init that was cut short can be run again.
    make.settings_file(place, text, print)
    print(f"next: mailstack --config {file} account add you@{domain}")
    print(f"then: mailstack --config {file} serve")
