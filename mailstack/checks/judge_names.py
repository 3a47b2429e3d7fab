"""Judgements about the DNS: can the world find this server?"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from mailstack.checks import records
from mailstack.checks.facts import Answer, Facts
from mailstack.checks.finding import Finding, advice, fine, unknown, warning, wrong


def resolver(facts: Facts) -> Iterator[Finding]:
    """Whether the DNS can be asked at all."""
    answers = facts.names or {}
    failed = [each for each in answers.values() if each.problem]
    if failed and len(failed) == len(answers):
        yield wrong(
            "resolver",
            f"the DNS does not answer: {failed[0].problem}",
            "Without it nothing below about names can be said, and no mail can be checked or sent.",
            "See what /etc/resolv.conf names; a resolver of your own: apt install unbound",
        )
    elif failed:
        asked = next(f"{name} {kind}" for (name, kind), each in answers.items() if each.problem)
        yield unknown(
            "resolver",
            f"{len(failed)} of {len(answers)} questions had no answer; {asked}: {failed[0].problem}",
        )
    else:
        yield fine("resolver", f"answered all {len(answers)} questions")


def address(facts: Facts) -> Iterator[Finding]:
    """Whether the host's name leads to this machine (A, AAAA)."""
    host, published = facts.host, records.published_addresses(facts)
    subject = f"address of {host}"
    answers = [facts.answer(host, kind) for kind in ("A", "AAAA")]
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
    host, ours = facts.host, records.public_addresses(facts)
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
    for each in records.reversible_addresses(facts):
        yield _of_reverse(facts.host, each, facts.answer(records.reverse_name(each), "PTR"))


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
    for domain in facts.domains:
        yield _of_exchangers(facts.host, domain, facts.answer(domain, "MX"))


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


def service_record(facts: Facts) -> Iterator[Finding]:
    """Whether mail programs find POP3 by themselves (SRV, RFC 6186)."""
    if not facts.settings.pop3.tls_listen:
        return
    for domain in facts.domains:
        answer = facts.answer(f"_pop3s._tcp.{domain}", "SRV")
        yield _of_service(facts.host, records.pop3s_port(facts), domain, answer)


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
