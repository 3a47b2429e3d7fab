"""What is concluded from the kernel's figures about a peer."""

from __future__ import annotations

import socket
import struct

import pytest

from mailstack.pop3.tcp import GONE_SECONDS, Pulse, Sign, keep_alive


class Kernel:
    """Answers TCP_INFO with the figures of a moment (struct tcp_info of linux/tcp.h)."""

    def __init__(self, **figures: int) -> None:
        self.figures = figures

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        figures = {"retransmits": 0, "probes": 0, "in_flight": 0, "silent": 0, "acked": 0} | self.figures
        info = bytearray(136)
        struct.pack_into("=BB", info, 2, figures["retransmits"], figures["probes"])
        struct.pack_into("=I", info, 24, figures["in_flight"])
        struct.pack_into("=I", info, 56, figures["silent"] * 1000)
        struct.pack_into("=Q", info, 120, figures["acked"])
        return bytes(info[:size])


LONG = GONE_SECONDS + 1


@pytest.mark.parametrize(
    ("figures", "sign"),
    [
        ({"in_flight": 3, "retransmits": 6, "silent": LONG}, Sign.VANISHED),
        ({"probes": 2, "silent": LONG}, Sign.VANISHED),
        ({"in_flight": 3, "retransmits": 2, "silent": 5}, Sign.NOTHING),
        ({"probes": 0, "silent": LONG}, Sign.NOTHING),  # a shut window whose probes are answered
        ({"acked": 1000}, Sign.READING),
    ],
)
def test_only_a_peer_that_answers_nothing_has_vanished(figures, sign):
    assert Pulse().look(Kernel(**figures), stuck=True) is sign


def test_progress_is_told_once():
    pulse = Pulse()
    assert pulse.look(Kernel(acked=1000), stuck=True) is Sign.READING
    assert pulse.look(Kernel(acked=1000), stuck=True) is Sign.NOTHING
    assert pulse.look(Kernel(acked=1001), stuck=True) is Sign.READING


def test_a_silent_connection_with_everything_delivered_is_not_looked_at_again():
    pulse = Pulse()
    assert pulse.look(Kernel(in_flight=1), stuck=False) is Sign.NOTHING
    assert not pulse.settled
    pulse.look(Kernel(), stuck=False)
    assert pulse.settled
    assert pulse.look(Kernel(retransmits=9, silent=LONG), stuck=False) is Sign.NOTHING


def test_the_kernel_really_answers_so():
    with socket.create_server(("127.0.0.1", 0)) as server:
        keep_alive(server)
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
            accepted.sendall(b"x" * 100)
            assert client.recv(100)
            assert Pulse().look(accepted, stuck=True) is Sign.READING
