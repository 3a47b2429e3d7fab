"""HTTP on a port that the whole world can reach: who is slow keeps nobody waiting, and not for long."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from mailstack.acme.challenges import answering
from mailstack.service import http

PATH = "/.well-known/acme-challenge/token"


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """Where the challenge of an order is answered."""
    with (
        socket.create_server(("127.0.0.1", 0)) as bound,
        answering([bound], {PATH: b"token.thumbprint"}),
    ):
        yield bound.getsockname()


def fetched(address: tuple[str, int]) -> bytes:
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}{PATH}", timeout=3) as answer:
        octets: bytes = answer.read()
        return octets


def has_ended(connection: socket.socket) -> bool:
    """Whether it ends within its timeout."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def drip(connection: socket.socket) -> None:
    """One octet after the other, and never a whole line."""
    with suppress(OSError):
        while True:
            connection.send(b"G")
            time.sleep(0.1)


def test_a_client_that_sends_octet_by_octet_keeps_nobody_waiting(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_REQUEST_SECONDS", 4.0)
    with socket.create_connection(address, timeout=20) as slow:
        threading.Thread(target=drip, args=(slow,), daemon=True).start()
        began = time.monotonic()
        assert fetched(address) == b"token.thumbprint"
        assert time.monotonic() - began < 3
        assert has_ended(slow), "a request has a deadline, however many octets come"
        assert time.monotonic() - began < 15


def test_the_oldest_of_too_many_makes_room(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_REQUESTS", 4)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(address, timeout=3)) for _ in range(6)]
        assert fetched(address) == b"token.thumbprint"
        assert all(map(has_ended, silent[:3]))
        silent[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            silent[-1].recv(1)


def test_no_request_outlives_the_order() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        with answering([bound], {}):
            slow = socket.create_connection(bound.getsockname(), timeout=3)
            threading.Thread(target=drip, args=(slow,), daemon=True).start()
            time.sleep(0.3)
        assert has_ended(slow)
        slow.close()
