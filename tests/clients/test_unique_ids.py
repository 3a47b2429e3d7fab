"""A client may rely on sizes and unique-ids: over sessions, restarts and deletions (RFC 1939 §5, §7)."""

from __future__ import annotations

import poplib

import pytest

from tests.clients import senders
from tests.support.appliance import SMTP_PORT, Appliance
from tests.support.samples import hard

pytestmark = pytest.mark.clients


def test_sizes_are_the_octets_that_come(any_appliance: Appliance) -> None:
    any_appliance.start()
    senders.by_socket(hard(), "anna", (any_appliance.host, SMTP_PORT))

    with_sizes = listing(session := any_appliance.pop3("anna"))

    assert len(with_sizes) == len(hard())
    for number, octets in with_sizes.items():
        # poplib counts the line ends that it takes off, and the dots that it unstuffs are not in there.
        _, lines, _ = session.retr(number)
        assert sum(len(line) + 2 for line in lines) == octets
    assert session.stat() == (len(with_sizes), sum(with_sizes.values()))


def test_unique_ids_stay_and_never_come_again(any_appliance: Appliance) -> None:
    any_appliance.start()
    deliver(any_appliance, 5)
    session = any_appliance.pop3("anna")
    first = unique_ids(session)
    assert len(set(first.values())) == 5

    session.quit()
    assert unique_ids(any_appliance.pop3("anna")) == first
    any_appliance.stop()
    any_appliance.start()
    session = any_appliance.pop3("anna")
    assert unique_ids(session) == first

    session.dele(2)
    session.dele(5)  # the last number is the one that a careless server gives again
    session.quit()
    deliver(any_appliance, 2)
    session = any_appliance.pop3("anna")
    second = unique_ids(session)
    assert [second[number] for number in (1, 2, 3)] == [first[number] for number in (1, 3, 4)]
    assert not {second[4], second[5]} & set(first.values())

    for number in second:
        session.dele(number)
    session.quit()
    any_appliance.kill()
    any_appliance.start()
    deliver(any_appliance, 1)
    third = unique_ids(any_appliance.pop3("anna"))
    assert len(third) == 1
    assert not set(third.values()) & (set(first.values()) | set(second.values()))


def deliver(appliance: Appliance, count: int) -> None:
    for number in range(count):
        assert appliance.send(b"Subject: %d\r\n\r\nbody\r\n" % number, "anna")[0] == 250


def listing(session: poplib.POP3) -> dict[int, int]:
    """LIST: octets by number."""
    return {int(number): int(octets) for number, octets in map(bytes.split, session.list()[1])}


def unique_ids(session: poplib.POP3) -> dict[int, bytes]:
    """UIDL: unique-ids by number."""
    return {int(number): name for number, name in map(bytes.split, session.uidl()[1])}
