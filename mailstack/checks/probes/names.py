"""Asks the DNS, all questions at once, and once more what the first answers lead to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Final

import dns.exception
import dns.flags
import dns.name
import dns.resolver
from dns.rdata import Rdata
from dns.rdtypes.ANY.TXT import TXT

from mailstack.checks.facts import Answer, Names

Question = tuple[str, str]

PATIENCE_SECONDS: Final = 6.0
_SILENCE: Final = f"no answer within {PATIENCE_SECONDS:.0f} seconds"
_AT_ONCE: Final = 8
_EDNS_OCTETS: Final = 1232  # what passes everywhere in one piece


def server(text: str) -> tuple[str, int]:
    """`9.9.9.9`, `127.0.0.1:5353` or `[::1]:5353` as address and port; raises ValueError."""
    host, port = text, "53"
    if found := re.fullmatch(r"\[(.+)\](?::(\d{1,5}))?|([\d.]+):(\d{1,5})", text):
        host, port = found[1] or found[3], found[2] or found[4] or "53"
    return str(ip_address(host)), int(port)


class Asker:
    """A resolver: the system's, or one that somebody names."""

    def __init__(self, server: tuple[str, int] | None = None) -> None:
        self._problem = ""
        self._lives = False
        try:
            self._resolver = dns.resolver.Resolver(configure=server is None)
        except (OSError, dns.exception.DNSException) as error:
            self._resolver = dns.resolver.Resolver(configure=False)
            self._problem = f"no resolver is set up: {error}"
        if server is not None:
            self._resolver.nameservers = [server[0]]
            self._resolver.port = server[1]
        self._resolver.use_edns(0, dns.flags.DO, _EDNS_OCTETS)
        self._resolver.flags = dns.flags.RD | dns.flags.AD

    def ask(self, questions: Iterable[Question]) -> dict[Question, Answer]:
        """The answer to each question."""
        asked = list(dict.fromkeys(questions))
        self._see_whether_it_lives()
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return dict(zip(asked, threads.map(self._one, asked), strict=True))

    def _see_whether_it_lives(self) -> None:
        """One question first, so that a resolver that is down costs one wait, not one a few names."""
        if not self._lives and not self._problem:
            answer = self._one((".", "NS"))
            self._lives = answer.problem != _SILENCE
            self._problem = "" if self._lives else answer.problem

    def _one(self, question: Question) -> Answer:
        name, kind = question
        if self._problem:
            return Answer(problem=self._problem)
        try:
            asked = dns.name.from_text(name)
            found = self._resolver.resolve(asked, kind, raise_on_no_answer=False, lifetime=PATIENCE_SECONDS)
        except dns.resolver.NXDOMAIN:
            return Answer()
        except dns.exception.Timeout:
            return Answer(problem=_SILENCE)
        except dns.resolver.NoNameservers as error:
            return Answer(problem=_refusal(error))
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return Answer(problem=str(error) or type(error).__name__)
        records = tuple(_text(each) for each in found.rrset or ())
        alias = "" if found.canonical_name == asked else found.canonical_name.to_text(omit_final_dot=True)
        authentic = bool(found.response.flags & dns.flags.AD)
        return Answer(records, authentic=authentic, alias=alias)


def look(asker: Asker, host: str, domains: Sequence[str], addresses: Sequence[str]) -> Names:
    """All answers that the judgements want: of the host, of each domain, and of the addresses' names."""
    host = host.lower()
    found = asker.ask(_first(host, domains))
    published = [each for kind in ("A", "AAAA") for each in found[host, kind].records]
    public = [each for each in published if ip_address(each).is_global]
    reverse = [(ip_address(each).reverse_pointer, "PTR") for each in (*addresses, *public)]
    return found | asker.ask(reverse)


def _first(host: str, domains: Sequence[str]) -> Iterator[Question]:
    yield from ((host, "A"), (host, "AAAA"), (f"_25._tcp.{host}", "TLSA"))
    for domain in domains:
        yield from ((domain, "MX"), (domain, "TXT"), (f"_pop3s._tcp.{domain}", "SRV"))
        yield f"_mta-sts.{domain}", "TXT"


def _text(record: Rdata) -> str:
    if isinstance(record, TXT):
        return b"".join(record.strings).decode(errors="replace")
    return record.to_text().lower()


def _refusal(error: dns.resolver.NoNameservers) -> str:
    told = error.kwargs.get("errors") or ()
    said = {getattr(each[3], "strerror", None) or str(each[3]) for each in told}
    return f"the resolver says {', '.join(sorted(said))}" if said else "no resolver answers"
