"""Who may connect, and who makes room for whom."""

from __future__ import annotations

import ipaddress

import pytest

from mailstack.crowd import Crowd, Limits, Refusal
from mailstack.peers import peer_at
from mailstack.settings import Settings, Smtp, share


class Peer:
    """A connection that has been silent since a moment."""

    def __init__(self, since: float = 0.0) -> None:
        self.since = since
        self.gave_way = False

    def silence(self, now: float) -> float:
        return now - self.since

    def give_way(self) -> None:
        self.gave_way = True


@pytest.mark.parametrize(
    ("first", "next_addresses"),
    [("192.0.2.1", "192.0.2.0/24"), ("2001:db8::1", "2001:db8::/64")],
)
def test_an_address_and_its_network_may_have_so_many_connections(first: str, next_addresses: str) -> None:
    crowd = Crowd[Peer](Limits(1000, per_address=2, per_network=3))
    peers = [Peer() for _ in range(8)]
    _, second, third = (str(host) for host in list_of(next_addresses, 3))
    assert crowd.join(peers[1], peer_at(first), 0.0) is None
    assert crowd.join(peers[2], peer_at(first), 0.0) is None
    assert crowd.join(peers[3], peer_at(first), 0.0) is Refusal.FROM_THERE
    assert crowd.join(peers[4], peer_at(second), 0.0) is None
    assert crowd.join(peers[5], peer_at(third), 0.0) is Refusal.FROM_THERE
    assert crowd.join(peers[6], peer_at("203.0.113.1"), 0.0) is None
    crowd.leave(peers[1])
    crowd.leave(peers[1])
    crowd.leave(peers[3])
    assert crowd.join(peers[7], peer_at(third), 0.0) is None
    assert len(crowd) == 4
    for member in crowd:
        crowd.leave(member)
    assert not crowd._by_address
    assert not crowd._by_network


def list_of(network: str, most: int) -> list[object]:
    hosts = ipaddress.ip_network(network).hosts()
    return [next(hosts) for _ in range(most)]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", ""])
def test_a_peer_on_this_machine_may_have_as_many_as_there_are(address: str) -> None:
    crowd = Crowd[Peer](Limits(10, per_address=1, per_network=1))
    assert [crowd.join(Peer(), peer_at(address), 0.0) for _ in range(10)] == [None] * 10
    assert crowd.join(Peer(), peer_at(address), 0.0) is Refusal.FULL


def test_each_worker_has_its_part_of_the_servers_limits():
    whole = Settings(smtp=Smtp(max_connections=1000, max_octets_in_flight=60 << 20))
    part = share(whole, 3)
    assert Limits.of(part.smtp) == Limits(334, 17, 67)
    assert Limits.of(part.pop3) == Limits(667, 34, 134)
    assert part.smtp.max_octets_in_flight == 50 << 20, "one message of max_message_size has to fit"
    assert share(whole, 1) == whole


def test_who_has_been_silent_for_longest_makes_room_and_leaves_later() -> None:
    crowd = Crowd[Peer](Limits(2, per_address=2, per_network=2))
    first, second, third = Peer(since=5.0), Peer(since=0.0), Peer(since=9.0)
    assert crowd.join(first, peer_at("192.0.2.1"), 9.0) is None
    assert crowd.arrive(second, peer_at("192.0.2.2"), 9.0) is None
    assert crowd.join(third, peer_at("192.0.2.3"), 9.0) is Refusal.FROM_THERE
    assert not second.gave_way, "the newcomer would not have been let in"
    assert crowd.join(third, peer_at("198.51.100.1"), 9.0) is None
    assert (first.gave_way, second.gave_way) == (False, True)
    assert crowd.join(Peer(), peer_at("198.51.100.1"), 9.0) is None
    assert first.gave_way
    assert set(crowd) >= {first, third}, "it is there until its end is known"
    assert crowd.leave(first)
    assert not crowd.leave(first)
    assert not crowd.leave(second), "it had arrived, and was never there"
    assert crowd.join(Peer(), peer_at("198.51.100.2"), 9.0) is Refusal.FROM_THERE


def test_nobody_makes_room_who_has_just_said_something() -> None:
    crowd = Crowd[Peer](Limits(1, per_address=9, per_network=9))
    assert crowd.join(Peer(since=8.5), peer_at("192.0.2.1"), 9.0) is None
    assert crowd.join(Peer(), peer_at("192.0.2.2"), 9.0) is Refusal.FULL


def test_who_has_arrived_keeps_its_place_as_a_member() -> None:
    crowd = Crowd[Peer](Limits(9, per_address=1, per_network=9))
    guest, member = Peer(), Peer()
    assert crowd.arrive(guest, peer_at("192.0.2.1"), 0.0) is None
    assert not crowd
    crowd.admit(guest, member)
    assert not crowd.leave(guest)
    assert list(crowd) == [member]
    assert crowd.join(Peer(), peer_at("192.0.2.1"), 0.0) is Refusal.FROM_THERE
    assert crowd.leave(member)
    assert crowd.join(Peer(), peer_at("192.0.2.1"), 0.0) is None


def test_fewer_may_be_allowed_than_there_are() -> None:
    crowd = Crowd[Peer](Limits(9, per_address=9, per_network=9))
    assert [crowd.join(Peer(), peer_at("192.0.2.1"), 0.0) for _ in range(3)] == [None] * 3
    crowd.adopt(Limits(2, per_address=9, per_network=9))
    assert crowd.join(Peer(), peer_at("192.0.2.2"), 9.0) is Refusal.FULL
    assert crowd.join(Peer(), peer_at("192.0.2.2"), 9.0) is None
