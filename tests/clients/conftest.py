"""An appliance full of mail, which every fetching program may read and none may change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.clients import senders
from tests.clients.senders import Send
from tests.support import reference
from tests.support.appliance import SMTP_PORT, Appliance, copy_template, retrieved
from tests.support.recorder import Recorder
from tests.support.samples import Sample, everything, hard

_TAP_PORT = SMTP_PORT + 100


@dataclass
class Office:
    """An appliance, and for each account what must come out of it: content by the id of its mail."""

    appliance: Appliance
    sent: dict[str, dict[bytes, bytes]] = field(default_factory=dict)

    def receive(self, account: str, send: Send, samples: Sequence[Sample]) -> dict[bytes, bytes]:
        """Have samples sent to a new account; return what DATA carried, by the id of the mail."""
        self.appliance.add_accounts(account)
        host = self.appliance.host
        with Recorder((host, _TAP_PORT), (host, SMTP_PORT)) as tap:
            send(samples, account, tap.address)
            accepted = tap.accepted()
        assert len(accepted) == len(samples)
        self.sent[account] = {number: reference.kept(data) for number, data in accepted.items()}
        return accepted

    def maildrop(self, account: str) -> list[bytes]:
        """Every message of an account, by poplib, after a look at what it has to be."""
        connection = self.appliance.pop3(account)
        count, _ = connection.stat()
        found = [retrieved(connection, number) for number in range(1, count + 1)]
        connection.quit()
        received = {}
        for message in found:
            reverse_path, number, content = reference.below_trace(message)
            assert reverse_path == senders.SENDER.encode()
            received[number] = content
        assert len(received) == len(found)
        sent = self.sent[account]
        assert received.keys() == sent.keys()
        altered = {number: content for number, content in received.items() if content != sent[number]}
        assert not altered, min(altered.values(), key=len)  # all of them would be megabytes of differences
        return found


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Office]:
    """One that has had every sample from smtplib, and from a socket with its bare CR and LF."""
    with Appliance(tmp_path_factory.mktemp("office")) as appliance:
        copy_template(sqlite_template, appliance)
        made = Office(appliance)
        appliance.add_accounts()
        appliance.start()
        made.receive("smtplib", senders.by_smtplib, everything())
        made.receive("socket", senders.by_socket, everything())
        made.receive("hard", senders.by_socket, hard())
        yield made
        appliance.stop()
