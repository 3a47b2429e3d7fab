"""Where `mailstack demo` lives: a folder that it makes once and finds again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mailstack import settings
from mailstack.auth import passwords
from mailstack.cli import make, places
from mailstack.cli.places import Ports
from mailstack.errors import AlreadyThere, BadData, BadSetting
from mailstack.files import write_whole
from mailstack.mail.address import Mailbox

HOSTNAME = "mail.demo.example"
DOMAIN = "demo.example"
ADDRESS = Mailbox("demo", DOMAIN)


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
        place = places.folder(self.directory, tls="tls")
        make.settings_file(place, place.written(HOSTNAME, DOMAIN), make.silent)
        found = settings.load(self.config, {})
        with make.server(place, found, make.silent) as database:
            make.domain(database, DOMAIN, make.silent)
            make.account(database, found, ADDRESS, lambda: (self.notes.password, False), make.silent)

    def listen_on(self, ports: Ports) -> None:
        """Put ports of one's own choice into the settings, where every other command finds them, too."""
        text = self.config.read_text(encoding="utf-8")
        found = settings.load(self.config, {})
        before = (found.smtp.listen, found.pop3.listen, found.pop3.tls_listen)
        for line, old, port in zip(places.LISTEN.values(), before, ports, strict=True):
            if (written := line.format('", "'.join(map(str, old)))) not in text:
                raise BadSetting(
                    f"{self.config} is no longer as the demo wrote it: change listen and tls_listen there,"
                    " and leave --base-port out"
                )
            text = text.replace(written, line.format(f"127.0.0.1:{port}"), 1)
        places.write(self.config, text)

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
        # The password is for whoever may read the folder, and nobody else.
        write_whole(self._file, json.dumps(asdict(notes)).encode(), mode=0o600)
        self._notes = notes
