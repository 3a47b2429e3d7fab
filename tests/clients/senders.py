"""Sending programs: each gets samples and an address, and sends them its own way."""

from __future__ import annotations

import re
import smtplib
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support import postfix, reference
from tests.support.appliance import DOMAIN
from tests.support.samples import Sample

Send = Callable[[Sequence[Sample], str, tuple[str, int]], None]
"""Sends every sample to a local-part in DOMAIN by the server at an address."""

SENDER = "sender@example.net"
_PER_CONNECTION = 100


def by_smtplib(samples: Sequence[Sample], local_part: str, server: tuple[str, int]) -> None:
    """Python's own client; it stuffs dots, and leaves line ends to its caller."""
    with smtplib.SMTP(*server, timeout=60) as connection:
        for sample in samples:
            connection.sendmail(SENDER, f"{local_part}@{DOMAIN}", with_crlf(sample.content))


def by_socket(samples: Sequence[Sample], local_part: str, server: tuple[str, int]) -> None:
    """The octets as they are: bare CR and LF, which no decent client would send."""
    for start in range(0, len(samples), _PER_CONNECTION):
        with socket.create_connection(server, timeout=60) as connection, connection.makefile("rb") as replies:
            _expect(replies.readline(), b"220")
            connection.sendall(b"HELO client.example.net\r\n")
            _expect(replies.readline(), b"250")
            for sample in samples[start : start + _PER_CONNECTION]:
                connection.sendall(
                    f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{local_part}@{DOMAIN}>\r\nDATA\r\n".encode()
                )
                for code in (b"250", b"250", b"354"):
                    _expect(replies.readline(), code)
                content = sample.content
                connection.sendall(
                    reference.stuffed(
                        content if content.endswith(b"\r\n") or not content else content + b"\r\n"
                    )
                )
                _expect(replies.readline(), b"250")
            connection.sendall(b"QUIT\r\n")
            _expect(replies.readline(), b"221")


def by_swaks(samples: Sequence[Sample], local_part: str, server: tuple[str, int]) -> None:
    """swaks, a program a message; it stuffs dots and makes every line end a CRLF."""
    for sample in samples:
        said = subprocess.run(
            [
                "swaks", "--server", server[0], "--port", str(server[1]), "--from", SENDER,
                "--to", f"{local_part}@{DOMAIN}", "--data", "-", "--no-data-fixup",
                "--suppress-data", "--timeout", "60",
            ],
            input=_dot_stuffed(with_crlf(sample.content)),
            capture_output=True,
            timeout=60,
        )  # fmt: skip
        assert said.returncode == 0, (sample.name, said.stdout[-500:], said.stderr[-500:])


def by_postfix(folder: Path) -> Send:
    """A real Postfix, which has the messages from smtplib and passes them on in its own time."""

    def send(samples: Sequence[Sample], local_part: str, server: tuple[str, int]) -> None:
        own = (server[0], server[1] + 1)
        with postfix.running(folder, listen=own, relay=server) as configuration:
            by_smtplib(samples, local_part, own)
            postfix.wait_for_empty_queue(configuration)

    return send


def with_crlf(content: bytes) -> bytes:
    """Every line end a CRLF, and every other CR gone: what a client that obeys RFC 5321 §2.3.8 sends."""
    content = re.sub(rb"\r(?!\n)", b"", content)
    return re.sub(rb"(?<!\r)\n", b"\r\n", content)


def _dot_stuffed(content: bytes) -> bytes:
    return reference.stuffed(content if content.endswith(b"\r\n") or not content else content + b"\r\n")


def _expect(reply: bytes, code: bytes) -> None:
    assert reply.startswith(code), reply
