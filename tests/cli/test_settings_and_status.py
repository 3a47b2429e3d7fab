"""`mailstack settings`, `status` and `init`: the server seen from outside."""

from __future__ import annotations

import os
import re
import socket
import stat
import threading
from pathlib import Path

import pytest

from mailstack import cli, settings
from mailstack.cli.admin import Admin
from mailstack.errors import BadSetting
from mailstack.mail.address import Mailbox
from mailstack.settings import KEYS
from mailstack.store import accounts
from mailstack.store.engine import Database
from tests.cli.conftest import CommandLine


def test_show_tells_every_setting_and_who_said_it(
    mailstack: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILSTACK_POP3__IDLE", "90m")
    shown = mailstack.good("settings", "show", "--json").json
    assert list(shown) == list(KEYS)
    assert shown["hostname"] == {"value": "mail.example.org", "origin": str(mailstack.file)}
    assert shown["pop3.idle"] == {"value": 5400, "origin": "MAILSTACK_POP3__IDLE"}
    assert shown["smtp.max_message_size"] == {"value": 50 << 20, "origin": "default"}
    rows = {line.split()[0]: line.split()[1] for line in mailstack.good("settings", "show").out.splitlines()}
    assert rows["pop3.idle"] == "90m"
    assert rows["smtp.max_message_size"] == "50MiB"
    assert rows["smtp.max_in_flight"] == "4GiB"
    assert rows["smtp.min_rate"] == "64"
    assert rows["retention.keep"] == "forever"
    assert rows["retention.keep_messages"] == "none"
    assert rows["postmaster"] == "none"
    assert rows["pop3.allow_plaintext_login"] == "false"


def test_show_keeps_the_databases_password(mailstack: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILSTACK_DATABASE_URL", "postgresql://mail:s3/cret@db.example.org/mail")
    for arguments in (("settings", "show"), ("settings", "show", "--json")):
        shown = mailstack.good(*arguments).out
        assert "cret" not in shown
        assert "postgresql://mail:...@db.example.org/mail" in shown


def test_check_says_what_the_start_would(mailstack: CommandLine) -> None:
    assert mailstack.good("settings", "check").out == f"{mailstack.file}: the settings are right\n"
    (mailstack.file.parent / "tls" / "private-key.pem").unlink()
    missing = mailstack("settings", "check")
    assert missing.code == 78
    assert "tls.private_key: " in missing.err
    assert mailstack("serve").err == missing.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hostnmae = 'x'", "hostnmae: there is no such setting; did you mean hostname?"),
        ("postmaster = 'a@@b'", "postmaster: "),
        ("state_dir = 7", "state_dir: 7 is not a text"),
    ],
)
def test_a_mistake_names_file_key_and_reason(mailstack: CommandLine, line: str, said: str) -> None:
    text = mailstack.file.read_text().replace(
        'state_dir = "state"\n', "" if "state" in line else 'state_dir = "state"\n'
    )
    mailstack.file.write_text(f"{line}\n{text}")
    refused = mailstack("settings", "check")
    assert (refused.code, refused.out) == (78, "")
    assert refused.err.startswith(f"mailstack: {mailstack.file}: {said}")


def test_without_settings_setup_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "DEFAULT_PATH", tmp_path / "mailstack.toml")
    with pytest.raises(BadSetting, match="or make one with mailstack setup"):
        _ = Admin(tmp_path / "mailstack.toml", environ={}).settings


def test_no_settings_file_says_how_to_get_one(mailstack: CommandLine) -> None:
    mailstack.file.unlink()
    refused = mailstack("account", "list")
    assert refused.code == 78
    assert f"{mailstack.file}: the settings file cannot be read" in refused.err
    assert "mailstack setup makes one" in refused.err


def test_status_counts_and_asks_every_listener(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", "jo")
    with socket.create_server(("127.0.0.1", 0)) as smtp, socket.create_server(("127.0.0.1", 0)) as pop3:
        port, other = smtp.getsockname()[1], pop3.getsockname()[1]
        lines = mailstack.file.read_text().split("[smtp]")[0]
        lines += f'[smtp]\nlisten = ["127.0.0.1:{port}"]\n[pop3]\nlisten = ["127.0.0.1:{other}"]\n'
        mailstack.file.write_text(lines)
        greeter = threading.Thread(target=_greet, args=(smtp, b"220 mail\r\n"))
        greeter.start()
        second = threading.Thread(target=_greet, args=(pop3, b"garbage\r\n"))
        second.start()
        found = mailstack("status", "--json")
        greeter.join()
        second.join()
    assert found.code == 69
    assert found.json["accounts"] == 1
    assert found.json["listeners"] == [
        {"role": "smtp", "address": f"127.0.0.1:{port}", "answers": True},
        {"role": "pop3", "address": f"127.0.0.1:{other}", "answers": False},
    ]
    assert found.json["processes"] == []
    down = mailstack("status")
    assert down.code == 69
    assert f"smtp 127.0.0.1:{port}: does not answer\n" in down.out


def test_another_server_that_answers_is_not_taken_for_this_one(mailstack: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as smtp:
        lines = mailstack.file.read_text().split("[smtp]")[0]
        lines += f'[smtp]\nlisten = ["127.0.0.1:{smtp.getsockname()[1]}"]\n[pop3]\nlisten = []\n'
        mailstack.file.write_text(lines)
        greeter = threading.Thread(target=_greet, args=(smtp, b"220 mail\r\n"))
        greeter.start()
        found = mailstack("status")
        greeter.join()
    assert found.code == 69
    assert ": answers\nno process of this server runs: what answers there is another one\n" in found.out


def test_status_tells_why_scram_is_not_offered(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", "jo")
    assert re.search(r"^SCRAM +offered: every account has keys$", mailstack("status").out, re.MULTILINE)
    database = Database(mailstack.url)
    with database.writing() as connection:
        for name in ("al", "di"):
            accounts.add_account(connection, Mailbox(name, "example.org"), password_hash="$hash$")
        accounts.disable(connection, Mailbox("di", "example.org"))  # nobody waits for those
    database.dispose()
    assert re.search(r"^SCRAM +not offered: 1 account lacks keys", mailstack("status").out, re.MULTILINE)
    assert mailstack("status", "--json").json["accounts_without_scram_keys"] == 1


def test_status_tells_of_a_database_that_cannot_be_read(mailstack: CommandLine) -> None:
    (mailstack.file.parent / "state" / "mail.db").write_bytes(b"no database" * 1000)
    found = mailstack("status", "--json")
    assert found.code == 69
    assert "is damaged" in found.json["database_trouble"]
    assert found.json["accounts"] is None
    assert found.json["certificate"]["self_signed"]
    assert [each["answers"] for each in found.json["listeners"]] == [False] * 3


def test_status_tells_of_a_domain_and_a_postmaster_that_are_not_there(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", "jo")
    assert mailstack("status", "--json").json["settings_trouble"] is None
    lines = re.sub("(?m)^(default_domain|postmaster) = .*\n", "", mailstack.file.read_text())
    names = 'default_domain = "example.net"\npostmaster = "kim@example.org"\n'
    mailstack.file.write_text(names + lines)
    said = (
        "default_domain: example.net is none of our domains;"
        " postmaster: there is no account or alias kim@example.org"
    )
    assert mailstack("status", "--json").json["settings_trouble"] == said
    assert mailstack("status").out.startswith(f"WARNING: {said}\n")


def _greet(server: socket.socket, greeting: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(greeting)


def test_init_makes_all_that_a_start_needs(initialised: Path) -> None:
    assert stat.S_IMODE((initialised / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((initialised / "tls" / "private-key.pem").stat().st_mode) == 0o600
    assert cli.main(["--config", str(initialised / "mailstack.toml"), "settings", "check"]) == 0


def test_what_init_made_keeps_its_backups_to_itself(mailstack: CommandLine) -> None:
    mailstack.good("database", "backup")  # and not in the folder of a server that is installed here
    assert len(list((mailstack.file.parent / "backups").glob("*Z"))) == 1


def test_init_overwrites_nothing(mailstack: CommandLine) -> None:
    before = mailstack.file.read_bytes()
    options = (
        "--directory",
        mailstack.file.parent,
        "--hostname",
        "other.example",
        "--domain",
        "other.example",
    )
    refused = mailstack("init", *options)
    assert (refused.code, refused.err) == (
        73,
        f"mailstack: {mailstack.file} is there already; nothing was changed\n",
    )
    assert mailstack.file.read_bytes() == before
    assert [each["name"] for each in mailstack.good("domain", "list", "--json").json] == ["example.org"]


def test_an_init_that_was_cut_short_can_be_run_again(mailstack: CommandLine) -> None:
    key = (mailstack.file.parent / "tls" / "private-key.pem").read_bytes()
    mailstack.file.unlink()
    options = (
        "--directory",
        mailstack.file.parent,
        "--hostname",
        "mail.example.org",
        "--domain",
        "example.org",
    )
    said = mailstack.good("init", *options).out
    assert "the store that is there stays as it is\nexample.org is one of our domains already\n" in said
    assert "certificate.pem stays as it is\n" in said
    assert (mailstack.file.parent / "tls" / "private-key.pem").read_bytes() == key
    mailstack.good("account", "add", "jo@example.org")


@pytest.mark.parametrize(
    ("hostname", "domain", "code"),
    [
        ("mail_.example.org", "example.org", 64),
        ('x"\nevil = 1', "example.org", 64),
        ("mail.example.org", "a b", 65),
        ("mail.example.org", "192.0.2.1", 65),
        ("mail.example.org", "[192.0.2.1]", 65),
    ],
)
def test_init_refuses_names_that_are_none(
    mailstack: CommandLine, tmp_path: Path, hostname: str, domain: str, code: int
) -> None:
    refused = mailstack("init", "--directory", tmp_path / "new", "--hostname", hostname, "--domain", domain)
    assert refused.code == code
    assert not (tmp_path / "new").exists()


def test_status_tells_of_the_certificate_and_of_its_end(
    mailstack: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = mailstack("status", "--json").json["certificate"]
    assert told["self_signed"]
    assert told["trouble"] is None
    assert "self-signed, good until" in mailstack("status").out
    monkeypatch.setattr("mailstack.certificates.WARN_DAYS", 4000)
    assert "WARNING: the certificate ends in" in mailstack("status").out
    (mailstack.file.parent / "tls" / "certificate.pem").unlink()
    assert "WARNING" in mailstack("status").out


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("state_dir = .*", 'state_dir = "mailstack.toml"', "mailstack.toml is no folder"),
        ("state_dir = .*", 'state_dir = "nowhere"', "there is no folder"),
        ("state_dir = .*", 'state_dir = "tls"', "there is no database"),
        (r'listen = \["127.0.0.1:2525"\]', 'listen = ["eth0:2525"]', "smtp: cannot listen on eth0:2525"),
        ("listen = .*", "listen = []", "there is no address to listen on"),
    ],
)
def test_check_finds_what_would_keep_the_service_from_starting(
    mailstack: CommandLine, before: str, after: str, said: str
) -> None:
    written, times = re.subn(before, after, mailstack.file.read_text())
    assert times, written
    mailstack.file.write_text(written)
    refused = mailstack("settings", "check")
    assert (refused.code, said in refused.err) == (os.EX_CONFIG, True), refused.err


def test_check_finds_another_schema(mailstack: CommandLine, store: Database) -> None:
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    refused = mailstack("settings", "check")
    assert refused.code == os.EX_CONFIG
    assert "mailstack database upgrade" in refused.err


def test_check_mentions_a_domain_and_a_postmaster_that_are_not_there(jo: CommandLine) -> None:
    jo.file.write_text('postmaster = "yuo@example.org"\n' + jo.file.read_text())
    assert (
        "note: postmaster: there is no account or alias yuo@example.org" in jo.good("settings", "check").err
    )
