"""The TLS context that new connections get, made anew when the certificate changes."""

from __future__ import annotations

import ssl
from pathlib import Path

from mailstack.auth.binding import BindingContext, end_point
from mailstack.errors import BadSetting
from mailstack.service import alpn


class TlsContext:
    """The current server-side context, or None where no certificate is configured.

    With `protocol`, a client that offers others by ALPN and not this one is refused (RFC 7301).
    """

    def __init__(
        self,
        certificate: Path | None,
        private_key: Path | None,
        *,
        channel_binding: bool = False,
        protocol: str | None = None,
    ) -> None:
        self._certificate = certificate
        self._private_key = private_key
        self._channel_binding = channel_binding
        self._protocol = protocol
        self._current = self._whole()

    def __call__(self) -> ssl.SSLContext | None:
        """The context for a connection that begins now."""
        return self._current

    def reload(self) -> None:
        """Read the files again; raises BadSetting and keeps the old context where they do not fit."""
        self._current = self._whole()

    def _whole(self) -> ssl.SSLContext | None:
        context, serving = self._made(), self._made() if self._protocol else None
        if context is not None and serving is not None and self._protocol is not None:
            alpn.insist(context, serving, self._protocol)
        return context

    def _made(self) -> ssl.SSLContext | None:
        if self._certificate is None:
            return None
        context = BindingContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996, RFC 9325 §3.1.1
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        if self._protocol is not None:
            context.set_alpn_protocols([self._protocol])
        try:
            context.load_cert_chain(self._certificate, self._private_key)
            if self._channel_binding:
                context.end_point = end_point(self._certificate)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise BadSetting(
                f"[tls] certificate {self._certificate} and its private key cannot be used: {error}"
            ) from error
        return context
