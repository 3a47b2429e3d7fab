"""What is news on the second of two nights, as the nightly doctor compares what the checks say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from mailstack.certificates import Standing
from mailstack.checks import table
from mailstack.checks.facts import (
    Answer,
    Certificate,
    Facts,
    Outbound,
    Port,
    Process,
    Reach,
    Service,
    Session,
    Store,
    Unit,
)
from mailstack.checks.finding import Level
from mailstack.cli.doctor_night import Change, Key, Remembered, compared, key_of
from mailstack.mail.address import Mailbox
from mailstack.settings import Pop3, Settings
from mailstack.store.fullness import Full
from mailstack.values import TcpAddress
from tests.checks.samples import BOX, FINE, HOST, NOW, STORE
from tests.checks.test_judgements import BOXES

SIX: Final = "2a00:1:2::3"
DOMAINS: Final = ("example.org", "example.net")
NAMES: Final = {
    (HOST, "A"): Answer(("9.8.7.7", "10.0.0.1"), alias="box.example.org."),
    (HOST, "AAAA"): Answer((SIX,)),
    (f"_25._tcp.{HOST}", "TLSA"): Answer(("3 1 1 00",)),
    **{(domain, "MX"): Answer(("10 mx.example.com.",)) for domain in DOMAINS},
    **{(domain, "TXT"): Answer() for domain in DOMAINS},
    **{(f"_pop3s._tcp.{domain}", "SRV"): Answer() for domain in DOMAINS},
    **{(f"_mta-sts.{domain}", "TXT"): Answer(("v=STSv1; id=1",)) for domain in DOMAINS},
}
STUCK: Final = Session("s1", "jo@example.org", "192.0.2.9", NOW - timedelta(days=1), 3600.0)
FAILED: Final = Unit("mailstack@smtp.service", "loaded", "failed", "failed", "enabled", "exit-code")
OFF: Final = Unit("mailstack-backup.timer", "loaded", "inactive", "dead", "disabled", "")
FEW: Final = 64
TROUBLED: Final = Facts(
    NOW,
    Settings(
        hostname=HOST,
        default_domain="example.com",
        postmaster="kim@example.com",
        pop3=Pop3(tls_listen=(TcpAddress("::", 995),)),
    ),
    domains=DOMAINS,
    machine=BOX._replace(addresses=("9.8.7.6", SIX)),
    names=NAMES,
    ports=tuple(
        Port(role, f"[::]:{port}", port, False, False, "", None)
        for role, port in (("smtp", 25), ("pop3", 110), ("pop3s", 995))
    ),
    reach=tuple(Reach(each, port, "refused") for each in ("9.8.7.6", SIX) for port in (25, 995)),
    outbound=(Outbound("mx.example.com", "refused"), Outbound("mx.example.net", "refused")),
    certificate=Certificate(
        Path("c.pem"),
        Standing(("box.example.com",), (), "nobody", NOW - timedelta(days=1), NOW + timedelta(days=2), True),
        "unknown",
        key_fits=False,
        key_is_private=False,
        association={},
        fingerprint="00",
    ),
    store=STORE._replace(
        findings=("message 7 is in no maildrop", "message 8 is in no maildrop"),
        full=(
            Full(Mailbox("jo", "example.org"), 210, ("team@example.org",)),
            Full(Mailbox("kim", "example.org"), 220, ("all@example.org",)),
            Full(Mailbox("lee", "example.org"), 100, ()),
        ),
    ),
    service=Service(
        (
            Process(7, ("smtp",), FEW),
            Process(8, ("pop3", "pop3s"), FEW),
            Process(9, ("pop3", "pop3s"), 65_536),
            Process(10, (), None),
        ),
        (STUCK, STUCK._replace(session="s2", account="kim@example.org")),
        (FAILED, FAILED._replace(name="mailstack@pop3.service"), OFF),
        {"[::]:25": "01", "[::]:995": "02"},
    ),
)
"""A server on which each check has something to say, and most of them of more than one thing."""

SAMPLES: Final = {"fine": FINE, "troubled": TROUBLED} | {name: facts for name, (_, facts, _) in BOXES.items()}


@pytest.mark.parametrize("sample", SAMPLES)
def test_no_two_findings_of_a_run_are_about_the_same(sample: str) -> None:
    for run in (table.before_start, table.afterwards):
        keys = [key_of(each) for each in run(SAMPLES[sample])]
        assert len(set(keys)) == len(keys), keys


def test_each_check_has_something_to_say_of_the_sample_with_most_troubles() -> None:
    said = {each.check for each in table.afterwards(TROUBLED)}
    assert said == {check.name for check in table.CHECKS if check.afterwards}


def night(facts: Facts, before: Mapping[Key, Remembered]) -> Change:
    return compared(before, list(table.afterwards(facts)))


def whats(change: Change) -> list[str]:
    return [each.finding.what for each in change.new]


def with_findings(*findings: str) -> Facts:
    return replace(FINE, store=STORE._replace(findings=findings))


def test_a_page_that_cannot_be_read_is_news_where_a_counter_was_wrong_before() -> None:
    counter, page = "jo@example.org: the counter says 5 messages", "some of the entries cannot be read"
    before = night(FINE, {}).now
    first = night(with_findings(counter), before)
    assert whats(first) == [counter]
    assert whats(night(with_findings(counter), first.now)) == []
    second = night(with_findings(page, counter), first.now)
    assert whats(second) == [f"{page}; {counter}"]
    assert whats(night(with_findings(page), second.now)) == [page]
    mended = night(FINE, second.now)
    assert (whats(mended), list(mended.mended)) == ([], ["database database"])


def test_the_first_of_many_findings_are_told_and_the_others_counted_and_compared() -> None:
    before = night(FINE, {}).now
    many = [f"message {number} is in no maildrop" for number in range(10)]
    first = night(with_findings(*many), before)
    assert whats(first) == [f"{'; '.join(many[:5])}; and 5 more"]
    assert len(whats(night(with_findings(*many[:9], "message 11 is in no maildrop"), first.now))) == 1


def test_another_reason_why_the_database_does_not_open_is_news() -> None:
    first = night(replace(FINE, store=Store("the disk cannot be read")), {})
    assert whats(night(replace(FINE, store=Store("the disk cannot be read")), first.now)) == []
    second = night(replace(FINE, store=Store("the file is no database")), first.now)
    assert whats(second) == ["the file is no database"]


def test_a_worker_that_may_open_too_few_files_is_told_once_whatever_its_number() -> None:
    def served(*limits: int, first: int) -> Facts:
        workers = tuple(Process(first + n, ("pop3", "pop3s"), limit) for n, limit in enumerate(limits))
        return replace(FINE, service=Service(workers, (), None, {}))

    before = night(served(65_536, 65_536, first=7), {}).now
    first = night(served(FEW, 65_536, first=7), before)
    (told,) = first.new
    assert (told.check, told.finding.level) == ("limits", Level.WARNING)
    assert told.finding.what.startswith(f"process 7 may open {FEW} files")
    restarted = night(served(65_536, FEW, first=107), first.now)
    assert (whats(restarted), restarted.mended) == ([], {})
