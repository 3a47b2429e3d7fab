"""What this machine can do at most, whatever the server: `python -m bench.limits [FOLDER]`."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import tempfile
import threading
import time
from pathlib import Path

from mailstack.auth import passwords
from mailstack.cli.bench_load import sync_rate
from mailstack.service.tls import write_self_signed

SECONDS = 1.0


def loopback_megabytes_per_second(seconds: float = SECONDS) -> float:
    """From one process's thread to another over TCP, in blocks of 256 KiB."""
    block, got = bytes(256 * 1024), 0
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sender = socket.create_connection(listening.getsockname())
        receiver, _ = listening.accept()

    def send() -> None:
        with sender:
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                sender.sendall(block)

    thread = threading.Thread(target=send)
    began = time.perf_counter()
    thread.start()
    room = bytearray(len(block))
    with receiver:
        while octets := receiver.recv_into(room):
            got += octets
    took = time.perf_counter() - began
    thread.join()
    return got / took / 1e6


def copied_megabytes_per_second(seconds: float = SECONDS) -> float:
    """Within memory, in blocks that no cache holds; by one core."""
    source = bytes(range(256)) * (256 * 1024)
    room, done = memoryview(bytearray(source)), 0
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        room[:] = source
        done += 1
    return done * len(source) / (time.perf_counter() - began) / 1e6


def connections_per_second(seconds: float = SECONDS) -> float:
    """Over loopback, one after the other: connect, an octet each way, close; both ends here."""
    done = 0
    with socket.create_server(("127.0.0.1", 0)) as listening:
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            with socket.create_connection(listening.getsockname()) as client, listening.accept()[0] as server:
                client.sendall(b"x")
                server.sendall(server.recv(1))
                client.recv(1)
            done += 1
        return done / (time.perf_counter() - began)


def hashes_per_second_and_core(seconds: float = SECONDS) -> float:
    """argon2id, verified with the parameters of an account's password."""
    stored = passwords.stored("secret").password_hash
    done, began = 0, time.thread_time()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        assert passwords.verify("secret", stored)
        done += 1
    return done / (time.thread_time() - began)


def handshakes_per_second_and_core(seconds: float = SECONDS) -> float:
    """TLS 1.3 with our kind of certificate; the server's half alone, without a socket."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
        write_self_signed(certificate, key, "localhost")
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        client = ssl.create_default_context(cafile=str(certificate))
    done, cpu = 0, 0.0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost")
        ours = server.wrap_bio(to_server, to_client, server_side=True)
        finished = False
        while not finished:
            theirs_done = _stepped(theirs)
            began = time.thread_time()
            finished = _stepped(ours)
            cpu += time.thread_time() - began
            finished = finished and theirs_done
        done += 1
    return done / cpu


def _stepped(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def limits(folder: Path) -> dict[str, float]:
    """All of them; synced writes are those of the folder's disk."""
    return {
        "synced_writes_per_second": round(sync_rate(folder, SECONDS).rate),
        "loopback_megabytes_per_second": round(loopback_megabytes_per_second()),
        "copied_megabytes_per_second": round(copied_megabytes_per_second()),
        "connections_per_second": round(connections_per_second()),
        "tls_handshakes_per_second_and_core": round(handshakes_per_second_and_core()),
        "argon2id_hashes_per_second_and_core": round(hashes_per_second_and_core()),
    }


if __name__ == "__main__":
    print(json.dumps(limits(Path(sys.argv[1] if sys.argv[1:] else tempfile.gettempdir())), indent=1))
