"""`mailstack doctor` and `mailstack dns`, through a resolver on loopback, beside a server that runs."""

from __future__ import annotations

import email
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import pytest

from mailstack.mail.address import parse_mailbox
from mailstack.service.tls import write_self_signed
from mailstack.store import accounts, browse
from mailstack.store.engine import Database
from tests.cli.conftest import CommandLine
from tests.support import resolver
from tests.support.appliance import DOMAIN, HOSTNAME, POP3S_PORT, Appliance

pytestmark = pytest.mark.skipif(resolver.available() is not None, reason=str(resolver.available()))

ADDRESS: Final = "127.0.0.9"
RIGHT: Final = (
    f"{HOSTNAME}. IN A {ADDRESS}",
    f"9.0.0.127.in-addr.arpa. IN PTR {HOSTNAME}.",
    f"{DOMAIN}. IN MX 10 {HOSTNAME}.",
    f'{DOMAIN}. IN TXT "v=spf1 mx ~all"',
    f"_pop3s._tcp.{DOMAIN}. IN SRV 0 1 {POP3S_PORT} {HOSTNAME}.",
)
NAMES: Final = {"resolver", "address", "reverse", "mx", "spf", "srv"}

World = Callable[[Sequence[str]], AbstractContextManager[tuple[str, int]]]


@pytest.fixture
def command(
    appliance: Appliance, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """The command line on an appliance that is not started."""
    return CommandLine(appliance.config, capsys, monkeypatch)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Makes resolvers that know these records only."""
    return lambda lines: resolver.running(tmp_path / "resolver", lines)


def through(server: tuple[str, int]) -> tuple[str, ...]:
    """The options that let a command see that world only."""
    return "--resolver", f"{server[0]}:{server[1]}", "--address", ADDRESS


def by_check(found: Any) -> dict[str, str]:
    """The worst level of each check."""
    order = ("ok", "unknown", "advice", "warning", "wrong")
    levels: dict[str, str] = {}
    for each in found["findings"]:
        levels[each["check"]] = max(levels.get(each["check"], "ok"), each["level"], key=order.index)
    return levels


def test_a_server_that_runs_in_a_right_world_has_nothing_wrong(
    appliance: Appliance, command: CommandLine, world: World
) -> None:
    appliance.start()
    with world(RIGHT) as server:
        found = by_check(command("doctor", *through(server), "--json").json)
    fine = NAMES | {"memory", "listeners", "database", "accounts", "service", "limits", "locks"}
    fine |= {"certificate", "certificate-names", "certificate-served", "private-key"}
    assert {name: found.get(name) for name in fine} == dict.fromkeys(fine, "ok")
    assert found["certificate-chain"] == "advice"  # it is self-signed
    assert found["backup"] == "warning"
    assert found["outbound"] == "unknown"  # this world has no familiar mail server


def test_a_server_that_is_down_in_an_empty_world_is_told_in_words(command: CommandLine, world: World) -> None:
    with world(()) as server:
        found = command("doctor", *through(server))
    assert found.code == 65
    assert f"wrong    MX of {DOMAIN}: {DOMAIN} has no MX record\n" in found.out
    assert f"         > {DOMAIN}. 3600 IN MX 10 {HOSTNAME}.\n" in found.out
    assert "wrong    service: no process of the service runs\n" in found.out
    assert found.out.splitlines()[-1].startswith(("12 ok", "11 ok", "10 ok", "9 ok", "8 ok"))


def test_what_the_dns_says_does_nothing_to_a_terminal(command: CommandLine, world: World) -> None:
    with world([rf'{DOMAIN}. IN TXT "v=spf1 mx \027[2J\194\155"']) as server:
        found = command("doctor", *through(server))
    assert r"it does not say what to do with all others: v=spf1 mx \x1b[2J\x9b" in " ".join(found.out.split())
    assert r"> v=spf1 mx \x1b[2J\x9b ~all" in found.out
    assert "".join(found.out.split("\n")).isprintable()


def test_a_certificate_that_the_server_does_not_show_yet_is_told(
    appliance: Appliance, command: CommandLine
) -> None:
    appliance.start()
    write_self_signed(appliance.certificate, appliance.folder / "private_key.pem", HOSTNAME)
    found = by_check(command("doctor", "--offline", "--json").json)
    assert found["certificate-served"] == "warning"
    assert not NAMES & set(found)


def test_a_database_of_another_schema_is_told_and_the_rest_is_still_looked_at(
    appliance: Appliance, command: CommandLine
) -> None:
    (appliance.state_dir / "mail.db").unlink()
    with appliance.database() as database:
        database.engine.connect().close()
    found = command("doctor", "--offline", "--json")
    assert found.code == 65
    assert by_check(found.json)["database"] == "wrong"
    assert by_check(found.json)["memory"] == "ok"


def test_every_address_is_asked_once(appliance: Appliance, command: CommandLine) -> None:
    with socket.create_server((appliance.host, 0)) as listening:
        text = appliance.config.read_text()
        host, port = listening.getsockname()
        appliance.config.write_text(f'{text}\n[lmtp]\nlisten = ["{host}:{port}"]\n')
        command("doctor", "--offline", "--json")
        listening.setblocking(False)
        listening.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.mark.parametrize("wrong", ["9.9.9", "nonsense", "1.1.1.1:port"])
def test_a_resolver_that_is_no_address_is_refused(command: CommandLine, wrong: str) -> None:
    assert command("doctor", "--resolver", wrong).code == 64
    assert command("dns", "--address", wrong).code == 64


# -- mailstack dns ------------------------------------------------------------------------------


def test_dns_prints_what_is_missing_and_a_zone_with_it_is_complete(
    command: CommandLine, world: World
) -> None:
    with world(RIGHT[:2]) as server:
        found = command("dns", *through(server))
    assert found.code == 65
    lines = [line for line in found.out.splitlines() if not line.startswith(";")]
    assert [line.split("\t")[3] for line in lines] == ["MX", "TXT", "SRV"]
    with world([*RIGHT[:2], *lines]) as server:
        complete = command("dns", *through(server))
    assert (complete.code, complete.out) == (0, "")
    assert complete.err == "the DNS has every record that it needs\n"


def test_dns_lacks_only_what_is_recommended(command: CommandLine, world: World) -> None:
    with world(RIGHT[:3]) as server:
        found = command("dns", *through(server))
    assert found.code == 0
    assert found.out.count("; recommended") == 2
    assert "; needed" not in found.out


def test_dns_all_asks_nobody_and_prints_everything(command: CommandLine) -> None:
    found = command.good("dns", "--all", "--address", ADDRESS, "--json").json
    assert [each["type"] for each in found] == ["A", "PTR", "MX", "TXT", "SRV"]


def test_dns_says_when_nobody_answers(command: CommandLine) -> None:
    found = command("dns", "--resolver", f"127.0.0.1:{resolver.free_port()}")
    assert found.code == 75
    assert "had no answer" in found.err


# -- mailstack doctor --nightly -----------------------------------------------------------------


def letters(appliance: Appliance) -> list[email.message.Message]:
    """The mail of anna, who is the postmaster: the first account is."""
    database = Database(appliance.url)
    try:
        with database.reading() as connection:
            account = accounts.find_account(connection, parse_mailbox(f"anna@{DOMAIN}"))
        octets = [
            b"".join(browse.octets_of(database, account.id, e.uid)) for e in browse.walk(database, account.id)
        ]
    finally:
        database.dispose()
    return [email.message_from_bytes(each) for each in octets]


def test_a_night_mails_only_what_has_changed(
    appliance: Appliance, command: CommandLine, world: World
) -> None:
    appliance.start()
    with world(RIGHT) as server:
        assert "the postmaster has mail about it" in command.good("doctor", "--nightly", *through(server)).out
        assert command.good("doctor", "--nightly", *through(server)).out.startswith("nothing has changed")
    (first,) = letters(appliance)
    assert "backup: there is no backup" in first.get_payload()
    assert (first["To"], first["Auto-Submitted"]) == (f"postmaster@{DOMAIN}", "auto-generated")
    assert first["Return-Path"] == "<>"

    with world([line for line in RIGHT if " MX " not in line]) as server:
        command.good("doctor", "--nightly", *through(server))
    second = letters(appliance)[-1]
    assert second["Subject"] == f"{HOSTNAME}: 1 new finding"
    assert f"{DOMAIN}. 3600 IN MX 10 {HOSTNAME}." in second.get_payload()
    assert "backup" not in second.get_payload()

    # A resolver that is down has mended nothing, and is told itself.
    command.good(
        "doctor", "--nightly", "--resolver", f"127.0.0.1:{resolver.free_port()}", "--address", ADDRESS
    )
    third = letters(appliance)[-1]
    assert third["Subject"] == f"{HOSTNAME}: 1 new finding"
    assert "resolver: the DNS does not answer" in third.get_payload()
    assert "mended" not in third.get_payload()

    with world(RIGHT) as server:
        command.good("doctor", "--nightly", *through(server))
    last = letters(appliance)[-1]
    assert last["Subject"] == f"{HOSTNAME}: 2 mended"
    assert f"mended   MX of {DOMAIN}" in last.get_payload()
    assert len(letters(appliance)) == 4


def test_a_night_whose_mail_cannot_be_delivered_is_told_again_the_next_night(
    appliance: Appliance, command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILSTACK_STORE__RESERVE", "1000TiB")  # no disk has so much: no mail is taken
    assert command("doctor", "--nightly", "--offline").code == 75
    monkeypatch.delenv("MAILSTACK_STORE__RESERVE")
    command.good("doctor", "--nightly", "--offline")
    assert len(letters(appliance)) == 1
