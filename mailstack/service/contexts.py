"""The TLS context that new connections get, made anew when the certificate changes."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mailstack.auth.binding import BindingContext, end_point
from mailstack.errors import BadSetting
from mailstack.service import alpn

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption alone (RFC 9325 §4.2); TLS 1.3 has no other."""


class TlsContext:
    """The current server-side context.

    With `protocol`, a client that offers others by ALPN and not this one is refused (RFC 7301).
    """

    def __init__(
        self,
        certificate: Path,
        private_key: Path,
        *,
        channel_binding: bool = False,
        protocol: str | None = None,
    ) -> None:
        self._channel_binding = channel_binding
        self._protocol = protocol
        self._current = self._whole(certificate, private_key)

    def __call__(self) -> ssl.SSLContext:
        """The context for a connection that begins now."""
        return self._current

    @classmethod
    def reload(cls, contexts: Sequence[TlsContext], certificate: Path, private_key: Path) -> None:
        """Use these files from now on, for all or for none; raises BadSetting where they do not fit."""
        made = [context._whole(certificate, private_key) for context in contexts]
        for context, new in zip(contexts, made, strict=True):
            context._current = new

    def _whole(self, certificate: Path, private_key: Path) -> ssl.SSLContext:
        context = self._made(certificate, private_key)
        if self._protocol is not None:
            alpn.insist(context, self._made(certificate, private_key), self._protocol)
        return context

    def _made(self, certificate: Path, private_key: Path) -> ssl.SSLContext:
        context = BindingContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996, RFC 9325 §3.1.1
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_ciphers(_CIPHERS)
        context.num_tickets = 1  # a program has one connection at a time, and each new one brings the next
        if self._protocol is not None:
            context.set_alpn_protocols([self._protocol])
        try:
            context.load_cert_chain(certificate, private_key)
            if self._channel_binding:
                context.end_point = end_point(certificate)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise BadSetting(
                f"[tls] certificate {certificate} and its private key cannot be used: {error}"
            ) from error
        return context
