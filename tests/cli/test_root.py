"""Root's command line, which turns into the owner of the mail: credentials that root alone may read."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailstack.cli.admin import Admin
from tests.cli.conftest import CommandLine
from tests.support.resolver import free_port

NAME = "nobody"


class Root:
    """A server whose state is nobody's and whose database only a credential of root's names."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "mailstack.toml"
        self.database = folder / "state" / "elsewhere.db"
        self.backups = folder / "backups"
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith("MAILSTACK_")}
        owner = pwd.getpwnam(NAME)
        for each in (self.database.parent, self.backups):
            each.mkdir()
            os.chown(each, owner.pw_uid, owner.pw_gid)
        (folder / "credentials").mkdir(mode=0o700)
        (folder / "credentials" / "database_url").write_text(f"sqlite:///{self.database}")
        self.config.write_text(
            'hostname = "mail.example.org"\nstate_dir = "state"\n'
            f'[smtp]\nlisten = ["127.0.0.1:{free_port()}"]\n[pop3]\nlisten = []\ntls_listen = []\n'
            '[lmtp]\nlisten = []\n[backup]\nfolder = "backups"\n'
        )

    def words(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "mailstack", "--config", str(self.config), *map(str, arguments)]

    def __call__(self, *arguments: object, user: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*arguments), capture_output=True, text=True, env=self.environ, timeout=100, user=user
        )

    def good(self, *arguments: object) -> str:
        outcome = self(*arguments)
        assert outcome.returncode == 0, outcome.stderr
        return outcome.stdout

    def json(self, *arguments: object, user: str | None = None) -> Any:
        return json.loads(self(*arguments, "--json", user=user).stdout)


@pytest.fixture
def root() -> Iterator[Root]:
    if os.geteuid() != 0:
        pytest.skip("only root turns into somebody else")
    if subprocess.run(
        [sys.executable, "-c", "import mailstack.cli"], user=NAME, capture_output=True
    ).returncode:
        pytest.skip(f"the user {NAME} may not read this checkout")
    folder = Path(tempfile.mkdtemp(prefix="mailstack-root-"))  # tmp_path is nobody's but root's
    folder.chmod(0o755)
    try:
        made = Root(folder)
        made.good("database", "upgrade")
        made.good("domain", "add", "example.org")
        yield made
    finally:
        shutil.rmtree(folder)


def test_a_credential_counts_for_the_whole_of_a_command(root: Root) -> None:
    root.good("database", "backup")
    root.good("backup", "verify")
    assert root.json("status")["last_verified_backup_at"] is not None
    findings = root.json("doctor", "--offline")["findings"]
    assert {each["level"] for each in findings if each["check"] == "database"} == {"ok"}
    assert not (root.database.parent / "mail.db").exists()


def test_the_doctor_of_an_ordinary_user_says_what_root_may_see(root: Root) -> None:
    (root.config.parent / "credentials").chmod(0o755)
    root.database.parent.chmod(0o700)  # as a packaged state_dir is
    found = root.json("doctor", "--offline", user="daemon")["findings"]
    unseen = {each["check"]: each for each in found if "(sudo)" in each["why"]}
    assert set(unseen) == {"certificate", "database", "service"}
    assert {each["level"] for each in unseen.values()} == {"unknown"}
    assert "control: Permission denied to the user daemon" in unseen["service"]["what"]


def test_mail_of_an_ordinary_user_can_be_delivered_by_root(root: Root) -> None:
    root.database.parent.chmod(0o700)  # as a packaged state_dir is
    (root.config.parent / "credentials").chmod(0o755)
    refused = root("deliver", "jo@example.org", user="daemon")
    assert refused.returncode == os.EX_TEMPFAIL
    assert refused.stderr.endswith("Permission denied to the user daemon; run this as root (sudo)\n")


def test_it_counts_for_workers_and_after_a_reload(root: Root) -> None:
    process = subprocess.Popen(
        root.words("serve", "smtp", "--workers", 2),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=root.environ,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        process.send_signal(signal.SIGHUP)
        told = next(line for line in process.stderr if "reloaded" in line)
        assert "not reloaded" not in told
        assert "database_url" not in told
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0


def test_a_command_reads_the_settings_once_and_again_only_when_asked(mailstack: CommandLine) -> None:
    admin = Admin(mailstack.file, environ={})
    hostname = admin.settings.hostname
    mailstack.file.write_text(mailstack.file.read_text().replace(hostname, "other.example.org"))
    assert admin.settings.hostname == hostname
    assert admin.reread().hostname == "other.example.org"


@pytest.mark.parametrize("command", [("doctor", "--offline"), ("database", "revision")])
def test_to_look_at_a_database_that_is_not_there_makes_none(
    mailstack: CommandLine, command: tuple[str, ...]
) -> None:
    file = Path(mailstack.url.removeprefix("sqlite:///"))
    file.unlink()
    told = mailstack(*command)
    assert "there is no database" in told.out + told.err
    assert not file.exists()


def test_no_certificate_is_asked_for_that_the_owner_of_the_mail_could_not_put_in_place(root: Root) -> None:
    folder = root.config.parent
    places = {"certificate": folder / "ssl" / "c.pem", "private_key": folder / "ssl" / "k.pem"}
    (folder / "ssl").mkdir(mode=0o755)
    text = root.config.read_text() + '[acme]\nlisten = ["127.0.0.1:0"]\ndirectory = "https://127.0.0.1:1/"\n'
    named = "".join(f'{key} = "{file}"\n' for key, file in places.items())
    root.config.write_text(f"{text}[tls]\n{named}")
    refused = root("certificate", "obtain")
    said = f"{places['certificate']} cannot be replaced by the user {NAME}: Permission denied; no authority"
    assert (refused.returncode, "asking" in refused.stderr) == (78, False)
    assert f"{root.config}: tls.certificate: {said}" in refused.stderr
    # The folder is given to the user; then what is there is root's.
    shutil.chown(folder / "ssl", NAME)
    places["certificate"].touch(mode=0o600)
    refused = root("certificate", "obtain")
    assert (refused.returncode, "asking" in refused.stderr) == (65, False)
    assert f"the user {NAME} may not even read it" in refused.stderr
    assert "asking" in root("certificate", "obtain", "--force").stderr
    # Credentials are root's alone.
    root.config.write_text(text)
    for key in places:
        (folder / "credentials" / f"tls.{key}").touch(mode=0o600)
    refused = root("certificate", "obtain")
    place = folder / "credentials" / "tls.certificate"
    assert (refused.returncode, "asking" in refused.stderr) == (78, False)
    assert f"{place}: tls.certificate: {place} cannot be replaced" in refused.stderr
