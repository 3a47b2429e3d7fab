"""`mailstack deliver`: what comes on standard input is in maildrops, or the exit code says why not."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest

from mailstack import errors
from mailstack.cli import deliver
from mailstack.mail.address import parse_mailbox
from mailstack.store import accounts, aliases, browse, domains
from mailstack.store.engine import Database
from tests.cli.conftest import CommandLine

MESSAGE = b"Subject: x\n\nbody\n"


@pytest.fixture(autouse=True)
def _people(store: Database) -> None:
    with store.writing() as connection:
        for name, quota in {"jo": None, "kim": None, "tiny": 1, "away": None}.items():
            mailbox = parse_mailbox(f"{name}@example.org")
            accounts.add_account(connection, mailbox, password_hash="$none$", quota_octets=quota)
        accounts.disable(connection, parse_mailbox("away@example.org"))
        aliases.add_alias(
            connection,
            parse_mailbox("team@example.org"),
            [parse_mailbox(f"{n}@example.org") for n in ("jo", "kim")],
        )


def mail(store: Database, name: str) -> list[bytes]:
    with store.reading() as connection:
        account = accounts.find_account(connection, parse_mailbox(f"{name}@example.org"))
    return [
        b"".join(browse.octets_of(store, account.id, each.uid)) for each in browse.walk(store, account.id)
    ]


def test_a_message_gets_its_trace_fields_and_nothing_is_said(mailstack: CommandLine, store: Database) -> None:
    done = mailstack.good("deliver", "--sender", "eve@example.net", "jo@example.org", stdin=MESSAGE)
    assert done.out + done.err == ""
    (found,) = mail(store, "jo")
    assert re.fullmatch(
        rb"Return-Path: <eve@example\.net>\r\nDelivered-To: jo@example\.org\r\n"
        rb"Received: from mail\.example\.org by mail\.example\.org with local id [a-z2-7]+-1\r\n"
        rb" +for <jo@example\.org>; [^\r]+\r\nSubject: x\r\n\r\nbody\r\n",
        found,
    )


@pytest.mark.parametrize("sender", ["", "<>", "MAILER-DAEMON", "unknown"])
def test_a_sender_that_is_none_is_the_null_reverse_path(
    mailstack: CommandLine, store: Database, sender: str
) -> None:
    mailstack.good("deliver", "-f", sender, "jo@example.org", stdin=MESSAGE)
    assert mail(store, "jo")[0].startswith(b"Return-Path: <>\r\n")


def test_a_sender_may_be_whatever_mail_takes(mailstack: CommandLine, store: Database) -> None:
    mailstack.good("deliver", "-f", "taro..yamada.@example.net", "jo@example.org", stdin=MESSAGE)
    assert mail(store, "jo")[0].startswith(b'Return-Path: <"taro..yamada."@example.net>\r\n')


@pytest.mark.parametrize(
    "recipient", ["jo", "JO@Example.ORG", "<jo@example.org>", "jo+shop@example.org", '"jo"@example.org']
)
def test_an_address_is_what_rcpt_takes(mailstack: CommandLine, store: Database, recipient: str) -> None:
    mailstack.good("deliver", recipient, stdin=MESSAGE)
    assert len(mail(store, "jo")) == 1


def test_who_is_reached_twice_gets_one_message(mailstack: CommandLine, store: Database) -> None:
    mailstack.good("deliver", "jo@example.org", "team@example.org", stdin=MESSAGE)
    assert len(mail(store, "jo")) == len(mail(store, "kim")) == 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (
            b"From eve Mon Jan  1 00:00:00 2024\nReturn-Path: <a@b.example>\nSubject: x\n\nFrom here\n",
            b"Subject: x\r\n\r\nFrom here\r\n",
        ),
        (b"Subject: x\r\n\r\nno end", b"Subject: x\r\n\r\nno end\r\n"),
        (b".\n..\n", b"\r\n.\r\n..\r\n"),
        (
            b"From eve\n for jo; x\nReturn-Path: <a@b.example>\n",
            b"\r\n for jo; x\r\nReturn-Path: <a@b.example>\r\n",
        ),
        (b"From a line without an end", b"X-Mailbox-Line: From a line without an end\r\n"),
        (b"", b""),
    ],
)
def test_the_content(mailstack: CommandLine, store: Database, given: bytes, kept: bytes) -> None:
    mailstack.good("deliver", "jo@example.org", stdin=given)
    (found,) = mail(store, "jo")
    assert found.partition(b"; ")[2].partition(b"\r\n")[2] == kept
    (listed,) = mailstack.good("maildrop", "list", "jo@example.org", "--json").json
    assert listed["octets"] == len(found)


def test_a_large_message(mailstack: CommandLine, store: Database) -> None:
    body = b"".join(b"%08d\r\n" % number for number in range(300_000))
    mailstack.good("deliver", "jo@example.org", stdin=b"Subject: x\r\n\r\n" + body)
    assert mail(store, "jo")[0].endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize(
    ("recipients", "code", "reason"),
    [
        (["nobody@example.org"], os.EX_NOUSER, ""),
        (["jo@elsewhere.example"], os.EX_NOUSER, ""),
        (["away@example.org"], os.EX_NOUSER, "disabled"),
        (["tiny@example.org"], os.EX_TEMPFAIL, "full"),
        (["jo@@"], os.EX_DATAERR, ""),
        (["jo@example.org", "nobody@example.org"], os.EX_NOUSER, ""),
        (["jo@example.org", "tiny@example.org"], os.EX_TEMPFAIL, "full"),
        ([], os.EX_USAGE, "RECIPIENT"),
    ],
)
def test_a_refusal_leaves_no_mail_anywhere(
    mailstack: CommandLine, store: Database, recipients: list[str], code: int, reason: str
) -> None:
    refused = mailstack("deliver", *recipients, stdin=MESSAGE)
    assert refused.code == code
    assert refused.err.startswith("mailstack: ")
    assert reason in refused.err
    assert mail(store, "jo") == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"Received: x\n" * 100 + b"\n", "loop"),
        (b"A: b\n" * 60_000, "header"),
        (b"\n" + b"x" * (51 << 20), "larger"),
    ],
    ids=["loop", "header", "size"],
)
def test_a_message_that_nobody_takes(
    mailstack: CommandLine, store: Database, given: bytes, reason: str
) -> None:
    refused = mailstack("deliver", "jo@example.org", stdin=given)
    assert refused.code == os.EX_DATAERR
    assert reason in refused.err
    assert mail(store, "jo") == []


def test_what_may_be_put_right_is_temporary(mailstack: CommandLine) -> None:
    mailstack.file.write_text("hostnmae = 1\n")
    assert mailstack("deliver", "jo@example.org", stdin=MESSAGE).code == os.EX_TEMPFAIL
    for error in (
        errors.StoreUnavailable("x"),
        errors.StoreFull("x"),
        errors.SchemaMismatch("x"),
        OSError("x"),
    ):
        assert deliver.code(error) == os.EX_TEMPFAIL


def test_a_closed_standard_input_is_no_empty_message(mailstack: CommandLine, store: Database) -> None:
    command = [sys.executable, "-m", "mailstack", "--config", mailstack.file, "deliver", "jo@example.org"]
    done = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *command], capture_output=True, timeout=60)
    assert done.returncode == os.EX_TEMPFAIL
    assert done.stderr == b"mailstack: there is no standard input, where the message has to come from\n"
    assert mail(store, "jo") == []


def test_without_a_default_domain_a_bare_name_is_no_address(mailstack: CommandLine, store: Database) -> None:
    assert deliver._forward_path("jo", "example.org") == ("jo", "example.org")
    with pytest.raises(errors.BadAddress):
        deliver._forward_path("jo", None)
    assert deliver._forward_path("Postmaster", None) == ("Postmaster", "")
    with store.reading() as connection:
        assert [each.name for each in domains.list_domains(connection)] == ["example.org"]


def test_a_person_is_told_that_a_message_is_waited_for_and_can_go(mailstack: CommandLine) -> None:
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "mailstack", "--config", str(mailstack.file), "deliver", "jo"]
    process = subprocess.Popen(words, stdin=slave, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "Ctrl-D on a line of its own ends it" in process.stderr.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.communicate()
        os.close(master)
        os.close(slave)
