"""What real programs download is what was sent to us, octet for octet."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.clients.conftest import Office
from tests.clients.fetchers import FETCHERS, PLAIN, TLS

pytestmark = pytest.mark.clients

PROGRAMS = {"curl": "curl", "fetchmail": "fetchmail", "mpop": "mpop"}


@pytest.mark.parametrize(
    ("name", "transport"),
    [(name, transport) for name, fetcher in FETCHERS.items() for transport in fetcher.transports],
)
def test_every_message_comes_whole_and_once(
    office: Office, tmp_path: Path, name: str, transport: str
) -> None:
    program = PROGRAMS.get(name)
    if program and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    fetcher = FETCHERS[name]
    account = _account(name, transport)
    expected = Counter(fetcher.changes(message) for message in office.maildrop(account))

    fetched = fetcher.fetch(office.appliance, account, transport, tmp_path)

    found = Counter(fetcher.mend(message) for message in fetched)

    assert _beginnings(found - expected) == []
    assert _beginnings(expected - found) == []
    if fetcher.remembers:
        assert fetcher.fetch(office.appliance, account, transport, tmp_path) == []


def _account(name: str, transport: str) -> str:
    if name == "getmail6" and transport == TLS:
        return "hard"  # it starts a process for each message, and has had all of them without TLS
    return "smtplib" if transport == PLAIN else "socket"


def _beginnings(messages: Counter[bytes]) -> list[bytes]:
    """Enough of each to know it by: a difference of megabytes helps nobody."""
    return [message[:500] for message in messages]
