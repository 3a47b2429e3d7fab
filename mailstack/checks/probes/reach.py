"""Connects: to the published addresses from here, to the world's mail servers, to a policy's place."""

from __future__ import annotations

import http
import http.client
import socket
import ssl
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from mailstack.checks.facts import Answer, Outbound, Policy, Reach
from mailstack.checks.probes.names import Asker

PATIENCE_SECONDS: Final = 5.0
FAMILIAR_DOMAINS: Final = ("gmail.com", "outlook.com")
"""Domains of which everybody knows that their mail servers are up."""

_MOST_OF_A_POLICY_OCTETS: Final = 65_536


def addresses(places: Sequence[tuple[str, int]]) -> tuple[Reach, ...]:
    """Connect to each address and port, at once."""
    with ThreadPoolExecutor(8) as threads:
        problems = list(threads.map(lambda place: connection_problem(*place), places))
    return tuple(Reach(*place, problem) for place, problem in zip(places, problems, strict=True))


def connection_problem(host: str, port: int) -> str:
    """Why there is no connection; empty if there was one."""
    try:
        socket.create_connection((host, port), timeout=PATIENCE_SECONDS).close()
    except TimeoutError:
        return f"no answer within {PATIENCE_SECONDS:.0f} seconds"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def outbound(asker: Asker, *, port: int = 25) -> tuple[Outbound, ...]:
    """Connect to a mail server of each familiar domain; none at all where the DNS names none."""
    answers = asker.ask((domain, "MX") for domain in FAMILIAR_DOMAINS)
    hosts = [host for answer in answers.values() if (host := _first_exchanger(answer))]
    placed = asker.ask((host, "A") for host in hosts)
    there = [(host, answer.records[0]) for (host, _), answer in placed.items() if answer.records]
    with ThreadPoolExecutor(4) as threads:
        return tuple(threads.map(lambda each: Outbound(each[0], connection_problem(each[1], port)), there))


def _first_exchanger(answer: Answer) -> str:
    ordered = sorted(answer.records, key=lambda each: int(each.split()[0]))
    return ordered[0].split()[1].removesuffix(".") if ordered else ""


def policies(
    asker: Asker, domains: Iterable[str], *, port: int = 443, trusting: ssl.SSLContext | None = None
) -> dict[str, Policy]:
    """The MTA-STS policy of each domain; at the standard's port, by the world's authorities."""
    context = trusting or ssl.create_default_context()
    return {domain: _policy(asker, f"mta-sts.{domain}", port, context) for domain in domains}


class _Web(http.client.HTTPSConnection):
    """Connects to the address that our resolver gave, and insists on the name (RFC 8461 §3.3)."""

    def __init__(self, host: str, address: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=PATIENCE_SECONDS)
        self._address = address
        self._trusting = context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), PATIENCE_SECONDS)
        self.sock = self._trusting.wrap_socket(plain, server_hostname=self.host)


def _policy(asker: Asker, host: str, port: int, context: ssl.SSLContext) -> Policy:
    answers = asker.ask(((host, "A"), (host, "AAAA")))
    addresses = [each for answer in answers.values() for each in answer.records]
    if not addresses:
        return Policy("", f"the DNS knows no address of {host}")
    connection = _Web(host, addresses[0], port, context)
    try:
        connection.request("GET", "/.well-known/mta-sts.txt")
        answer = connection.getresponse()
        text = answer.read(_MOST_OF_A_POLICY_OCTETS).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return Policy("", str(error) or type(error).__name__)
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:  # a redirect is none either
        return Policy("", f"the web server says {answer.status}")
    return Policy(text, "")
