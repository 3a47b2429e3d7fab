"""Which certificate the server shows to whoever connects."""

from __future__ import annotations

import hashlib
import smtplib
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from mailstack.settings import Settings
from mailstack.values import Listen, TcpAddress

PATIENCE_SECONDS: Final = 10.0


def fingerprints(settings: Settings) -> dict[str, str]:
    """By address the SHA-256 of the certificate; an address that does not answer is left out."""
    return dict(_seen(settings))


def _seen(settings: Settings) -> Iterator[tuple[str, str]]:
    for address in _reachable(settings.pop3.tls_listen):
        try:
            with (
                socket.create_connection(address.from_here, PATIENCE_SECONDS) as plain,
                _anybody().wrap_socket(plain) as connection,
            ):
                yield str(address), _digest(connection)
        except OSError:
            continue
    for address in _reachable(settings.smtp.listen):
        try:
            with smtplib.SMTP(*address.from_here, timeout=PATIENCE_SECONDS) as session:
                session.starttls(context=_anybody())
                assert isinstance(session.sock, ssl.SSLSocket)
                yield str(address), _digest(session.sock)
        except (OSError, smtplib.SMTPException):
            continue


def _reachable(addresses: tuple[Listen, ...]) -> Iterator[TcpAddress]:
    return (each for each in addresses if isinstance(each, TcpAddress))


def _anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _digest(connection: ssl.SSLSocket) -> str:
    return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()
