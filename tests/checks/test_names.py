"""The DNS seen through a real resolver on loopback: records that are right, wrong and missing."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import dns.dnssec
import dns.name
import dns.rdatatype
import dns.zone
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mailstack.checks import judge_names, judge_policies, records, table
from mailstack.checks.facts import Facts, Policy
from mailstack.checks.finding import Level
from mailstack.checks.probes import certificate, names, reach
from mailstack.service.tls import write_self_signed
from mailstack.settings import Pop3, Settings
from mailstack.values import TcpAddress
from tests.support import resolver

pytestmark = pytest.mark.skipif(resolver.available() is not None, reason=str(resolver.available()))

HOST: Final = "mail.example.org"
ADDRESS: Final = "9.8.7.6"
SIX: Final = "2a00:1:2::3"
SETTINGS: Final = Settings(hostname=HOST, pop3=Pop3(tls_listen=(TcpAddress("::", 995),)))

RIGHT: Final = (
    f"{HOST}. 60 IN A {ADDRESS}",
    f"{HOST}. 60 IN AAAA {SIX}",
    f"6.7.8.9.in-addr.arpa. 60 IN PTR {HOST}.",
    f"3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.1.0.0.0.0.0.a.2.ip6.arpa. 60 IN PTR {HOST}.",
    f"example.org. 60 IN MX 10 {HOST}.",
    'example.org. 60 IN TXT "v=spf1 mx ~all"',
    'example.org. 60 IN TXT "some other text"',
    f"_pop3s._tcp.example.org. 60 IN SRV 0 1 995 {HOST}.",
)


def seen(
    folder: Path,
    lines: Sequence[str],
    *,
    settings: Settings = SETTINGS,
    addresses: Sequence[str] = (ADDRESS, SIX),
) -> Facts:
    """What the probe brings back from a world of these records."""
    facts = Facts(datetime.now(UTC), settings, domains=("example.org",), addresses=tuple(addresses))
    with resolver.running(folder, lines) as server:
        return replace(
            facts, names=names.look(names.Asker(server), settings.hostname, facts.domains, addresses)
        )


def without(*words: str) -> list[str]:
    """The right records but for those that hold one of the words."""
    return [line for line in RIGHT if not any(word in line for word in words)]


def said(facts: Facts) -> dict[str, tuple[Level, str, str]]:
    """What the checks of names say: level, sentence and remedy by check, the worst of each."""
    by_name = {check.name: check.judge for check in table.CHECKS}
    wanted = ("resolver", "address", "reverse", "mx", "spf", "srv", "dane", "mta-sts")
    found = {name: max(by_name[name](facts), default=None, key=lambda each: each.level) for name in wanted}
    return {name: (each.level, each.what, each.mend) for name, each in found.items() if each is not None}


def test_right_records_are_fine_and_nothing_is_missing(tmp_path: Path) -> None:
    facts = seen(tmp_path, RIGHT)
    assert {name: level for name, (level, _, _) in said(facts).items()} == dict.fromkeys(
        ("resolver", "address", "reverse", "mx", "spf", "srv"), Level.FINE
    )
    assert records.missing(facts) == []


def test_an_empty_world_lacks_everything_and_each_record_is_told(tmp_path: Path) -> None:
    facts = seen(tmp_path, ())
    told = said(facts)
    assert told["address"][0] is Level.WRONG
    assert f"{HOST}. 3600 IN A {ADDRESS}" in told["address"][2]
    assert told["mx"] == (Level.WRONG, "example.org has no MX record", f"example.org. 3600 IN MX 10 {HOST}.")
    assert told["reverse"][0] is Level.WARNING
    assert told["spf"][0] is Level.ADVICE
    assert told["srv"][0] is Level.ADVICE
    assert "dane" not in told
    assert "mta-sts" not in told
    lines = [str(each) for each in records.missing(facts)]
    assert [line.split("\t")[3] for line in lines] == [
        "A",
        "PTR",
        "AAAA",
        "PTR",
        "MX",
        "TXT",
        "SRV",
    ] or sorted(line.split("\t")[3] for line in lines) == sorted(
        ["A", "AAAA", "PTR", "PTR", "MX", "TXT", "SRV"]
    )
    # What is printed can be loaded, and then nothing is missing any more.
    assert records.missing(seen(tmp_path / "again", lines)) == []


MANY: Final = " ".join(f"include:n{number}.net" for number in range(11))
WRONG: Final = {
    "mx elsewhere": (
        (*without(" MX "), "example.org. IN MX 10 mx.example.net."),
        "mx",
        Level.WRONG,
        "example.net",
    ),
    "no mail at all": ((*without(" MX "), "example.org. IN MX 0 ."), "mx", Level.WRONG, "no mail at all"),
    "another mx first": (
        (*RIGHT, "example.org. IN MX 5 mx.example.net."),
        "mx",
        Level.WARNING,
        "example.net",
    ),
    "another mx beside": (
        (*RIGHT, "example.org. IN MX 10 mx.example.net."),
        "mx",
        Level.WARNING,
        "example.net",
    ),
    "a backup mx": ((*RIGHT, "example.org. IN MX 20 mx.example.net."), "mx", Level.ADVICE, "mx.example.net"),
    "an address too many": ((*RIGHT, f"{HOST}. IN A 9.9.9.9"), "address", Level.WARNING, "9.9.9.9"),
    "a private address": ((*without(ADDRESS), f"{HOST}. IN A 192.168.1.5"), "address", Level.WRONG, ".1.5"),
    "the name of another": (
        (*without("in-addr"), "6.7.8.9.in-addr.arpa. IN PTR customer-6.example.net."),
        "reverse",
        Level.WARNING,
        "customer-6.example.net",
    ),
    "no reverse name": (without("in-addr"), "reverse", Level.WARNING, "has no name"),
    "two policies": ((*RIGHT, 'example.org. IN TXT "v=spf1 -all"'), "spf", Level.WRONG, "2 SPF records"),
    "a policy for all": (
        (*without("spf1"), 'example.org. IN TXT "v=spf1 mx +all"'),
        "spf",
        Level.WARNING,
        "everybody",
    ),
    "a policy without end": (
        (*without("spf1"), 'example.org. IN TXT "v=spf1 mx"'),
        "spf",
        Level.ADVICE,
        "others",
    ),
    "a policy of many look-ups": (
        (*without("spf1"), f'example.org. IN TXT "v=spf1 {MANY} -all"'),
        "spf",
        Level.WRONG,
        "11 look-ups",
    ),
    "another port": (
        (*without("SRV"), f"_pop3s._tcp.example.org. IN SRV 0 1 1995 {HOST}."),
        "srv",
        Level.WARNING,
        "1995",
    ),
    "no such service": (
        (*without("SRV"), "_pop3s._tcp.example.org. IN SRV 0 0 0 ."),
        "srv",
        Level.WARNING,
        "nowhere",
    ),
    "unsigned tlsa": (
        (*RIGHT, f"_25._tcp.{HOST}. IN TLSA 3 1 1 {'ab' * 32}"),
        "dane",
        Level.WRONG,
        "no certificate",
    ),
    "a broken mta-sts": (
        (*RIGHT, '_mta-sts.example.org. IN TXT "v=STSv1"'),
        "mta-sts",
        Level.WARNING,
        "read",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_records_are_told_with_what_mends_them(tmp_path: Path, case: str) -> None:
    lines, check, level, part = WRONG[case]
    found, what, mend = said(seen(tmp_path, lines))[check]
    assert (found, part in what) == (level, True), what
    assert mend


def test_a_host_that_is_an_alias_is_told(tmp_path: Path) -> None:
    zone = f"""
        $ORIGIN example.org.
        @ 60 IN SOA ns hostmaster 1 3600 600 86400 60
        @ 60 IN NS ns
        ns 60 IN A 127.0.0.1
        mail 60 IN CNAME box
        box 60 IN A {ADDRESS}
    """
    facts = Facts(datetime.now(UTC), SETTINGS, domains=("example.org",), addresses=(ADDRESS,))
    zone = "\n".join(map(str.strip, zone.splitlines()))
    with resolver.with_zone(tmp_path, "example.org", zone) as server:
        facts = replace(facts, names=names.look(names.Asker(server), HOST, facts.domains, ()))
    (alias,) = judge_names.address(facts)
    assert (alias.level, alias.subject) == (Level.WARNING, f"alias {HOST}")
    assert f"{HOST}. 3600 IN A {ADDRESS}" in alias.mend


def test_a_resolver_that_is_down_is_told_once_and_nothing_else_is_called_wrong(tmp_path: Path) -> None:
    dead = names.Asker(("127.0.0.1", resolver.free_port()))
    facts = Facts(datetime.now(UTC), SETTINGS, domains=("example.org",), addresses=(ADDRESS,))
    told = said(replace(facts, names=names.look(dead, HOST, facts.domains, facts.addresses)))
    assert told["resolver"][0] is Level.WRONG
    assert {level for name, (level, _, _) in told.items() if name != "resolver"} == {Level.UNKNOWN}
    assert "The DNS" not in told["mx"][1]


def certified(folder: Path, facts: Facts) -> Facts:
    """The facts with a self-signed certificate."""
    write_self_signed(folder / "c.pem", folder / "k.pem", HOST)
    found, problem = certificate.look(folder / "c.pem", folder / "k.pem", HOST, facts.now)
    assert not problem
    return replace(facts, certificate=found)


@pytest.mark.parametrize("fits", [True, False])
def test_a_signed_tlsa_record_is_compared_with_the_certificate(tmp_path: Path, fits: bool) -> None:
    facts = certified(tmp_path, Facts(datetime.now(UTC), SETTINGS, domains=("example.org",)))
    assert facts.certificate is not None
    digest = facts.certificate.association[1, 1] if fits else hashlib.sha256(b"another key").hexdigest()
    zone, anchor = signed(
        f"""
        $ORIGIN example.org.
        $TTL 60
        @ IN SOA ns hostmaster 1 3600 600 86400 60
        @ IN NS ns
        ns IN A 127.0.0.1
        @ IN MX 10 mail
        mail IN A {ADDRESS}
        _25._tcp.mail IN TLSA 3 1 1 {digest}
        """
    )
    with resolver.with_zone(tmp_path, "example.org", zone, anchor=anchor) as server:
        facts = replace(facts, names=names.look(names.Asker(server), HOST, facts.domains, ()))
    assert facts.names is not None
    assert facts.names["example.org", "MX"].authentic
    (found,) = judge_policies.dane(facts)
    assert found.level is (Level.FINE if fits else Level.WRONG)
    assert fits or f"TLSA 3 1 1 {facts.certificate.association[1, 1]}" in found.mend


def test_a_tlsa_record_that_nobody_has_signed_protects_nothing(tmp_path: Path) -> None:
    facts = certified(tmp_path, seen(tmp_path, (*RIGHT, f"_25._tcp.{HOST}. IN TLSA 3 1 1 {'ab' * 32}")))
    (found,) = judge_policies.dane(facts)
    assert (found.level, "DNSSEC" in found.what) == (Level.WARNING, True)


def signed(text: str) -> tuple[str, str]:
    """A zone with the signatures of a new key, and the record that a resolver has to trust."""
    origin = dns.name.from_text("example.org")
    zone = dns.zone.from_text("\n".join(line.strip() for line in text.splitlines()), origin, relativize=False)
    key = ec.generate_private_key(ec.SECP256R1())
    public = dns.dnssec.make_dnskey(key.public_key(), dns.dnssec.Algorithm.ECDSAP256SHA256, flags=257)
    now = datetime.now(UTC)
    dns.dnssec.sign_zone(
        zone,
        keys=[(key, public)],
        inception=now - timedelta(hours=1),
        expiration=now + timedelta(days=1),
        add_dnskey=True,
    )
    return zone.to_text(relativize=False), f"example.org. IN DNSKEY {public.to_text()}"


POLICY: Final = f"version: STSv1\r\nmode: enforce\r\nmx: {HOST}\r\nmax_age: 604800\r\n"
POLICIES: Final = {
    "right": (POLICY, Level.FINE),
    "of all names below": (POLICY.replace(HOST, "*.example.org"), Level.FINE),
    "of another host": (POLICY.replace(HOST, "mx.example.net"), Level.WRONG),
    "another host, only tried": (
        POLICY.replace(HOST, "mx.example.net").replace("enforce", "testing"),
        Level.WARNING,
    ),
    "of another version": (POLICY.replace("STSv1", "STSv2"), Level.WARNING),
    "for a minute": (POLICY.replace("604800", "60"), Level.ADVICE),
    "nothing": ("", Level.WARNING),
}


@pytest.mark.parametrize("case", POLICIES)
def test_a_policy_of_strict_transport_has_to_lead_here(tmp_path: Path, case: str) -> None:
    text, level = POLICIES[case]
    facts = certified(tmp_path, seen(tmp_path, (*RIGHT, '_mta-sts.example.org. IN TXT "v=STSv1; id=1"')))
    assert facts.certificate is not None
    standing = facts.certificate.standing._replace(self_signed=False)
    trusted = facts.certificate._replace(standing=standing, chain_problem="")
    facts = replace(facts, certificate=trusted, policies={"example.org": Policy(text, "")})
    assert [each.level for each in judge_policies.strict_transport(facts)] == [level]


def test_a_policy_that_demands_trust_is_wrong_with_a_self_signed_certificate(tmp_path: Path) -> None:
    facts = certified(tmp_path, seen(tmp_path, (*RIGHT, '_mta-sts.example.org. IN TXT "v=STSv1; id=1"')))
    facts = replace(facts, policies={"example.org": Policy(POLICY, "")})
    (found,) = judge_policies.strict_transport(facts)
    assert (found.level, "world trusts" in found.what) == (Level.WRONG, True)


def test_outbound_mail_is_tried_at_the_servers_that_the_dns_names(tmp_path: Path) -> None:
    lines = (
        "gmail.com. IN MX 5 first.gmail.com.",
        "gmail.com. IN MX 9 second.gmail.com.",
        "first.gmail.com. IN A 127.0.0.1",
        "second.gmail.com. IN A 127.0.0.9",
    )
    with socket.create_server(("127.0.0.1", 0)) as listening, resolver.running(tmp_path, lines) as server:
        (tried,) = reach.outbound(names.Asker(server), port=listening.getsockname()[1])
        assert tried == ("first.gmail.com", "")
        port = listening.getsockname()[1]
    with resolver.running(tmp_path / "again", lines) as server:
        (tried,) = reach.outbound(names.Asker(server), port=port)
    assert "refused" in tried.problem
