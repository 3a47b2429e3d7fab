"""What real programs download is what was sent to us, octet for octet."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.clients import senders
from tests.clients.conftest import Office
from tests.clients.fetchers import FETCHERS, PLAIN, TLS, Box
from tests.support.appliance import wait_until
from tests.support.samples import hard

pytestmark = pytest.mark.clients

PROGRAMS = {"curl": "curl", "fetchmail": "fetchmail", "mpop": "mpop"}


each_way = pytest.mark.parametrize(
    ("name", "transport"),
    [(name, transport) for name, fetcher in FETCHERS.items() for transport in fetcher.transports],
)


@each_way
def test_every_message_comes_whole_and_once(
    office: Office, tmp_path: Path, name: str, transport: str
) -> None:
    account = _account(name, transport)
    box = Box(office.appliance, account, transport)
    before = len(_retrieved(office, account))
    there = office.maildrop(account)

    _fetch(name, box, there, tmp_path)

    assert FETCHERS[name].fetch(box, tmp_path) == []
    assert office.maildrop(account) == there

    def downloads() -> list[int]:
        return [count for count in _retrieved(office, account)[before:] if count]

    # By us, by the program once (fetchmail does it by `TOP 1 99999999`), and by us again; what a session
    # did is told when it is over.
    wait_until(lambda: len(downloads()) >= 3, what="the end of the last session")
    assert downloads() == [len(there)] * 3


@each_way
def test_every_message_comes_whole_and_is_deleted(
    office: Office, tmp_path: Path, name: str, transport: str
) -> None:
    account = f"{name}-{transport}"
    office.receive(account, senders.by_socket, hard())
    box = Box(office.appliance, account, transport, delete=True)

    _fetch(name, box, office.maildrop(account), tmp_path)

    assert FETCHERS[name].fetch(box, tmp_path) == []
    assert office.appliance.pop3(account).stat() == (0, 0)


def _fetch(name: str, box: Box, there: list[bytes], folder: Path) -> None:
    program = PROGRAMS.get(name)
    if program and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    fetcher = FETCHERS[name]
    expected = Counter(fetcher.changes(message) for message in there)
    found = Counter(fetcher.mend(message) for message in fetcher.fetch(box, folder))
    assert _beginnings(found - expected) == []
    assert _beginnings(expected - found) == []


def _retrieved(office: Office, account: str) -> list[int]:
    """How many messages each session of the account has downloaded, as the server tells it."""
    line = rf"event=pop3\.session .* account={account}@.* retrieved=(\d+)"
    return [int(count) for count in re.findall(line, office.appliance.said())]


def _account(name: str, transport: str) -> str:
    if name == "getmail6" and transport == TLS:
        return "hard"  # it starts a process for each message, and has had all of them without TLS
    return "smtplib" if transport == PLAIN else "socket"


def _beginnings(messages: Counter[bytes]) -> list[bytes]:
    """Enough of each to know it by: a difference of megabytes helps nobody."""
    return [message[:500] for message in messages]
