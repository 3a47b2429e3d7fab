"""The command line in this process, on a directory that `mailstack init` made."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mailstack import cli, settings
from mailstack.auth import passwords
from mailstack.mail.address import Mailbox
from mailstack.store import routes
from mailstack.store.engine import Database


class Outcome(NamedTuple):
    """What one command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it said with --json."""
        return json.loads(self.out)


class CommandLine:
    """Runs `mailstack --config FILE ...` and keeps what it printed apart."""

    def __init__(self, file: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.file = file
        self._capsys = capsys
        self._patch = patch

    def __call__(self, *arguments: object, stdin: bytes = b"") -> Outcome:
        self._patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        self._capsys.readouterr()
        try:
            code = cli.main(["--config", str(self.file), *map(str, arguments)])
        except SystemExit as end:  # argparse ends this way
            code = int(end.code or 0)
        return Outcome(code, *self._capsys.readouterr())

    def good(self, *arguments: object, stdin: bytes = b"") -> Outcome:
        """Run a command that has to work."""
        outcome = self(*arguments, stdin=stdin)
        assert outcome.code == 0, outcome.err
        return outcome

    @property
    def url(self) -> str:
        """The database of the settings file."""
        return settings.load(self.file, {}).url


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as `init` leaves it; tests copy it."""
    directory = tmp_path_factory.mktemp("init") / "mail"
    options = {"--directory": str(directory), "--hostname": "mail.example.org", "--domain": "example.org"}
    assert cli.main(["init", *(word for pair in options.items() for word in pair)]) == 0
    return directory


@pytest.fixture
def mailstack(
    initialised: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """The command line on a fresh server that has the domain example.org."""
    for name in [name for name in os.environ if name.startswith("MAILSTACK_")]:
        monkeypatch.delenv(name)
    shutil.copytree(initialised, tmp_path / "mail")
    return CommandLine(tmp_path / "mail" / "mailstack.toml", capsys, monkeypatch)


@pytest.fixture
def store(mailstack: CommandLine) -> Iterator[Database]:
    """The same server's database."""
    database = Database(mailstack.url)
    yield database
    database.dispose()


@pytest.fixture
def jo(mailstack: CommandLine) -> CommandLine:
    """A server with the accounts jo and ann, who have no mail."""
    mailstack.good("account", "add", "jo@example.org")
    mailstack.good("account", "add", "ann@example.org")
    return mailstack


def csv(folder: Path, text: str | bytes) -> Path:
    """A spreadsheet of people."""
    file = folder / "people.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def fits(store: Database, name: str, secret: str) -> bool:
    """Whether the secret is the account's password."""
    with store.reading() as connection:
        found = routes.credentials(connection, Mailbox(name, "example.org"))
    return found is not None and passwords.verify(secret, found.password_hash)
