"""The TLS context that new connections get, made anew when the certificate changes."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mailstack.auth.binding import BindingContext, end_point
from mailstack.errors import BadSetting
from mailstack.service import alpn, openssl
from mailstack.service.tickets import TicketKeys

_SUITES: Final = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""For TLS 1.3, in RFC 8446's own order (§B.4): X25519 and P-256 have the strength of the first one, and
the second, which OpenSSL would prefer, costs a handshake a tenth more for its SHA-384."""

_CIPHERS: Final = "ECDHE+AESGCM+AES128:ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption alone (RFC 9325 §4.2); TLS 1.3 has no other."""


class TlsContext:
    """The current server-side context.

    With `protocol`, a client that offers others by ALPN and not this one is refused (RFC 7301). With
    `tickets`, a session is resumed by every context that has the same ones, the same certificate and
    the same protocol; else by the one that it began with.
    """

    def __init__(
        self,
        certificate: Path,
        private_key: Path,
        *,
        channel_binding: bool = False,
        protocol: str | None = None,
        tickets: TicketKeys | None = None,
    ) -> None:
        self._channel_binding = channel_binding
        self._protocol = protocol
        self._tickets = tickets
        self._use(*self._whole(certificate, private_key))

    def __call__(self) -> ssl.SSLContext:
        """The context for a connection that begins now."""
        return self._current

    @classmethod
    def reload(cls, contexts: Sequence[TlsContext], certificate: Path, private_key: Path) -> None:
        """Use these files from now on, for all or for none; raises BadSetting where they do not fit."""
        made = [context._whole(certificate, private_key) for context in contexts]
        for context, whole in zip(contexts, made, strict=True):
            context._use(*whole)

    def turn_keys(self) -> None:
        """Make tickets with the keys of today, and read no others."""
        if self._tickets is not None:
            self._tickets.give(self._current, self._purpose)

    def _use(self, context: ssl.SSLContext, purpose: bytes) -> None:
        self._current, self._purpose = context, purpose
        self.turn_keys()

    def _whole(self, certificate: Path, private_key: Path) -> tuple[ssl.SSLContext, bytes]:
        """A context, and what its tickets are good for."""
        try:
            context = self._made(certificate, private_key)
            if self._protocol is not None:
                alpn.insist(context, self._made(certificate, private_key), self._protocol)
            digest = hashlib.sha256(certificate.read_bytes()).digest()
        except (OSError, ssl.SSLError, ValueError) as error:
            raise BadSetting(
                f"[tls] certificate {certificate} and its private key cannot be used: {error}"
            ) from error
        return context, digest + (self._protocol or "").encode("ascii")

    def _made(self, certificate: Path, private_key: Path) -> ssl.SSLContext:
        context = BindingContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996, RFC 9325 §3.1.1
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        openssl.set_cipher_suites(context, _SUITES)  # else they stay in OpenSSL's order
        context.set_ciphers(_CIPHERS)
        context.num_tickets = 1  # a program has one connection at a time, and each new one brings the next
        if self._protocol is not None:
            context.set_alpn_protocols([self._protocol])
        context.load_cert_chain(certificate, private_key)
        if self._channel_binding:
            context.end_point = end_point(certificate)
        return context


class TicketTurn:
    """A timer on the running loop, by which contexts have the ticket keys of each new day."""

    def __init__(self, tickets: TicketKeys, contexts: Sequence[TlsContext]) -> None:
        self._tickets = tickets
        self._contexts = contexts
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(tickets.turn(), self._turn)

    def close(self) -> None:
        """Turn no more."""
        self._timer.cancel()

    def _turn(self) -> None:
        for context in self._contexts:
            context.turn_keys()
        self._timer = self._loop.call_later(self._tickets.turn(), self._turn)
