"""Connections that are tried: to published addresses, and to the web server of a policy, all on loopback."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

from mailstack.checks import judge_reach
from mailstack.checks.facts import Facts, Machine, Outbound, Reach
from mailstack.checks.finding import Level
from mailstack.checks.probes import names, reach
from mailstack.service.tls import write_self_signed
from mailstack.settings import Settings
from tests.support import resolver

POLICY: Final = b"version: STSv1\nmode: testing\nmx: mail.example.org\nmax_age: 86400\n"
HOST: Final = "mta-sts.example.org"


class _Web(BaseHTTPRequestHandler):
    """Has a policy, and a redirect to it."""

    def do_GET(self) -> None:
        if self.headers["Host"].startswith(HOST) and self.path == "/.well-known/mta-sts.txt":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(POLICY)
        else:
            self.send_response(301)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def web(folder: Path, host: str) -> Iterator[tuple[int, ssl.SSLContext]]:
    """A web server with a certificate for this host; its port, and what trusts it."""
    write_self_signed(folder / "c.pem", folder / "k.pem", host)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "c.pem", folder / "k.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    server.socket = serving.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    trusting = ssl.create_default_context(cafile=str(folder / "c.pem"))
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        yield server.server_address[1], trusting
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.skipif(resolver.available() is not None, reason=str(resolver.available()))
def test_a_policy_is_fetched_from_where_the_resolver_says_and_only_under_its_name(tmp_path: Path) -> None:
    world = [f"{HOST}. IN A 127.0.0.1", "mta-sts.example.net. IN A 127.0.0.1"]
    with resolver.running(tmp_path / "resolver", world) as place:
        asker = names.Asker(place)
        with web(tmp_path, HOST) as (port, trusting):
            found = reach.policies(
                asker, ["example.org", "example.net", "example.com"], port=port, trusting=trusting
            )
            distrusted = reach.policies(asker, ["example.org"], port=port)
        with web(tmp_path, "mta-sts.example.net") as (port, trusting):
            redirected = reach.policies(asker, ["example.net"], port=port, trusting=trusting)
        gone = reach.policies(asker, ["example.org"], port=port)
    assert found["example.org"] == (POLICY.decode(), "")
    assert "Hostname mismatch" in found["example.net"].problem
    assert found["example.com"].problem == "the DNS knows no address of mta-sts.example.com"
    assert "certificate verify failed" in distrusted["example.org"].problem
    assert redirected["example.net"].problem == "the web server says 301"
    assert "refused" in gone["example.org"].problem


def test_published_addresses_are_tried_from_here() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        tried = reach.addresses([("127.0.0.1", port), ("127.0.0.9", port)])
    assert tried[0] == ("127.0.0.1", port, "")
    assert "refused" in tried[1].problem


def test_an_address_of_ours_that_is_shut_is_a_fault_and_one_of_a_router_a_question() -> None:
    box = Machine("mail.example.org", None, None, None, None, ("9.8.7.6",))
    tried = (Reach("9.8.7.6", 25, ""), Reach("9.8.7.6", 995, "refused"), Reach("2a00::1", 25, "refused"))
    facts = Facts(datetime.now(UTC), Settings(hostname="mail.example.org"), machine=box, reach=tried)
    found = list(judge_reach.inbound(facts))
    assert [each.level for each in found] == [Level.FINE, Level.WARNING, Level.UNKNOWN]
    assert "ufw allow 995/tcp" in found[1].mend
    assert found[2].subject == "[2a00::1] port 25 from here"


@pytest.mark.parametrize(
    ("tried", "level"),
    [
        ((Outbound("a.example", ""), Outbound("b.example", "refused")), Level.FINE),
        ((Outbound("a.example", "no answer"), Outbound("b.example", "no answer")), Level.WARNING),
        ((), Level.UNKNOWN),
    ],
)
def test_one_mail_server_that_answers_is_enough(tried: tuple[Outbound, ...], level: Level) -> None:
    facts = Facts(datetime.now(UTC), Settings(hostname="mail.example.org"), outbound=tried)
    assert [each.level for each in judge_reach.outbound(facts)] == [level]


def test_a_resolver_that_is_silent_costs_one_wait_however_many_names_there_are() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        asker = names.Asker(silent.getsockname())
        began = time.monotonic()
        answers = asker.ask((f"domain{number}.example", "MX") for number in range(50))
        assert time.monotonic() - began < names.PATIENCE_SECONDS * 2
    assert {each.problem for each in answers.values()} == {"no answer within 6 seconds"}
