"""The settings file, the environment over it, and every way to be wrong in them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mailstack import settings
from mailstack.errors import BadSetting
from mailstack.settings import KEYS, Settings, load, read
from mailstack.values import TcpAddress, UnixAddress


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mailstack.toml"


def refused(path: Path | None, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(BadSetting) as refusal:
        load(path, environ or {})
    return str(refusal.value).splitlines()


def test_without_a_file_every_setting_has_a_default() -> None:
    found = load(None, {})
    assert found.hostname == socket.gethostname()
    assert found.smtp.listen == (TcpAddress("127.0.0.1", 2525),)
    assert found.smtp.max_message_octets == 50 << 20
    assert found.pop3.allow_plaintext_login is False
    assert found.pop3.idle_seconds == 600
    assert found.url == "sqlite:////var/lib/mailstack/mail.db"
    assert found == Settings(hostname=socket.gethostname())


def test_the_file_is_read_with_human_sizes_and_durations(file: Path) -> None:
    file.write_text(
        'hostname = "mail.example.org"\ndefault_domain = "example.org"\n'
        'database_url = "postgresql://mail@db/mail"\n'
        '[smtp]\nlisten = ["[::]:25", "127.0.0.1:2525"]\nmax_message_size = "25MiB"\n'
        '[pop3]\nidle = "30m"\n[lmtp]\nlisten = ["unix:/run/lmtp"]\n'
    )
    found = load(file, {})
    assert found.smtp.listen == (TcpAddress("::", 25), TcpAddress("127.0.0.1", 2525))
    assert found.smtp.max_message_octets == 25 << 20
    assert found.pop3.idle_seconds == 1800
    assert found.lmtp.listen == (UnixAddress(Path("/run/lmtp")),)
    assert found.url == "postgresql://mail@db/mail"


def test_the_environment_is_stronger_than_the_file(file: Path) -> None:
    file.write_text('hostname = "a.example.org"\n[smtp]\nlisten = ["[::]:25"]\n')
    environ = {
        "MAILSTACK_SMTP__LISTEN": "127.0.0.1:1, [::1]:2",
        "MAILSTACK_POP3__ALLOW_PLAINTEXT_LOGIN": "true",
        "MAILSTACK_SMTP__MAX_CONNECTIONS": "9",
        "MAILSTACK_CONFIG": "elsewhere",
        "HOME": "/root",
    }
    found = load(file, environ)
    assert found.smtp.listen == (TcpAddress("127.0.0.1", 1), TcpAddress("::1", 2))
    assert found.pop3.allow_plaintext_login is True
    assert found.smtp.max_connections == 9
    assert found.hostname == "a.example.org"


def test_each_value_remembers_who_said_it(file: Path) -> None:
    file.write_text('hostname = "a.example.org"\n')
    origins = read(file, {"MAILSTACK_LOG__LEVEL": "debug"}).origins
    assert origins == {"hostname": str(file), "log.level": "MAILSTACK_LOG__LEVEL"}


def test_relative_paths_begin_at_the_settings_file(file: Path) -> None:
    file.write_text(
        'state_dir = "state"\ndatabase_url = "sqlite:///mail.db"\n'
        '[tls]\ncertificate = "tls/cert.pem"\nprivate_key = "/etc/key.pem"\n'
    )
    found = load(file, {})
    assert found.state_dir == file.parent / "state"
    assert found.url == f"sqlite:///{file.parent}/mail.db"
    assert found.tls.certificate == file.parent / "tls/cert.pem"
    assert found.tls.private_key == Path("/etc/key.pem")


def test_an_absolute_database_stays_where_it_is(file: Path) -> None:
    file.write_text('database_url = "sqlite:////srv/mail.db"\n')
    assert load(file, {}).url == "sqlite:////srv/mail.db"


@pytest.mark.parametrize(
    ("written", "key", "reason"),
    [
        ('hostnmae = "x"', "hostnmae", "there is no such setting; did you mean hostname?"),
        ("zebra = 1", "zebra", "there is no such setting"),
        ('[smtp]\nlistn = ["a:1"]', "smtp.listn", "did you mean smtp.listen?"),
        ("[stmp]\nlisten = []", "[stmp]", "did you mean smtp?"),
        ("smtp = 25", "smtp", "write [smtp] on a line of its own"),
        ('[smtp]\nmax_message_size = "huge"', "smtp.max_message_size", "is not a size"),
        ('[smtp]\nmax_message_size = "1KiB"', "smtp.max_message_size", "64 KiB"),
        ('[pop3]\nidle = "5m"', "pop3.idle", "10 minutes"),
        ("[smtp]\nmax_connections = 0", "smtp.max_connections", "too little"),
        ('[pop3]\nlisten = ["::1:110"]', "pop3.listen", "no address to listen on"),
        ("[smtp]\nmax_recipients = 99", "smtp.max_recipients", "asks for 100"),
        ('[smtp]\nidle = "5s"', "smtp.idle", "a slow line"),
        ('[smtp]\nmax_in_flight = "10MiB"', "smtp.max_in_flight", "has to fit"),
        ('[smtp]\nbare_newlines = "keep"', "smtp.bare_newlines", "none of"),
        ('[tls]\ncertificate = "c.pem"', "tls.private_key", "a certificate needs its private key"),
        ('[tls]\nprivate_key = "c.pem"', "tls.certificate", "a private key needs its certificate"),
        ('[smtp]\nlisten = ["[::]:1"]\n[pop3]\nlisten = ["[::]:1"]', "pop3.listen", "smtp.listen listens"),
        ('[smtp]\nlisten = ["127.0.0.1:1110"]', "pop3.listen", "listens on 127.0.0.1:1110 already"),
        (
            '[smtp]\nlisten = ["[::]:1110"]',
            "pop3.listen",
            "smtp.listen ([::]:1110) listens on 127.0.0.1:1110",
        ),
        ('[smtp]\nlisten = ["0.0.0.0:1110"]', "pop3.listen", "listens on 127.0.0.1:1110 already"),
        (
            '[smtp]\nlisten = ["[::]:25", "0.0.0.0:25"]',
            "smtp.listen",
            "([::]:25) listens on 0.0.0.0:25 already",
        ),
        ('[metrics]\nlisten = ["127.0.0.1:2525"]', "metrics.listen", "smtp.listen listens on"),
        ("hostname.a = 1", "hostname", "is not a text"),
    ],
)
def test_a_mistake_names_file_key_and_reason(file: Path, written: str, key: str, reason: str) -> None:
    file.write_text(written + "\n")
    problems = refused(file)
    assert len(problems) == 1
    assert problems[0].startswith(f"{file}: {key}: ")
    assert reason in problems[0]


def test_all_mistakes_are_said_at_once(file: Path) -> None:
    file.write_text('hostnmae = "x"\n[smtp]\nmax_connections = -1\n')
    problems = refused(file, {"MAILSTACK_POP3__IDLE": "never", "MAILSTACK_PORT": "25"})
    assert [problem.split(": ")[:2] for problem in problems] == [
        [str(file), "hostnmae"],
        ["environment", "MAILSTACK_PORT"],
        [str(file), "smtp.max_connections"],
        ["MAILSTACK_POP3__IDLE", "pop3.idle"],
    ]


def test_two_listeners_on_port_0_do_not_meet(file: Path) -> None:
    file.write_text('[smtp]\nlisten = ["127.0.0.1:0"]\n[pop3]\nlisten = ["127.0.0.1:0"]\n')
    assert load(file, {}).pop3.listen == (TcpAddress("127.0.0.1", 0),)


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    assert refused(file) == [
        f"{file}: the settings file cannot be read: No such file or directory;"
        " mailstack setup makes one for this machine, --config names another"
    ]


def test_a_file_that_may_not_be_read_is_named(file: Path) -> None:
    file.mkdir()  # what root cannot read either
    assert refused(file) == [f"{file}: the settings file cannot be read: Is a directory"]


def test_a_file_that_is_no_text_or_no_toml_says_where(file: Path) -> None:
    file.write_bytes(b"hostname = '\xff'")
    assert "not UTF-8 text (octet 12)" in refused(file)[0]
    file.write_text("hostname = ")
    assert "not TOML" in refused(file)[0]


def test_certificate_files_that_cannot_be_read_are_named(file: Path) -> None:
    file.write_text('[tls]\ncertificate = "cert.pem"\nprivate_key = "key.pem"\n')
    (file.parent / "cert.pem").write_text("")
    problems = settings.unreadable(load(file, {}))
    assert problems == [f"tls.private_key: {file.parent}/key.pem cannot be read: No such file or directory"]


def test_every_key_has_a_meaning_and_one_variable() -> None:
    assert KEYS["smtp.max_message_size"].variable == "MAILSTACK_SMTP__MAX_MESSAGE_SIZE"
    assert len({key.variable for key in KEYS.values()}) == len(KEYS)
    assert all(key.meaning.endswith(".") for key in KEYS.values())
