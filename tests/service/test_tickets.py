"""Session tickets: which contexts resume whose sessions, and for how long."""

from __future__ import annotations

import asyncio
import copy
import ssl
from pathlib import Path

import pytest

from mailstack.service import tickets
from mailstack.service.contexts import TicketTurn, TlsContext
from mailstack.service.tickets import KEY_SECONDS, TicketKeys
from mailstack.service.tls import write_self_signed
from tests.service.test_alpn import shake_hands

Files = tuple[Path, Path]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = tmp_path / "certificate.pem", tmp_path / "key.pem"
    write_self_signed(*made, "localhost")
    return made


@pytest.fixture
def keys() -> TicketKeys:
    return TicketKeys()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that it shows."""
    shown = [KEY_SECONDS * 100.5]
    monkeypatch.setattr(tickets.time, "monotonic", lambda: shown[0])
    return shown


class Client:
    """A mail program that keeps the last session."""

    def __init__(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._context.minimum_version = self._context.maximum_version = version
        self._session: ssl.SSLSession | None = None

    def is_known_to(self, server: TlsContext) -> bool:
        """Come back; whether the session was resumed."""
        here, there = shake_hands(server(), self._context, self._session)
        here.write(b"+OK\r\n")
        there.read(5)  # and the ticket, in TLS 1.3
        self._session = there.session
        return bool(there.session_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("protocol", ["pop3", None])
def test_every_worker_resumes_a_session_of_any(files, keys, version, protocol) -> None:
    workers = [TlsContext(*files, protocol=protocol, tickets=copy.copy(keys)) for _ in range(3)]
    client = Client(version)
    assert [client.is_known_to(each) for each in workers * 2] == [False, True, True, True, True, True]


@pytest.mark.parametrize("protocol", ["pop3", None])
def test_a_reload_of_the_same_certificate_forgets_no_session(files, keys, protocol) -> None:
    server = TlsContext(*files, protocol=protocol, tickets=keys)
    client = Client()
    client.is_known_to(server)
    TlsContext.reload([server], *files)
    assert client.is_known_to(server)


def test_no_session_is_resumed_under_another_certificate(files, keys) -> None:
    # The client would take itself to be bound to the old one (RFC 5929 §4.1).
    server = TlsContext(*files, protocol="pop3", tickets=keys)
    client = Client()
    client.is_known_to(server)
    write_self_signed(*files, "localhost")
    TlsContext.reload([server], *files)
    assert not client.is_known_to(server)
    assert client.is_known_to(server)


def test_no_session_is_resumed_in_another_protocol_or_by_another_server(files, keys) -> None:
    client = Client()
    client.is_known_to(TlsContext(*files, protocol="pop3", tickets=keys))
    assert not client.is_known_to(TlsContext(*files, tickets=keys))
    assert not client.is_known_to(TlsContext(*files, tickets=TicketKeys()))
    assert not client.is_known_to(TlsContext(*files))


def test_keys_are_for_a_day(files, clock) -> None:  # RFC 9325 §3.4
    keys = TicketKeys()
    late = copy.copy(keys)
    server = TlsContext(*files, tickets=keys)
    client = Client()
    client.is_known_to(server)

    clock[0] += keys.turn() - 1
    server.turn_keys()
    assert client.is_known_to(server)

    clock[0] += 1
    server.turn_keys()
    assert not client.is_known_to(server)
    clock[0] += 3 * KEY_SECONDS
    server.turn_keys()
    assert not client.is_known_to(server)
    # A worker that is forked now agrees with one that has turned its keys every day.
    assert client.is_known_to(TlsContext(*files, tickets=late))
    assert keys.turn() == late.turn() == KEY_SECONDS


async def test_a_running_process_turns_them_by_itself(files, keys, monkeypatch) -> None:
    monkeypatch.setattr(tickets, "KEY_SECONDS", 0.05)
    keys = TicketKeys()
    server = TlsContext(*files, tickets=keys)
    turned = asyncio.Event()
    monkeypatch.setattr(server, "turn_keys", turned.set)
    turn = TicketTurn(keys, [server])
    for _ in range(3):
        await asyncio.wait_for(turned.wait(), timeout=10)
        turned.clear()
    turn.close()


def test_what_is_not_a_servers_context_is_left_alone(keys) -> None:
    # As in a Python whose objects look otherwise: another SSL_CTX, no address, one of nothing.
    for strange in (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), 1, -1, b"a" * 100):
        assert keys.give(strange, b"") is False
    assert keys.give(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), b"") is True
