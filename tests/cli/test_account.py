"""`mailstack account`, and who may log in afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import func, select

from mailstack import settings
from mailstack.auth import scram
from mailstack.mail.address import Mailbox
from mailstack.store import accounts, logins, routes
from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.store import Store
from mailstack.store.tables import account, leftover, message
from tests.cli.conftest import CommandLine, csv, fits
from tests.support import maildrops


def test_add_makes_a_password_up_and_prints_it_once(mailstack: CommandLine, store: Database) -> None:
    added = mailstack.good("account", "add", "jo@example.org")
    said, shown = added.out.splitlines()
    assert said == "jo@example.org can receive and fetch mail now"
    assert fits(store, "jo", shown.removeprefix("password: "))
    assert "first account, so mail for postmaster" in added.err
    assert "password" not in mailstack.good("account", "show", "jo@example.org").out


def test_add_takes_the_first_line_of_standard_input(mailstack: CommandLine, store: Database) -> None:
    added = mailstack.good(
        "account", "add", "jo@example.org", "--password-stdin", stdin="gr\u00fcn ? \r\nmore".encode()
    )
    assert "password:" not in added.out
    assert fits(store, "jo", "gr\u00fcn ? ")


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        (b"\n", "the password is empty"),
        (b"a\0b\n", "control character"),
        (b"a" * 249, "more than 248 octets"),
        (b"\xff\xfe\n", "not UTF-8"),
    ],
)
def test_a_password_that_no_client_could_send_is_refused(
    mailstack: CommandLine, secret: bytes, reason: str
) -> None:
    refused = mailstack("account", "add", "jo@example.org", "--password-stdin", stdin=secret)
    assert refused.code == 65
    assert reason in refused.err
    assert mailstack.good("account", "list", "--json").json == []


def test_a_name_without_a_domain_is_in_the_default_domain(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", "jo")
    assert mailstack.good("account", "show", "JO", "--json").json["address"] == "jo@example.org"
    mailstack.file.write_text(mailstack.file.read_text().replace("default_domain", "# default_domain"))
    refused = mailstack("account", "show", "jo")
    assert (refused.code, refused.out) == (65, "")
    assert "jo has no domain" in refused.err


def test_json_of_add_holds_what_a_script_needs(mailstack: CommandLine, store: Database) -> None:
    added = mailstack.good("account", "add", "jo@example.org", "--quota", "2GiB", "--json").json
    assert added["address"] == "jo@example.org"
    assert added["quota_octets"] == 2 << 30
    assert fits(store, "jo", added["password"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("add", "jo@example.org"), 73, "jo@example.org is an account already"),
        (
            ("add", "ann@example.net"),
            67,
            "example.net is none of our domains; mailstack domain add makes it ours",
        ),
        (("add", "ann@@example.org"), 65, "ann@@example.org"),
        (("add", "ann@example.org", "--quota", "lots"), 64, 'the quota "lots" is not a size'),
        (("add",), 64, "Missing argument 'NAME@DOMAIN'; see mailstack account add --help"),
        (("add", "ann", "--frob"), 64, "No such option"),
        (("frob",), 64, "No such command 'frob'"),
        (("lst",), 64, "No such command 'lst'. Did you mean 'list'? see mailstack account --help"),
        (("quota", "jo", "0"), 64, 'the quota "0" is too little: no mail would come in; none is no limit'),
        (("quota", "jo", "--messages", "0"), 64, "no mail would come in"),
        (("add", "ann", "--quota", "0"), 64, "no mail would come in"),
        (("keep", "jo", "--for", "0d"), 64, "no mail would be kept"),
        (("keep", "jo", "--messages", "0"), 64, "no mail would be kept"),
        (("quota", "jo", "9999999TiB"), 64, 'the quota "9999999TiB" is too much'),
        (("keep", "jo", "--for", "99999w"), 64, 'the time "99999w" is too long: 36500d is the most'),
        (("keep", "jo", "--for", "90"), 64, 'the time "90" has no unit'),
        (("keep", "jo", "--read", "90s"), 64, 'the time "90s" is less than an hour'),
        (("add", "ann", "--quota", "5"), 64, 'the quota "5" means 5 octets'),
        (("show", "ann@example.org"), 67, "there is no account ann@example.org"),
        (("passwd", "ann@example.org"), 67, "there is no account ann@example.org"),
        (("disable", "ann@example.org"), 67, "there is no account"),
        (("remove", "ann@example.org", "--yes"), 67, "there is no account"),
        (("rename", "jo", "kim"), 73, "kim@example.org is an account already"),
        (("list", "example.net"), 67, "example.net is none of our domains"),
    ],
)
def test_refusals_are_one_sentence_and_a_code(
    mailstack: CommandLine, arguments: tuple[str, ...], code: int, said: str
) -> None:
    mailstack.good("account", "add", "jo@example.org")
    mailstack.good("account", "add", "kim@example.org")
    refused = mailstack("account", *arguments)
    assert (refused.code, refused.out) == (code, "")
    assert refused.err.startswith("mailstack: ")
    assert said in refused.err
    assert refused.err.count("\n") == 1


def test_list_and_show_tell_the_same(mailstack: CommandLine, store: Database) -> None:
    mailstack.good("account", "add", "jo@example.org", "--quota", "1MiB")
    mailstack.good("account", "add", "kim@example.org")
    mailstack.good("alias", "add", "team@example.org", "jo", "kim")
    maildrops.deposit(store, b"Subject: x\r\n\r\n", "jo@example.org")
    listed = mailstack.good("account", "list", "example.org", "--json").json
    assert [(each["address"], each["messages"]) for each in listed] == [
        ("jo@example.org", 1),
        ("kim@example.org", 0),
    ]
    shown = mailstack.good("account", "show", "jo@example.org", "--json").json
    assert shown == listed[0] | {
        "aliases": ["team@example.org"],
        "failed_logins": 0,
        "login_wait_seconds": 0,
        "failed_logins_forgotten_at": None,
        "keep_seconds": None,
        "keep_read_seconds": None,
        "keep_messages": None,
        "known_devices": [],
    }
    header, first, second = mailstack.good("account", "list").out.splitlines()
    assert header.split() == ["account", "messages", "size", "quota", "added"]
    assert first.split()[:6] == ["jo@example.org", "1", "46", "B", "1.0", "MiB"]
    assert second.split()[:5] == ["kim@example.org", "0", "0", "B", "none"]
    assert "aliases        team@example.org" in mailstack.good("account", "show", "jo").out


def test_an_empty_list_says_what_to_do(mailstack: CommandLine) -> None:
    listed = mailstack.good("account", "list")
    assert (listed.out, listed.err) == ("", "there are no accounts yet; mailstack account add makes one\n")


def test_passwd_replaces_the_password(mailstack: CommandLine, store: Database) -> None:
    mailstack.good("account", "add", "jo", "--password-stdin", stdin=b"old")
    mailstack.good("account", "passwd", "jo", "--password-stdin", stdin=b"new")
    assert fits(store, "jo", "new")
    assert not fits(store, "jo", "old")
    made_up = mailstack.good("account", "passwd", "jo").out.splitlines()[1]
    assert fits(store, "jo", made_up.removeprefix("password: "))


def test_passwd_tells_a_script_the_password_that_it_made_up(mailstack: CommandLine, store: Database) -> None:
    added = mailstack.good("account", "add", "jo", "--json").json
    changed = mailstack.good("account", "passwd", "jo", "--json").json
    assert fits(store, "jo", changed["password"])
    assert changed | {"password": added["password"]} == added
    own = mailstack.good("account", "passwd", "jo", "--password-stdin", "--json", stdin=b"own").json
    assert "password" not in own


def test_every_new_password_has_its_scram_keys(
    mailstack: CommandLine, store: Database, tmp_path: Path
) -> None:
    people = csv(tmp_path, "address,password\nkim@example.org,new\n")
    mailstack.good("account", "import", people)
    mailstack.good("account", "add", "jo", "--password-stdin", stdin=b"old")
    mailstack.good("account", "passwd", "jo", "--password-stdin", stdin=b"new")
    for name in ("jo", "kim"):
        with store.reading() as connection:
            found = routes.credentials(connection, Mailbox(name, "example.org"))
        assert found is not None
        assert found.scram_keys is not None
        keys = scram.parse(found.scram_keys)
        assert keys == scram.keys("new", iterations=16_384, salt=keys.salt)


def test_a_password_that_programs_send_differently_is_refused(mailstack: CommandLine) -> None:
    refused = mailstack("account", "add", "jo", "--password-stdin", stdin="a\N{GRINNING FACE}".encode())
    assert refused.code == 65
    assert "RFC 4013" in refused.err


def test_failed_logins_are_shown_and_forgiven(mailstack: CommandLine, store: Database) -> None:
    mailstack.good("account", "add", "jo")
    assert "failed logins  none lately" in mailstack.good("account", "show", "jo").out
    with store.writing() as connection:
        attempts = [logins.Attempt("jo@example.org", f"192.0.2.{n}", now()) for n in range(25)]
        logins.record_failures(connection, attempts)
        logins.record_successes(connection, [logins.Attempt("jo@example.org", "192.0.2.99", now())])
    shown = mailstack.good("account", "show", "jo").out
    assert "failed logins  25; new devices wait 2 s; forgotten at " in shown
    assert "known devices  192.0.2.99" in shown
    fields = mailstack.good("account", "show", "jo", "--json").json
    assert (fields["failed_logins"], fields["login_wait_seconds"]) == (25, 2)
    assert (
        mailstack.good("account", "unlock", "jo").out == "jo@example.org: its failed logins are forgotten\n"
    )
    assert mailstack.good("account", "unlock", "jo").out == "jo@example.org: no login had failed\n"
    shown = mailstack.good("account", "show", "jo").out
    assert "failed logins  none lately" in shown
    assert "known devices  192.0.2.99" in shown
    assert mailstack("account", "unlock", "kim").code == 67


def test_quota_is_changed_and_lifted(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", "jo")
    assert mailstack.good("account", "quota", "jo", "2GiB").out.endswith("its quota is 2.0 GiB\n")
    assert mailstack.good("account", "show", "jo", "--json").json["quota_octets"] == 2 << 30
    mailstack.good("account", "quota", "jo", "none")
    assert mailstack.good("account", "show", "jo", "--json").json["quota_octets"] is None


def test_disable_and_enable_say_what_they_did(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", "jo")
    said = [mailstack.good("account", verb, "jo").out for verb in ("disable", "disable", "enable", "enable")]
    states = ("is disabled", "was disabled already", "is enabled", "was enabled already")
    assert said == [f"jo@example.org {state}\n" for state in states]


def test_rename_keeps_the_old_name(mailstack: CommandLine, store: Database) -> None:
    mailstack.good("account", "add", "jo", "--password-stdin", stdin=b"secret")
    mailstack.good("account", "rename", "jo", "joanna@example.org")
    assert mailstack.good("account", "list", "--json").json[0]["address"] == "joanna@example.org"
    assert mailstack.good("alias", "list", "--json").json == [
        {"address": "jo@example.org", "targets": ["joanna@example.org"]}
    ]
    assert fits(store, "jo", "secret")


def test_remove_asks_a_person_and_wants_yes_of_a_script(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", "jo")
    refused = mailstack("account", "remove", "jo")
    assert refused.code == 64
    assert "Remove jo@example.org with 0 messages (0 B) for good?" in refused.err
    assert "say --yes" in refused.err
    mailstack.good("account", "add", "kim")
    mailstack.good("alias", "add", "info", "jo")
    mailstack.good("alias", "add", "team", "jo", "kim")
    mailstack.good("alias", "add", "@example.org", "info")
    removed = mailstack.good("account", "remove", "jo", "--yes").out.splitlines()
    assert removed == [
        "jo@example.org is gone, with 0 messages (0 B)",
        "it is no target any more of team@example.org",
        "gone with it, for they led nowhere else: info@example.org, @example.org",
    ]
    assert [each["address"] for each in mailstack.good("account", "list", "--json").json] == [
        "kim@example.org"
    ]
    assert [each["address"] for each in mailstack.good("alias", "list", "--json").json] == [
        "team@example.org"
    ]


def test_remove_takes_the_mail_along(mailstack: CommandLine, store: Database) -> None:
    mailstack.good("account", "add", "jo")
    mailstack.good("account", "add", "kim")
    maildrops.deposit(store, b"Subject: to both\r\n\r\n", "jo@example.org", "kim@example.org")
    maildrops.deposit(store, b"Subject: to one\r\n\r\n", "jo@example.org")
    mailstack.good("account", "remove", "jo", "--yes")
    with store.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(message)) == 1
        assert connection.scalar(select(func.count()).select_from(leftover)) == 0


def test_remove_waits_for_no_session(mailstack: CommandLine, store: Database) -> None:
    mailstack.good("account", "add", "jo")
    with store.reading() as connection:
        jo = accounts.find_account(connection, Mailbox("jo", "example.org"))

    async def while_locked() -> int:
        found = settings.load(mailstack.file, {})
        service = Store(Database(found.url), state_dir=found.state_dir, reserve_octets=0)
        lock = await service.lock_maildrop(jo.id, holder="192.0.2.1")
        refused = await asyncio.to_thread(mailstack, "account", "remove", "jo", "--yes")
        assert "the maildrop is in use, held since" in refused.err
        assert "by a session from 192.0.2.1" in refused.err
        assert "mailstack session kick" in refused.err
        lock.release()
        await service.close()
        return refused.code

    assert asyncio.run(while_locked()) == 75
    mailstack.good("account", "remove", "jo", "--yes")


def test_hashes_are_argon2id(mailstack: CommandLine, store: Database) -> None:
    mailstack.good("account", "add", "jo", "--password-stdin", stdin=b"secret")
    with store.reading() as connection:
        (stored,) = connection.execute(select(account.c.password_hash)).scalars()
    assert stored.startswith("$argon2id$")
