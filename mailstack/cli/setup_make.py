"""The steps of `mailstack setup`: each makes one thing if it is not there, and says what it did."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mailstack.auth import passwords
from mailstack.cli import setup_place, units
from mailstack.cli.setup_place import Place
from mailstack.errors import NotRunning
from mailstack.mail.address import Mailbox
from mailstack.settings import Settings
from mailstack.store import accounts, aliases, domains, schema
from mailstack.store.engine import Database

Tell = Callable[[str], None]

_POSTMASTER: Final = "postmaster"
_LINK: Final = Path("/usr/local/bin/mailstack")


def surroundings(backups: Path, tell: Tell) -> bool:
    """The units, the system user and its folders; return whether systemd will start the server."""
    try:
        written = units.install(backups)
        tell(f"{len(written)} files for systemd are written" if written else "systemd has all its files")
        managed = units.is_systemd_running()
    except NotRunning as error:
        tell(f"no units: {error}")
        managed = False
    if setup_place.user() is None:
        home = "/var/lib/mailstack"
        command = ["useradd", "--system", "--user-group", "--home-dir", home, "--shell", "/usr/sbin/nologin"]
        done = subprocess.run([*command, setup_place.USER], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotRunning(f"the system user {setup_place.USER} cannot be made: {done.stderr.strip()}")
        tell(f"the system user {setup_place.USER} is made")
    if shutil.which("mailstack") is None and not _LINK.exists():
        _LINK.symlink_to(Path(sys.prefix) / "bin/mailstack")
        tell(f"{_LINK} leads to this program")
    return managed


def settings_file(place: Place, text: str, tell: Tell) -> None:
    """The settings, unless there are some."""
    if place.config.exists():
        tell(f"{place.config} is there already and stays as it is")
        return
    setup_place.write(place.config, text)
    tell(f"{place.config} is written")


def folders(settings: Settings, owner: pwd.struct_passwd | None) -> None:
    """Where mail and backups go."""
    for folder in (settings.state_dir, settings.backup.folder):
        setup_place.make_private(folder, owner)


def certificate(settings: Settings, owner: pwd.struct_passwd | None, tell: Tell) -> None:
    """A self-signed one, where the settings name none and there is none yet."""
    from mailstack.service.tls import write_self_signed

    file, private_key = settings.certificate_files
    if settings.tls.certificate is not None or (file.exists() and private_key.exists()):
        tell(f"the certificate {file} stays as it is")
        return
    with setup_place.acting_as(owner):
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_self_signed(file, private_key, settings.hostname)
    tell(f"{file} is a self-signed certificate for {settings.hostname}")


class Stocked:
    """The store with the first domain, account and alias."""

    def __init__(self, settings: Settings, owner: pwd.struct_passwd | None, tell: Tell) -> None:
        self._settings = settings
        self._owner = owner
        self._tell = tell
        self.domains: tuple[str, ...] = ()

    def stock(self, mailbox: Mailbox, password: Callable[[], tuple[str, bool]]) -> None:
        """Make what is missing; `password` is asked only where the account is new."""
        from mailstack.store import migrate

        with setup_place.acting_as(self._owner):
            database = Database(self._settings.url)
            try:
                with database.reading() as connection:
                    found = schema.revision(connection)
                if found is None:
                    migrate.upgrade(database, lambda _said: None)
                    self._tell("an empty store is made")
                with database.reading() as connection:
                    schema.check(connection)
                self._domain(database, mailbox)
                self._account(database, mailbox, password)
                self._alias(database, mailbox)
                with database.reading() as connection:
                    known = domains.list_domains(connection)
                self.domains = tuple(each.name for each in known if each.renamed_to is None)
            finally:
                database.dispose()

    def _domain(self, database: Database, mailbox: Mailbox) -> None:
        with database.writing() as connection:
            known = {each.name for each in domains.list_domains(connection)}
            if mailbox.domain not in known:
                domains.add_domain(connection, mailbox.domain)
        self._tell(
            f"{mailbox.domain} is one of our domains" + (" already" if mailbox.domain in known else "")
        )

    def _account(
        self, database: Database, mailbox: Mailbox, password: Callable[[], tuple[str, bool]]
    ) -> None:
        with database.reading() as connection:
            if accounts.taken(connection, [mailbox]):
                self._tell(f"{mailbox} is there already, with its password")
                return
        secret, made_up = password()
        kept = passwords.stored(secret, iterations=self._settings.auth.scram_iterations)
        with database.writing() as connection:
            accounts.add_account(
                connection, mailbox, password_hash=kept.password_hash, scram_keys=kept.scram_keys
            )
        self._tell(f"{mailbox} can receive and fetch mail")
        if made_up:  # at once: whatever fails after this, it is not lost
            self._tell(
                f"password: {secret}   (it is shown this once; mailstack account passwd makes another)"
            )

    def _alias(self, database: Database, mailbox: Mailbox) -> None:
        postmaster = Mailbox(_POSTMASTER, mailbox.domain)
        with database.writing() as connection:
            if mailbox == postmaster or accounts.taken(connection, [postmaster]):
                return
            aliases.add_alias(connection, postmaster, [mailbox])
        self._tell(f"mail for {postmaster} goes to {mailbox}")


def is_root() -> bool:
    """Whether this may change the machine."""
    return os.geteuid() == 0
