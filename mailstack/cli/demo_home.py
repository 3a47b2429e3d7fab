"""Where `mailstack demo` lives: a folder that it makes once and finds again."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from mailstack import settings
from mailstack.auth import passwords
from mailstack.cli.init import init
from mailstack.errors import AlreadyThere, BadData, BadSetting, NotFound
from mailstack.mail.address import Mailbox
from mailstack.store import accounts
from mailstack.store.engine import Database

HOSTNAME = "mail.demo.example"
DOMAIN = "demo.example"
ADDRESS = Mailbox("demo", DOMAIN)

_LISTEN: Final = (
    (re.compile(r"^(\[smtp\]\nlisten = )\[.*?\]", re.MULTILINE), 25),
    (re.compile(r"^(\[pop3\]\nlisten = )\[.*?\]", re.MULTILINE), 110),
    (re.compile(r"^(tls_listen = )\[.*?\]", re.MULTILINE), 995),
)
"""Where `init` writes the ports, and what stands above the base there."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What the demo remembers of itself from one start to the next."""

    password: str
    welcomed: bool = False


class Home:
    """The demo's folder: its notes, and a server as `mailstack init` makes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.config = self.directory / "mailstack.toml"
        self._file = self.directory / "demo.json"
        self._notes: Notes | None = None

    def prepare(self) -> None:
        """Make all that is missing, step by step: a start that was cut short is finished by the next one."""
        self._notes = self._read()
        if self._notes is None:
            if self.config.exists():
                raise AlreadyThere(
                    f"{self.directory} holds a server that is not the demo's; start it with"
                    f" mailstack --config {self.config} serve, or give the demo another --directory"
                )
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(Notes(passwords.generate_password()))
        if not self.config.exists():
            # What init says of the next steps is what we are about to do.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                init(directory=self.directory, hostname=HOSTNAME, domain=DOMAIN)
        self._add_account()

    def listen_above(self, base: int) -> None:
        """Put ports of one's own choice into the settings, where every other command finds them, too."""
        text = self.config.read_text(encoding="utf-8")
        for where, port in _LISTEN:
            text, found = where.subn(rf'\g<1>["127.0.0.1:{base + port}"]', text, count=1)
            if not found:
                raise BadSetting(
                    f"{self.config} is no longer as the demo wrote it: change listen and tls_listen there,"
                    " and leave --base-port out"
                )
        self._replace(self.config, text)

    @property
    def notes(self) -> Notes:
        """What is remembered now."""
        assert self._notes is not None, "prepare comes first"
        return self._notes

    def remember_welcome(self) -> None:
        """The welcome message is in the store; it is not sent again."""
        self._write(replace(self.notes, welcomed=True))

    def _read(self) -> Notes | None:
        try:
            return Notes(**json.loads(self._file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise BadData(f"{self._file} does not hold what the demo wrote: {error}") from error

    def _write(self, notes: Notes) -> None:
        self._replace(self._file, json.dumps(asdict(notes)))
        self._notes = notes

    def _replace(self, file: Path, text: str) -> None:
        draft = file.with_suffix(".new")
        # The password is for whoever may read the folder, and nobody else.
        with open(draft, "w", encoding="utf-8", opener=_private) as stream:
            stream.write(text)
        draft.rename(file)

    def _add_account(self) -> None:
        database = Database(settings.load(self.config, os.environ).url)
        try:
            with database.reading() as connection, contextlib.suppress(NotFound):
                accounts.find_account(connection, ADDRESS)
                return
            kept = passwords.stored(self.notes.password)
            with database.writing() as connection:
                accounts.add_account(
                    connection, ADDRESS, password_hash=kept.password_hash, scram_keys=kept.scram_keys
                )
        finally:
            database.dispose()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
