"""The DNS records that a mail domain needs, and those that it lacks, in zone-file form (RFC 1035 §5)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final, NamedTuple

from mailstack.checks.facts import Facts
from mailstack.values import TcpAddress

TTL_SECONDS: Final = 3600
_POP3S_PORT: Final = 995


class Record(NamedTuple):
    """One record: names with the final dot, the value as a zone file has it."""

    name: str
    type: str
    value: str
    required: bool
    note: str

    def __str__(self) -> str:
        return f"{self.name}\t{TTL_SECONDS}\tIN\t{self.type}\t{self.value}"

    @property
    def is_known(self) -> bool:
        """Whether the value could be worked out; else it holds a word in angle brackets."""
        return not self.value.startswith("<")


def wanted(facts: Facts) -> list[Record]:
    """All records that should be there: the host's, then each domain's."""
    host = f"{facts.host}."
    records = [*_of_host(facts, host)]
    for domain in facts.domains:
        records += _of_domain(facts, domain, host)
    return records


def missing(facts: Facts, *, unheard: bool = False) -> list[Record]:
    """Those of `wanted` that no answer holds; what could not be asked counts as there, unless `unheard`."""
    return [record for record in wanted(facts) if not _is_there(facts, record, otherwise=not unheard)]


def public_addresses(facts: Facts) -> tuple[str, ...]:
    """The addresses under which the world reaches this box, as far as that can be known from inside it."""
    if facts.addresses:
        return facts.addresses
    seen = facts.machine.addresses if facts.machine else ()
    return tuple(each for each in seen if ip_address(each).is_global)


def address_type(address: str) -> str:
    """A or AAAA."""
    return "AAAA" if ":" in address else "A"


def reverse_name(address: str) -> str:
    """The name of an address in in-addr.arpa or ip6.arpa, without the final dot."""
    return ip_address(address).reverse_pointer


def published_addresses(facts: Facts) -> tuple[str, ...]:
    """What the DNS says the host's addresses are."""
    return tuple(address for kind in ("A", "AAAA") for address in facts.answer(facts.host, kind).records)


def reversible_addresses(facts: Facts) -> tuple[str, ...]:
    """The addresses whose names can be asked for: ours, else those of the DNS that the internet knows."""
    published = (each for each in published_addresses(facts) if ip_address(each).is_global)
    return public_addresses(facts) or tuple(published)


def pop3s_port(facts: Facts) -> int:
    """The port of POP3 over TLS; the standard one where systemd holds the sockets."""
    ports = (each.port for each in facts.settings.pop3.tls_listen if isinstance(each, TcpAddress))
    return next(ports, _POP3S_PORT)


def _of_host(facts: Facts, host: str) -> Iterator[Record]:
    addresses = public_addresses(facts)
    for address in addresses:
        yield Record(host, address_type(address), address, True, "where this server is")
    if not addresses and not published_addresses(facts):
        yield Record(host, "A", "<the public address of this machine>", True, "where this server is")
    for address in reversible_addresses(facts):
        note = "made by whoever gave you the address, not in your own zone"
        yield Record(f"{reverse_name(address)}.", "PTR", host, True, note)


def _of_domain(facts: Facts, domain: str, host: str) -> Iterator[Record]:
    yield Record(f"{domain}.", "MX", f"10 {host}", True, f"mail for {domain} comes to this server")
    yield Record(
        f"{domain}.",
        "TXT",
        '"v=spf1 mx ~all"',
        False,
        "who may send in this domain's name; add include:NAME of the provider that sends your mail",
    )
    if facts.settings.pop3.tls_listen:
        value = f"0 1 {pop3s_port(facts)} {host}"
        note = "mail programs find the server by themselves (RFC 6186)"
        yield Record(f"_pop3s._tcp.{domain}.", "SRV", value, False, note)


def _is_there(facts: Facts, record: Record, *, otherwise: bool) -> bool:
    answer = (facts.names or {}).get((record.name.removesuffix("."), record.type))
    if answer is None:
        return False
    if answer.problem:
        return otherwise
    if record.type == "TXT":
        return any(each.lower().startswith("v=spf1") for each in answer.records)
    if record.type == "MX":  # any preference will do
        return any(each.split()[-1] == record.value.split()[-1] for each in answer.records)
    if record.type == "SRV":  # any priority and weight
        return any(each.split()[2:] == record.value.split()[2:] for each in answer.records)
    return record.value in answer.records
