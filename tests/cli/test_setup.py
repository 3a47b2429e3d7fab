"""`mailstack setup` below a folder: all is made, and nothing twice."""

from __future__ import annotations

import os
import poplib
import pwd
import re
import smtplib
import socket
import ssl
import tomllib
from pathlib import Path

import pytest

from mailstack.cli import places
from tests.cli.conftest import CommandLine
from tests.support import postgresql, resolver
from tests.support.appliance import Process

ADDRESS = "jo@example.org"


@pytest.fixture
def base_port() -> int:
    """A number above which all three ports are free, below those that the kernel gives to others."""
    for base in range(10_000 + os.getpid() % 500 * 20, 31_000, 7):
        if all(_is_free(base + port) for port in (25, 110, 995)):
            return base
    raise AssertionError("no port is free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """The command line, on a server that is not there yet."""
    for name in [name for name in os.environ if name.startswith("MAILSTACK_")]:
        monkeypatch.delenv(name)
    return CommandLine(tmp_path / "mail" / "mailstack.toml", capsys, monkeypatch)


@pytest.fixture
def arguments(tmp_path: Path, base_port: int) -> list[str]:
    """The options that keep it below a folder and away from the network."""
    return ["setup", "--directory", str(tmp_path / "mail"), "--base-port", str(base_port), "--offline"]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its mode and content, but SQLite's own working files."""
    files = (each for each in sorted(folder.rglob("*")) if each.is_file())
    return {
        str(each.relative_to(folder)): (each.stat().st_mode, each.read_bytes())
        for each in files
        if not re.search(r"mail\.db-", each.name)
    }


def test_one_command_makes_a_server_that_takes_a_message_and_gives_it_out(
    command: CommandLine, arguments: list[str], base_port: int, tmp_path: Path
) -> None:
    said = command.good(*arguments, ADDRESS).out
    found = re.search(r"^  password: (\S+) ", said, re.MULTILINE)
    assert found is not None
    process = Process(
        ["--config", str(command.file), "serve"], environ=dict(os.environ), log=tmp_path / "log"
    )
    try:
        process.wait_ready()
        with smtplib.SMTP("127.0.0.1", base_port + 25) as sender:
            sender.sendmail(
                "eve@example.net", ["postmaster@example.org"], "Subject: hello\r\n\r\nit works\r\n"
            )
        trusting = ssl.create_default_context(cafile=str(tmp_path / "mail/state/tls/certificate.pem"))
        trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT
        session = poplib.POP3_SSL("localhost", base_port + 995, context=trusting)
        session.user(ADDRESS)
        session.pass_(found[1])
        assert session.stat()[0] == 1
        session.quit()
        assert f"{base_port + 995} with SSL/TLS, or {base_port + 110} with STARTTLS" in said
        # What the doctor still minds is outside: no backup yet, and names that nobody asked for.
        levels = {each["level"] for each in command("doctor", "--offline", "--json").json["findings"]}
        assert "wrong" not in levels
    finally:
        process.terminate()
        process.wait()
        process.kill()


def test_setup_twice_changes_nothing_and_tells_no_password_again(
    command: CommandLine, arguments: list[str], tmp_path: Path
) -> None:
    first = command.good(*arguments, ADDRESS).out
    before = snapshot(tmp_path / "mail")
    second = command.good(*arguments, ADDRESS).out
    assert snapshot(tmp_path / "mail") == before
    assert "password: " in first
    assert "password: " not in second
    assert f"{ADDRESS} is there already" in second
    assert before["mailstack.toml"][0] & 0o777 == 0o644
    assert before["state/tls/private-key.pem"][0] & 0o777 == 0o600
    assert (tmp_path / "mail/state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "mail/backups").stat().st_mode & 0o777 == 0o700


def test_setup_again_makes_what_has_gone_and_keeps_what_was_changed(
    command: CommandLine, arguments: list[str], tmp_path: Path
) -> None:
    command.good(*arguments, ADDRESS)
    text = command.file.read_text().replace("keep = 7", "keep = 3")
    command.file.write_text(text)
    for name in ("certificate.pem", "private-key.pem"):
        (tmp_path / "mail/state/tls" / name).unlink()
    command.good("alias", "remove", "postmaster@example.org")
    said = command.good(*arguments, "--hostname", "mx.example.org", ADDRESS)
    assert command.file.read_text() == text
    assert "says hostname = mail.example.org, which stays" in said.err
    assert (tmp_path / "mail/state/tls/certificate.pem").exists()
    assert [each["address"] for each in command("alias", "list", "--json").json] == ["postmaster@example.org"]


def test_setup_of_another_domain_joins_the_first(command: CommandLine, arguments: list[str]) -> None:
    command.good(*arguments, ADDRESS)
    said = command.good(*arguments, "kim@bücher.example").out
    assert "xn--bcher-kva.example. " not in said  # zone files have tabs
    assert "xn--bcher-kva.example.\t3600\tIN\tMX\t10 mail.example.org." in said
    names = [each["name"] for each in command("domain", "list", "--json").json]
    assert names == ["example.org", "xn--bcher-kva.example"]
    assert tomllib.loads(command.file.read_text())["default_domain"] == "example.org"


def test_a_credential_and_the_environment_count_before_there_are_settings(
    command: CommandLine, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mail"
    (folder / "credentials").mkdir(parents=True)
    (folder / "credentials/state_dir").write_text("elsewhere\n")
    monkeypatch.setenv("MAILSTACK_BACKUP__FOLDER", str(tmp_path / "copies"))
    command.good(*arguments, ADDRESS)
    assert (folder / "elsewhere/mail.db").exists()
    assert (tmp_path / "copies").is_dir()
    assert not (folder / "state").exists()
    assert [each["address"] for each in command.good("account", "list", "--json").json] == [ADDRESS]


def test_what_lies_in_tmp_is_no_credential(
    command: CommandLine, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/database_url").write_text(f"sqlite:///{tmp_path}/theirs.db")
    command.good(*arguments, ADDRESS)
    assert not (tmp_path / "theirs.db").exists()


def test_a_password_of_ones_own_is_not_shown(command: CommandLine, arguments: list[str]) -> None:
    said = command.good(*arguments, "--password-stdin", ADDRESS, stdin=b"correct horse battery\n").out
    assert "password: " not in said
    assert "correct horse" not in said


def test_a_port_of_another_program_is_told_and_all_else_is_made(
    command: CommandLine, arguments: list[str], base_port: int
) -> None:
    with socket.create_server(("127.0.0.1", base_port + 25)):
        said = command.good(*arguments, ADDRESS).out
    assert (
        f"wrong    port 127.0.0.1:{base_port + 25}: smtp needs 127.0.0.1:{base_port + 25}, which is held"
        in said
    )
    assert f"(process {os.getpid()})" in said
    assert [each["address"] for each in command("account", "list", "--json").json] == [ADDRESS]


@pytest.mark.skipif(resolver.available() is not None, reason=str(resolver.available()))
def test_only_the_records_that_are_missing_are_printed(
    command: CommandLine, arguments: list[str], tmp_path: Path, base_port: int
) -> None:
    lines = ["mail.example.org. IN A 127.0.0.9", "example.org. IN MX 10 mail.example.org."]
    with resolver.running(tmp_path / "resolver", lines) as server:
        place = f"{server[0]}:{server[1]}"
        words = [word for word in arguments if word != "--offline"]
        said = command.good(*words, "--resolver", place, "--address", "127.0.0.9", ADDRESS).out
    assert "ok       address of mail.example.org: 127.0.0.9" in said
    assert "IN\tMX" not in said
    assert f"SRV\t0 1 {base_port + 995} mail.example.org." in said
    assert "PTR\tmail.example.org." in said


@pytest.mark.parametrize(
    "address",
    ["jo", "jo@", "@example.org", "jo@@example.org", "jo@[127.0.0.1]", "jo@localhost", "a b@example.org"],
)
def test_what_is_no_address_makes_nothing(
    command: CommandLine, arguments: list[str], tmp_path: Path, address: str
) -> None:
    refused = command(*arguments, address)
    assert refused.code == 65
    assert repr(address) in refused.err
    assert not (tmp_path / "mail").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--hostname", "mail_.example.org"), ("--base-port", "65000"), ("--address", "example")],
)
def test_what_is_no_name_no_port_or_no_public_address_makes_nothing(
    command: CommandLine, arguments: list[str], tmp_path: Path, option: str, value: str
) -> None:
    assert command(*arguments, option, value, ADDRESS).code == 64
    assert not (tmp_path / "mail").exists()


def test_who_is_not_root_is_told_the_other_way(command: CommandLine) -> None:
    command.good("setup", "--help")  # what nobody may not read is loaded
    with places.acting_as(pwd.getpwnam("nobody")):
        refused = command("setup", ADDRESS, "--offline")
    assert refused.code == 64
    assert "--directory DIR" in refused.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sets up a machine")
def test_settings_where_the_units_do_not_look_are_refused(command: CommandLine) -> None:
    refused = command("setup", ADDRESS, "--offline")
    assert refused.code == 64
    assert f"the units read /etc/mailstack/mailstack.toml and would not know {command.file};" in refused.err
    assert "--directory DIR" in refused.err
    assert not command.file.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_what_is_made_for_the_service_belongs_to_it() -> None:
    nobody = pwd.getpwnam("nobody")
    folder = Path(f"/tmp/mailstack-setup-{os.getpid()}")
    folder.mkdir()
    try:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        with pytest.raises(OSError, match="Permission"), places.acting_as(nobody):  # noqa: PT012
            (folder / "file").touch()
            Path("/root/mailstack-test").touch()
        assert (folder / "file").stat().st_uid == nobody.pw_uid
        assert os.geteuid() == 0
    finally:
        (folder / "file").unlink(missing_ok=True)
        folder.rmdir()


def test_records_that_nobody_could_be_asked_for_are_printed(
    command: CommandLine, arguments: list[str]
) -> None:
    words = [word for word in arguments if word != "--offline"]
    said = command.good(*words, "--resolver", f"127.0.0.1:{resolver.free_port()}", ADDRESS).out
    assert "wrong    resolver: the DNS does not answer" in said
    assert "example.org.\t3600\tIN\tMX\t10 mail.example.org." in said


def test_a_store_on_postgresql_is_set_up_as_the_settings_say(
    command: CommandLine, arguments: list[str], postgresql_server: str
) -> None:
    url = postgresql.create_database(postgresql_server, f"setup{os.getpid()}")
    command.file.parent.mkdir()
    command.file.write_text(f'hostname = "mail.example.org"\ndatabase_url = "{url}"\nstate_dir = "state"\n')
    try:
        said = command.good(*arguments, ADDRESS).out
        assert "an empty store is made" in said
        assert "password: " in said
        assert "password: " not in command.good(*arguments, ADDRESS).out
        found = command("doctor", "--offline", "--json").json["findings"]
        levels = {each["check"]: each["level"] for each in found}
        assert (levels["database"], levels["accounts"]) == ("ok", "ok")
        assert not (command.file.parent / "state/mail.db").exists()
    finally:
        postgresql.drop_database(postgresql_server, f"setup{os.getpid()}")
