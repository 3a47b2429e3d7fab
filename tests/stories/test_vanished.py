"""A peer that vanishes without a word frees its maildrop within 75 seconds; one that does not read stays.

The peers are in a network namespace whose cable is pulled: nothing comes from them any more, not even
what a kernel says when a program has ended.
"""

from __future__ import annotations

import os
import poplib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.appliance import DOMAIN, PASSWORD, POP3_PORT, POP3S_PORT, Appliance, copy_template

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("ip") is None, reason="needs root and ip"),
]

HERE, THERE = "198.51.100.1", "198.51.100.2"  # RFC 5737
FREED_SECONDS = 75.0

# Logs in, begins a RETR that it does not read to its end if told so, and then sleeps for ever.
PEER = """
import socket, ssl, sys, time
host, port, name, secret, tls, reads = sys.argv[1:]
connection = socket.create_connection((host, int(port)), timeout=20)
if tls == "tls":
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = context.wrap_socket(connection)
lines = connection.makefile("rb")
assert lines.readline().startswith(b"+OK")
for command in (f"USER {name}", f"PASS {secret}", "RETR 1" if reads == "reads" else "NOOP"):
    connection.sendall(command.encode() + b"\\r\\n")
    assert lines.readline().startswith(b"+OK")
print("there", flush=True)
time.sleep(1000)
"""


class Cable:
    """A network namespace, and the cable to it."""

    def __init__(self) -> None:
        self._name = f"ms{os.getpid()}"

    def __enter__(self) -> Cable:
        there = f"netns exec {self._name} ip"
        for command in (
            f"netns add {self._name}",
            f"link add {self._name}a type veth peer name {self._name}b",
            f"link set {self._name}b netns {self._name}",
            f"address add {HERE}/30 dev {self._name}a",
            f"link set {self._name}a up",
            f"{there} address add {THERE}/30 dev {self._name}b",
            f"{there} link set {self._name}b up",
        ):
            self._ip(command)
        return self

    def __exit__(self, *_: object) -> None:
        self._ip(f"netns delete {self._name}")  # and with it both ends of the cable

    def pull(self) -> None:
        """From now on nothing passes."""
        self._ip(f"netns exec {self._name} ip link set {self._name}b down")

    def peer(self, name: str, *, tls: bool, reads: bool) -> subprocess.Popen[bytes]:
        """A session at the other end, once it has come as far as it shall."""
        port = POP3S_PORT if tls else POP3_PORT
        words = (HERE, str(port), name, PASSWORD, "tls" if tls else "plain", "reads" if reads else "idle")
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._name, sys.executable, "-c", PEER, *words], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        return process

    def _ip(self, command: str) -> None:
        subprocess.run(["ip", *command.split()], check=True)


@pytest.fixture
def office(tmp_path: Path, sqlite_template: Path) -> Iterator[Appliance]:
    """One that listens at the end of the cable, too; each account has a message of 5 MB."""
    with Appliance(tmp_path) as appliance:
        text = appliance.config.read_text()
        for port in (POP3_PORT, POP3S_PORT):
            mine = f'"{appliance.host}:{port}"'
            text = text.replace(mine, f'{mine}, "{HERE}:{port}"')
        appliance.config.write_text(text.replace("[pop3]", "[pop3]\nallow_plaintext_login = true"))
        copy_template(sqlite_template, appliance)
        appliance.add_accounts(*PEERS, "slow")
        yield appliance


PEERS = {
    "idle": {"tls": False, "reads": False},
    "idle-tls": {"tls": True, "reads": False},
    "reads": {"tls": False, "reads": True},
    "reads-tls": {"tls": True, "reads": True},
}


@pytest.mark.timeout(240)
def test_the_maildrop_of_a_vanished_peer_is_free_within_75_seconds(office: Appliance) -> None:
    with Cable() as cable:
        office.start()
        names = [*PEERS, "slow"]
        assert office.send(b"Subject: x\r\n\r\n" + (b"x" * 76 + b"\r\n") * 65_000, *names)[0] == 250
        peers = [cable.peer(name, **how) for name, how in PEERS.items()]
        slow = socket.create_connection((office.host, POP3_PORT))
        slow.sendall(f"USER slow\r\nPASS {PASSWORD}\r\nRETR 1\r\n".encode())  # and it reads no answer

        cable.pull()
        began = time.monotonic()
        took: dict[str, float] = {}
        while len(took) < len(PEERS) and time.monotonic() - began < FREED_SECONDS + 10:
            time.sleep(0.25)
            for name in PEERS.keys() - took.keys():
                if is_free(office, name):
                    took[name] = time.monotonic() - began
        print({name: round(seconds, 1) for name, seconds in took.items()})

        assert took.keys() == PEERS.keys()
        assert max(took.values()) <= FREED_SECONDS
        assert not is_free(office, "slow")
        slow.close()
        for peer in peers:
            peer.kill()
            peer.communicate()
    ends = {
        line.split("account=")[1].split()[0]: line
        for line in office.said().splitlines()
        if "vanished" in line
    }
    assert {f"{name}@{DOMAIN}" for name in PEERS if "reads" in name} <= ends.keys()


def is_free(office: Appliance, name: str) -> bool:
    """Whether a session can have the maildrop."""
    try:
        office.pop3(name).quit()
    except poplib.error_proto as error:
        if b"[IN-USE]" not in error.args[0]:
            raise
        return False
    return True
