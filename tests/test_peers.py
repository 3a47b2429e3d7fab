"""Who is at the other end of a connection."""

from __future__ import annotations

import pytest

from mailstack.peers import NOWHERE, Peer, peer_of


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        (("192.0.2.77", 1234), Peer("192.0.2.77", False, "192.0.2.0/24")),
        (("::ffff:192.0.2.77", 1234, 0, 0), Peer("192.0.2.77", False, "192.0.2.0/24")),  # of a socket on [::]
        (("2001:db8:1:2:3::6", 1234, 0, 0), Peer("2001:db8:1:2:3::6", False, "2001:db8:1:2::/64")),
        (("fe80::1%eth0", 1234, 0, 2), Peer("fe80::1", False, "fe80::/64")),  # a zone means nothing to others
        (("127.0.0.2", 1234), Peer("127.0.0.2", True, "")),
        (("::1", 1234, 0, 0), Peer("::1", True, "")),
        (("::ffff:127.0.0.1", 1234, 0, 0), Peer("127.0.0.1", True, "")),
        ("", NOWHERE),
        (None, NOWHERE),
    ],
)
def test_a_peer_has_one_address_however_it_came(name: object, peer: Peer) -> None:
    assert peer_of(name) == peer
