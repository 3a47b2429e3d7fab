"""What people and other servers do with a box: real programs of this machine, and many senders at once."""

from __future__ import annotations

import re
import smtplib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.appliance.box import Box

ADDRESS = "you@example.org"
PASSWORD = "correct horse"


def send(box: Box, subject: str, *arguments: str) -> None:
    """One message by swaks, over STARTTLS unless told otherwise."""
    said = box.client(
        *("swaks", "--server", "127.0.0.1", "--to", ADDRESS, "--from", "eve@example.net"),
        *("--header", f"Subject: {subject}", "--tls", *arguments),
    )
    assert said.returncode == 0, said.stdout.decode()


def send_by_curl(box: Box, subject: str, url: str) -> None:
    """One message by curl, to a server that may be named by its IPv6 address."""
    done = box.client(
        *("curl", "--silent", "--show-error", "--insecure", "--ssl-reqd", "--mail-from", "eve@example.net"),
        *("--mail-rcpt", ADDRESS, "--upload-file", "-", url),
        stdin=f"Subject: {subject}\r\n\r\nhello\r\n".encode(),
    )
    assert done.returncode == 0, done.stderr.decode()


def curl(box: Box, url: str) -> str:
    """What curl fetches by POP3."""
    done = box.client(
        "curl", "--silent", "--show-error", "--insecure", "--user", f"{ADDRESS}:{PASSWORD}", url
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def unique_ids(box: Box) -> list[str]:
    """The UIDLs of the maildrop, oldest first."""
    done = box.client(
        *("curl", "--silent", "--insecure", "--user", f"{ADDRESS}:{PASSWORD}", "--request", "UIDL"),
        "pop3s://127.0.0.1/",
    )
    return re.findall(r"^\d+ (\S+)", done.stdout.decode(), re.MULTILINE)


def subjects(box: Box) -> list[str]:
    """The subjects of the maildrop's messages, oldest first, each fetched whole."""
    found = [curl(box, f"pop3s://127.0.0.1/{number + 1}") for number in range(len(unique_ids(box)))]
    return [match[1] for text in found if (match := re.search(r"^Subject: (.+?)\r?$", text, re.MULTILINE))]


def certificate_of(box: Box, port: int, *arguments: str) -> str:
    """The fingerprint of the certificate that openssl is shown."""
    done = box.client(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-showcerts", *arguments, stdin=b"QUIT\r\n"
    )
    pem = re.search(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", done.stdout, re.DOTALL)
    assert pem is not None, done.stderr.decode()
    shown = box.client("openssl", "x509", "-noout", "-fingerprint", "-sha256", stdin=pem[0])
    return shown.stdout.decode().strip()


@dataclass
class Load:
    """Senders that do as mail servers do: connect, send one message, and come back if told to."""

    box: Box
    senders: int = 4
    acknowledged: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """What must not happen: a connection refused, a transaction that had begun and was not ended."""

    def during(self, action: Callable[[], object], *, before_seconds: float = 0.5) -> None:
        """Send all the time while something happens, and for a moment before and after."""
        stop = threading.Event()
        waits = [self.box.in_background(lambda n=n: self._send_until(stop, n)) for n in range(self.senders)]
        try:
            time.sleep(before_seconds)
            began = len(self.acknowledged)
            action()
            time.sleep(before_seconds)
        finally:
            stop.set()
            for wait in waits:
                wait()
        assert began, "nothing had been sent before it happened"
        assert len(self.acknowledged) > began, "nothing was sent afterwards"

    def _send_until(self, stop: threading.Event, sender: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            self._send(f"{sender}.{count}.{time.monotonic_ns()}")
            time.sleep(0.01)

    def _send(self, name: str) -> None:
        begun = False
        try:
            with smtplib.SMTP("127.0.0.1", 25, local_hostname="load.example.net", timeout=60) as connection:
                connection.ehlo()
                if connection.mail("load@example.net")[0] != 250:
                    return  # it is shutting down, said so, and has promised nothing
                begun = True
                connection.rcpt(ADDRESS)
                code, _ = connection.data(f"Subject: {name}\r\n\r\nunder load\r\n".encode())
                begun = False  # whatever is said to QUIT, the message is stored or refused
                if code == 250:
                    self.acknowledged.append(name)
                else:
                    self.broken.append(f"{name}: {code}")
        except ConnectionRefusedError as error:
            self.broken.append(f"{name}: {error}")
        except (OSError, smtplib.SMTPException) as error:
            if begun:
                self.broken.append(f"{name}: {error!r}")
