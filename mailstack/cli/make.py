"""The steps that make a new server: each makes what is not there yet, and says what it did."""

from __future__ import annotations

import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mailstack.auth import passwords
from mailstack.cli import places, units
from mailstack.cli.places import Place
from mailstack.errors import NotRunning
from mailstack.mail.address import Mailbox
from mailstack.settings import Settings
from mailstack.store import accounts, aliases, domains, schema
from mailstack.store.engine import Database

Told = Callable[[str], None]

_LINK: Final = Path("/usr/local/bin/mailstack")


def silent(_text: str) -> None:
    """For a caller that says what was made in words of its own."""


def surroundings(backups: Path, told: Told) -> bool:
    """The units, the system user and its folders; return whether systemd will start the server."""
    try:
        written = units.install(backups)
        told(f"{len(written)} files for systemd are written" if written else "systemd has all its files")
        if left := " ".join(map(str, units.leftovers())):
            told("files of an installation without the package hide the package's own; remove them:")
            told(f"  rm {left} && systemctl daemon-reload && systemctl restart mailstack.target")
        managed = units.is_systemd_running()
    except NotRunning as error:
        told(f"no units: {error}")
        managed = False
    if places.user() is None:
        home = "/var/lib/mailstack"
        command = ["useradd", "--system", "--user-group", "--home-dir", home, "--shell", "/usr/sbin/nologin"]
        done = subprocess.run([*command, places.USER], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotRunning(f"the system user {places.USER} cannot be made: {done.stderr.strip()}")
        told(f"the system user {places.USER} is made")
    if shutil.which("mailstack") is None and not _LINK.exists():
        _LINK.symlink_to(Path(sys.prefix) / "bin/mailstack")
        told(f"{_LINK} leads to this program")
    return managed


def settings_file(place: Place, text: str, told: Told) -> None:
    """The settings, unless there are some."""
    if place.config.exists():
        told(f"{place.config} is there already and stays as it is")
        return
    places.write(place.config, text)
    told(f"{place.config} is written")


@contextmanager
def server(
    place: Place, settings: Settings, told: Told, owner: pwd.struct_passwd | None = None
) -> Iterator[Database]:
    """The folder of all mail, certificate and store; the block fills the store, as the owner.

    Raises SchemaMismatch where there is a store of another version.
    """
    places.make_private(settings.state_dir, owner)
    with places.acting_as(owner):
        _certificate(place, settings, told)
        database = Database(settings.url)
        try:
            _store(database, told)
            yield database
        finally:
            database.dispose()


def _certificate(place: Place, settings: Settings, told: Told) -> None:
    """A self-signed one, but where the settings name somebody else's."""
    file, private_key = settings.certificate_files
    ours = settings.tls.certificate is None or file.parent == place.certificates
    if not ours or (file.exists() and private_key.exists()):
        told(f"the certificate {file} stays as it is")
        return
    # The package of the service brings the whole server along, which no other command needs.
    from mailstack.service.tls import write_self_signed

    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_self_signed(file, private_key, settings.hostname)
    told(f"{file} is a self-signed certificate for {settings.hostname}")


def _store(database: Database, told: Told) -> None:
    with database.reading() as connection:
        if schema.revision(connection) is not None:
            schema.check(connection)
            told("the store that is there stays as it is")
            return
    from mailstack.store import migrate  # alembic takes long to import

    migrate.upgrade(database, silent)
    told("an empty store is made")


def domain(database: Database, name: str, told: Told) -> tuple[str, ...]:
    """A domain to receive mail for; return the names of all."""
    with database.writing() as connection:
        known = {each.name for each in domains.list_domains(connection)}
        if name not in known:
            domains.add_domain(connection, name)
        ours = tuple(each.name for each in domains.list_domains(connection) if each.renamed_to is None)
    told(f"{name} is one of our domains" + (" already" if name in known else ""))
    return ours


def account(
    database: Database,
    settings: Settings,
    mailbox: Mailbox,
    password: Callable[[], tuple[str, bool]],
    told: Told,
) -> None:
    """An account; `password`, which answers as `ask.password` does, is called only where it is new."""
    with database.reading() as connection:
        if accounts.taken(connection, [mailbox]):
            told(f"{mailbox} is there already, with its password")
            return
    secret, made_up = password()
    kept = passwords.stored(secret, iterations=settings.auth.scram_iterations)
    with database.writing() as connection:
        accounts.add_account(
            connection, mailbox, password_hash=kept.password_hash, scram_keys=kept.scram_keys
        )
    told(f"{mailbox} can receive and fetch mail")
    if made_up:  # at once: whatever fails after this, it is not lost
        told(f"password: {secret}   (it is shown this once; mailstack account passwd makes another)")


def postmaster(database: Database, mailbox: Mailbox, told: Told) -> None:
    """An alias: mail for the postmaster of the account's domain goes to the account."""
    postmaster = Mailbox("postmaster", mailbox.domain)
    with database.writing() as connection:
        if mailbox == postmaster or accounts.taken(connection, [postmaster]):
            return
        aliases.add_alias(connection, postmaster, [mailbox])
    told(f"mail for {postmaster} goes to {mailbox}")
