"""Judgements about the DNS: can the world find this server, and does the world believe it?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from mailstack.checks import records
from mailstack.checks.facts import Answer, Facts, Policy
from mailstack.checks.finding import Finding, advice, fine, unknown, warning, wrong

_NOBODY: Final = Answer(problem="nobody asked")
_STS_RECORD: Final = re.compile(r"v=STSv1\s*;\s*id=[A-Za-z0-9]{1,32}\s*;?\s*")
_SPF_LOOKUPS: Final = re.compile(
    r"[+?~-]?(?:include:|a(?:[:/]|$)|mx(?:[:/]|$)|ptr(?:[:/]|$)|exists:)|redirect=", re.I
)
_MOST_SPF_LOOKUPS: Final = 10
_STS_MAX_AGE_SECONDS: Final = (86_400, 31_557_600)


def _said(facts: Facts, name: str, kind: str) -> Answer:
    return (facts.names or {}).get((name, kind), _NOBODY)


def _host(facts: Facts) -> str:
    return facts.settings.hostname.lower()


def resolver(facts: Facts) -> Iterator[Finding]:
    """Whether the DNS can be asked at all."""
    if facts.names is None:
        return
    failed = [each for each in facts.names.values() if each.problem]
    if failed and len(failed) == len(facts.names):
        yield wrong(
            "resolver",
            f"the DNS does not answer: {failed[0].problem}",
            "Without it nothing below about names can be said, and no mail can be checked or sent.",
            "See what /etc/resolv.conf names; a resolver of your own: apt install unbound",
        )
    elif failed:
        asked = next(f"{name} {kind}" for (name, kind), each in facts.names.items() if each.problem)
        yield unknown(
            "resolver",
            f"{len(failed)} of {len(facts.names)} questions had no answer; {asked}: {failed[0].problem}",
        )
    else:
        yield fine("resolver", f"answered all {len(facts.names)} questions")


def address(facts: Facts) -> Iterator[Finding]:
    """Whether the host's name leads to this machine (A, AAAA)."""
    if facts.names is None:
        return
    host, published = _host(facts), records.published_addresses(facts)
    subject = f"address of {host}"
    answers = [_said(facts, host, kind) for kind in ("A", "AAAA")]
    if not published and any(each.problem for each in answers):
        yield unknown(subject, f"the DNS did not say where {host} is")
    elif not published:
        yield wrong(
            subject,
            f"the DNS knows no address of {host}",
            "Other servers and mail programs look this name up to find the server.",
            "; ".join(f"{host}. {records.TTL_SECONDS} IN {each}" for each in _right_addresses(facts)),
        )
    else:
        alias = next((each.alias for each in answers if each.alias), "")
        found = [*_is_alias(host, alias, published), *_misled(facts, subject, published)]
        yield from found or [fine(subject, ", ".join(published))]


def _right_addresses(facts: Facts) -> list[str]:
    ours = records.public_addresses(facts)
    return [f"{records.address_type(each)} {each}" for each in ours] or [
        "A, and the public address of this machine"
    ]


def _is_alias(host: str, alias: str, published: tuple[str, ...]) -> Iterator[Finding]:
    if alias:
        yield warning(
            f"alias {host}",
            f"{host} is a CNAME of {alias}",
            "An MX record must not point to an alias (RFC 2181 section 10.3); some servers do not follow it.",
            f"Put in its place: {host}. {records.TTL_SECONDS} IN"
            f" {records.address_type(published[0])} {published[0]}",
        )


def _misled(facts: Facts, subject: str, published: tuple[str, ...]) -> Iterator[Finding]:
    host, ours = _host(facts), records.public_addresses(facts)
    families = {records.address_type(each) for each in ours}
    private = [each for each in published if not _is_public(facts, each)]
    strange = [each for each in published if ours and each not in ours and each not in private]
    unheard = [each for each in strange if records.address_type(each) not in families]
    if private:
        yield wrong(
            subject,
            f"the DNS says {host} is at {', '.join(private)}, which is no address of the internet",
            "Nobody outside this network can reach it.",
            "Publish the public address; behind a router it is the router's, which has to pass the ports on",
        )
    elif unheard:
        yield warning(
            subject,
            f"the DNS says {host} is at {', '.join(unheard)}, and this machine has no such connection",
            "Who tries that address first has to wait, or gives up.",
            f"Give the machine that address, or remove the record of {', '.join(unheard)}",
        )
    elif strange:
        yield warning(
            subject,
            f"the DNS says {host} is at {', '.join(strange)}, and this machine speaks as {', '.join(ours)}",
            "If that is not a router that passes mail on to this machine, mail goes somewhere else.",
            "; ".join(f"{host}. {records.TTL_SECONDS} IN {each}" for each in _right_addresses(facts)),
        )


def _is_public(facts: Facts, address: str) -> bool:
    return address in facts.addresses or ip_address(address).is_global


def reverse(facts: Facts) -> Iterator[Finding]:
    """Whether the address leads back to the name (PTR), as many receivers insist on."""
    if facts.names is None:
        return
    for each in records.reversible_addresses(facts):
        yield _of_reverse(_host(facts), each, _said(facts, records.reverse_name(each), "PTR"))


def _of_reverse(host: str, address: str, answer: Answer) -> Finding:
    subject = f"reverse name of {address}"
    record = f"{records.reverse_name(address)}. {records.TTL_SECONDS} IN PTR {host}."
    why = "Many servers refuse or suspect mail from an address whose name does not lead back to it."
    ask = f"Ask whoever gave you the address (on the provider's web pages, often) for: {record}"
    if answer.problem:
        return unknown(subject, f"the DNS did not say: {answer.problem}")
    if not answer.records:
        return warning(subject, f"{address} has no name", why, ask)
    if f"{host}." not in answer.records:
        return warning(subject, f"{address} is called {', '.join(answer.records)} and not {host}.", why, ask)
    return fine(subject, host)


def exchanger(facts: Facts) -> Iterator[Finding]:
    """Whether mail for each domain comes here (MX)."""
    if facts.names is None:
        return
    for domain in facts.domains:
        yield _of_exchangers(_host(facts), domain, _said(facts, domain, "MX"))


def _of_exchangers(host: str, domain: str, answer: Answer) -> Finding:
    subject, record = f"MX of {domain}", f"{domain}. {records.TTL_SECONDS} IN MX 10 {host}."
    found = sorted((int(each.split()[0]), each.split()[1].removesuffix(".")) for each in answer.records)
    hosts = [name for _, name in found]
    if answer.problem:
        return unknown(subject, f"the DNS did not say: {answer.problem}")
    if not hosts:
        return wrong(subject, f"{domain} has no MX record", _LOST, record)
    if hosts == [""]:
        said = f"{domain} says that it takes no mail at all (RFC 7505)"
        return wrong(subject, said, _LOST, f"Put in its place: {record}")
    if host not in hosts:
        said = f"mail for {domain} goes to {', '.join(hosts)}, and not to {host}"
        return wrong(subject, said, _LOST, f"Put in its place: {record}")
    others = [name for name in hosts if name != host]
    if not others:
        return fine(subject, host)
    preferred = [name for preference, name in found if preference == found[0][0]]
    tell = advice if preferred == [host] else warning
    return tell(
        subject,
        f"mail for {domain} may go to {', '.join(others)} instead of {host}",
        "What that server takes is not in the mailboxes here, unless it passes mail on.",
        f"Remove the other MX records, unless they are your backup: {', '.join(others)}",
    )


_LOST: Final = (
    "Other servers ask for this record to learn where to send mail; without it mail does not come here."
)


def spf(facts: Facts) -> Iterator[Finding]:
    """Whether each domain says who may send in its name, and says it well (RFC 7208)."""
    if facts.names is None:
        return
    for domain in facts.domains:
        subject, answer = f"SPF of {domain}", _said(facts, domain, "TXT")
        found = [each for each in answer.records if re.match(r"v=spf1( |$)", each, re.I)]
        if answer.problem:
            yield unknown(subject, f"the DNS did not say: {answer.problem}")
        elif not found:
            yield advice(
                subject,
                f"{domain} does not say who may send mail in its name",
                "Strangers can, and receivers suspect what you send yourself.",
                f'{domain}. {records.TTL_SECONDS} IN TXT "v=spf1 mx ~all"'
                "  (and include:NAME of the provider that sends your mail)",
            )
        elif len(found) > 1:
            yield wrong(
                subject,
                f"{domain} has {len(found)} SPF records",
                "Receivers take that for an error and believe none of them (RFC 7208 section 4.5).",
                "Make one of them: " + " and ".join(found),
            )
        else:
            yield _of_policy(subject, found[0])


def _of_policy(subject: str, policy: str) -> Finding:
    terms = policy.split()[1:]
    lookups = sum(bool(_SPF_LOOKUPS.match(term)) for term in terms)
    if {"+all", "all"} & {term.lower() for term in terms}:
        return warning(
            subject,
            f"it lets everybody send in this name: {policy}",
            "That is worse than no record.",
            "Say ~all",
        )
    if lookups > _MOST_SPF_LOOKUPS:
        return wrong(
            subject,
            f"it needs {lookups} look-ups, and more than {_MOST_SPF_LOOKUPS} are an error: {policy}",
            "Receivers believe none of it (RFC 7208 section 4.6.4).",
            "Name addresses (ip4:, ip6:) instead of names",
        )
    if not any(term.lower().endswith("all") or term.lower().startswith("redirect=") for term in terms):
        return advice(
            subject,
            f"it does not say what to do with all others: {policy}",
            "Receivers take everybody's mail for neither right nor wrong then.",
            f"{policy} ~all",
        )
    return fine(subject, policy)


def service_record(facts: Facts) -> Iterator[Finding]:
    """Whether mail programs find POP3 by themselves (SRV, RFC 6186)."""
    if facts.names is None or not facts.settings.pop3.tls_listen:
        return
    for domain in facts.domains:
        answer = _said(facts, f"_pop3s._tcp.{domain}", "SRV")
        yield _of_service(_host(facts), records.pop3s_port(facts), domain, answer)


def _of_service(host: str, port: int, domain: str, answer: Answer) -> Finding:
    subject = f"SRV of {domain}"
    record = f"_pop3s._tcp.{domain}. {records.TTL_SECONDS} IN SRV 0 1 {port} {host}."
    targets = [tuple(each.split()[2:]) for each in answer.records]
    why = "Mail programs ask for it to set themselves up; without it people type the server's name and port."
    if answer.problem:
        return unknown(subject, f"the DNS did not say: {answer.problem}")
    if not targets:
        return advice(subject, f"there is no record _pop3s._tcp.{domain}", why, record)
    if (str(port), f"{host}.") in targets:
        return fine(subject, f"{host} port {port}")
    there = ", ".join(
        "nowhere" if name == "." else f"{name.removesuffix('.')} port {number}" for number, name in targets
    )
    said = f"it leads mail programs to {there}, and not to {host} port {port}"
    return warning(subject, said, why, f"Put in its place: {record}")


def dane(facts: Facts) -> Iterator[Finding]:
    """Whether a TLSA record, where there is one, fits the certificate (RFC 7672)."""
    answer = _said(facts, f"_25._tcp.{_host(facts)}", "TLSA")
    if facts.names is not None and answer.records:
        yield _of_associations(facts, answer)


def _of_associations(facts: Facts, answer: Answer) -> Finding:
    host = _host(facts)
    subject, why = f"TLSA of {host}", "Servers that check it (RFC 7672) send this server no mail any more."
    if facts.certificate is None:
        said = "there is a TLSA record, and no certificate that could fit it"
        return wrong(subject, said, why, f"Remove _25._tcp.{host} TLSA, or set a certificate")
    if not answer.authentic:
        return warning(
            subject,
            "there is a TLSA record, and no signature (DNSSEC) that this resolver could check",
            "Without DNSSEC nobody believes it, so it protects nothing.",
            "Sign the zone, or remove the record; a resolver that checks signatures: apt install unbound",
        )
    parsed = [match for each in answer.records if (match := _ASSOCIATION.fullmatch(each.lower()))]
    fits = any(_associated(facts, int(m[1]), (int(m[2]), int(m[3])), m[4]) for m in parsed if m[1] in "23")
    if not fits:
        right = facts.certificate.association[1, 1]
        record = f"_25._tcp.{host}. {records.TTL_SECONDS} IN TLSA 3 1 1 {right}"
        return wrong(subject, f"no TLSA record fits the certificate {facts.certificate.path}", why, record)
    return fine(subject, "fits the certificate")


_ASSOCIATION: Final = re.compile(r"([0-3]) ([01]) ([0-2]) ([0-9a-f]+)")


def _associated(facts: Facts, usage: int, kind: tuple[int, int], data: str) -> bool:
    assert facts.certificate is not None
    if usage == 2:
        return any(each.get(kind) == data for each in facts.certificate.issuer_associations)
    return facts.certificate.association.get(kind) == data


def strict_transport(facts: Facts) -> Iterator[Finding]:
    """Whether MTA-STS, where a domain has it, leads here (RFC 8461)."""
    if facts.names is None:
        return
    for domain in facts.domains:
        answer = _said(facts, f"_mta-sts.{domain}", "TXT")
        found = [each for each in answer.records if each.startswith("v=STSv1")]
        if not found:
            continue
        subject = f"MTA-STS of {domain}"
        if len(found) > 1 or not _STS_RECORD.fullmatch(found[0]):
            yield warning(
                subject,
                f"the record is none that can be read: {' and '.join(found)}",
                "Receivers of it go on as if there was no policy (RFC 8461 section 3.1).",
                f'_mta-sts.{domain}. {records.TTL_SECONDS} IN TXT "v=STSv1; id={facts.now:%Y%m%d}"',
            )
        else:
            yield _of_sts(facts, subject, domain, facts.policies.get(domain, Policy("", "nobody asked")))


def _of_sts(facts: Facts, subject: str, domain: str, policy: Policy) -> Finding:
    host, place = _host(facts), f"https://mta-sts.{domain}/.well-known/mta-sts.txt"
    why = "Servers that keep to a policy send nothing where it cannot be kept (RFC 8461 section 5)."
    if policy.problem:
        return warning(
            subject,
            f"there is a record, and no policy at {place}: {policy.problem}",
            why,
            f"Publish it, or remove _mta-sts.{domain}",
        )
    said: dict[str, list[str]] = {}
    for line in policy.text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            said.setdefault(key.strip().lower(), []).append(value.strip())
    mode = (said.get("mode") or [""])[0]
    age = (said.get("max_age") or [""])[0]
    if said.get("version") != ["STSv1"] or mode not in ("enforce", "testing", "none") or not age.isdecimal():
        return warning(
            subject,
            f"the policy at {place} is none that can be read",
            why,
            f"It needs version: STSv1, mode: enforce, mx: {host} and max_age: 604800",
        )
    if mode != "none" and not any(_matches(host, pattern) for pattern in said.get("mx", [])):
        tell = wrong if mode == "enforce" else warning
        return tell(subject, f"the policy at {place} does not name {host}", why, f"Add to it: mx: {host}")
    untrusted = facts.certificate is None or bool(facts.certificate.chain_problem)
    if mode == "enforce" and untrusted:
        return wrong(
            subject,
            f"the policy at {place} demands a certificate that the world trusts, and this server has none",
            why,
            "Get a certificate (docs/install.md), or say mode: testing until then",
        )
    if not _STS_MAX_AGE_SECONDS[0] <= int(age) <= _STS_MAX_AGE_SECONDS[1]:
        return advice(
            subject,
            f"the policy says max_age: {age}",
            "It is too short to protect, or longer than allowed.",
            "max_age: 604800",
        )
    return fine(subject, f"mode {mode}")


def _matches(host: str, pattern: str) -> bool:
    pattern = pattern.lower().removesuffix(".")
    if pattern.startswith("*."):
        return host.partition(".")[2] == pattern[2:]
    return host == pattern
