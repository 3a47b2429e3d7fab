"""Judgements about what domains publish of themselves: does the world believe this server?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mailstack.checks import records
from mailstack.checks.facts import Answer, Facts, Policy
from mailstack.checks.finding import Finding, advice, fine, unknown, warning, wrong

_STS_RECORD: Final = re.compile(r"v=STSv1\s*;\s*id=[A-Za-z0-9]{1,32}\s*;?\s*")
_SPF_LOOKUPS: Final = re.compile(
    r"[+?~-]?(?:include:|a(?:[:/]|$)|mx(?:[:/]|$)|ptr(?:[:/]|$)|exists:)|redirect=", re.I
)
_MOST_SPF_LOOKUPS: Final = 10
_STS_MAX_AGE_SECONDS: Final = (86_400, 31_557_600)
_ASSOCIATION: Final = re.compile(r"([0-3]) ([01]) ([0-2]) ([0-9a-f]+)")


def spf(facts: Facts) -> Iterator[Finding]:
    """Whether each domain says who may send in its name, and says it well (RFC 7208)."""
    for domain in facts.domains:
        subject, answer = f"SPF of {domain}", facts.answer(domain, "TXT")
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


def dane(facts: Facts) -> Iterator[Finding]:
    """Whether a TLSA record, where there is one, fits the certificate (RFC 7672)."""
    answer = facts.answer(f"_25._tcp.{facts.host}", "TLSA")
    if answer.records:
        yield _of_associations(facts, answer)


def _of_associations(facts: Facts, answer: Answer) -> Finding:
    host = facts.host
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


def _associated(facts: Facts, usage: int, kind: tuple[int, int], data: str) -> bool:
    assert facts.certificate is not None
    if usage == 2:
        return any(each.get(kind) == data for each in facts.certificate.issuer_associations)
    return facts.certificate.association.get(kind) == data


def strict_transport(facts: Facts) -> Iterator[Finding]:
    """Whether MTA-STS, where a domain has it, leads here (RFC 8461)."""
    for domain in facts.domains:
        answer = facts.answer(f"_mta-sts.{domain}", "TXT")
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
    host, place = facts.host, f"https://mta-sts.{domain}/.well-known/mta-sts.txt"
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
            "Get a certificate (docs/tls.md), or say mode: testing until then",
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
