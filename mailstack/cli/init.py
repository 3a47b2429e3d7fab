"""`mailstack init`: from nothing to a server that can be started, without a question."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mailstack import settings, values
from mailstack.cli import show
from mailstack.cli.exits import Usage
from mailstack.errors import AlreadyThere
from mailstack.store import domains
from mailstack.store.engine import Database

EXAMPLE = "Example: mailstack init --directory /srv/mail --hostname mail.example.org --domain example.org"

_FILE = """\
# mailstack's settings; `mailstack settings show` tells all that can be set, docs/settings.md what it means.
# A path that does not begin with / begins at this file's folder.

hostname = "{hostname}"
default_domain = "{domain}"
state_dir = "state"

[tls]
certificate = "tls/certificate.pem"
private_key = "tls/private-key.pem"

[smtp]
listen = ["127.0.0.1:2525"]

[pop3]
listen = ["127.0.0.1:1110"]      # plain, with STLS
tls_listen = ["127.0.0.1:1995"]  # TLS from the first octet

[backup]
folder = "backups"
"""


def init(
    directory: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes; made if need be.")],
    hostname: Annotated[str, typer.Option(metavar="NAME", help="This server's own name in the DNS.")],
    domain: Annotated[str, typer.Option(metavar="DOMAIN", help="The domain to receive mail for.")],
) -> None:
    """Write settings, a self-signed certificate and an empty store; overwrites nothing."""
    try:
        hostname = values.host_name(hostname)
    except ValueError as error:
        raise Usage(f"--hostname {error}") from error
    domain = domains.new_name(domain)
    file = directory.absolute() / "mailstack.toml"
    if file.exists():
        raise AlreadyThere(f"{file} is there already; nothing was changed")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "state").mkdir(mode=0o700, exist_ok=True)
    _make_certificate(directory / "tls", hostname)
    # Last of all under its own name: an init that was cut short can be run again.
    draft = file.with_suffix(".toml.new")
    draft.write_text(_FILE.format(hostname=hostname, domain=domain), encoding="utf-8")
    _make_store(settings.load(draft, {}).url, domain)
    draft.rename(file)
    print(f"{file} is written, with a self-signed certificate and an empty store for {domain}")
    print(f"next: mailstack --config {file} account add you@{domain}")
    print(f"then: mailstack --config {file} serve")


def _make_certificate(folder: Path, hostname: str) -> None:
    # The package of the service brings the whole server along, which no other command needs.
    from mailstack.service.tls import write_self_signed

    folder.mkdir(mode=0o700, exist_ok=True)
    certificate, private_key = folder / "certificate.pem", folder / "private-key.pem"
    if not (certificate.exists() and private_key.exists()):
        write_self_signed(certificate, private_key, hostname)


def _make_store(url: str, domain: str) -> None:
    from mailstack.store import migrate

    database = Database(url)
    try:
        migrate.upgrade(database, show.note)
        with database.writing() as connection:
            if domain not in {each.name for each in domains.list_domains(connection)}:
                domains.add_domain(connection, domain)
    finally:
        database.dispose()
