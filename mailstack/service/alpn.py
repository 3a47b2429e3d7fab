"""Refusing a client that wants another protocol by TLS (RFC 7301 §3.2, the attacks called ALPACA).

A browser that is led to the POP3 port must not have its request answered here. OpenSSL leaves the
decision to a callback, and CPython's own (set_alpn_protocols) goes on without a protocol when none
fits; nor does it show afterwards what the client had offered. So the ClientHello is looked at where
CPython shows it to those who debug (`_msg_callback`, in 3.8 to 3.14 at least), and the handshake is
refused where it takes an answer (`sni_callback`, which comes after it, with or without a server
name). Where a later Python has no such callback, a foreign ALPN is ignored as it was.
"""

from __future__ import annotations

import ssl
from typing import Any, Final
from weakref import WeakSet

_NO_APPLICATION_PROTOCOL: Final = 120  # the alert of RFC 7301 §3.2
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_ALPN: Final = 16  # RFC 7301 §6
_SIGN: Final = _ALPN.to_bytes(2)  # without these octets there is no such extension, and nothing to take apart

_shown: Final = getattr(ssl.SSLContext.__base__, "_msg_callback", None)
"""The callback as it is in C: `ssl` would make an enumeration's member of each number first."""


def offered(client_hello: bytes) -> list[bytes] | None:
    """The protocols in a ClientHello (RFC 8446 §4.1.2), or None where it has no such extension."""
    try:
        at = 4 + 2 + 32  # the handshake's header, version and random
        at += 1 + client_hello[at]  # session id
        at += 2 + int.from_bytes(client_hello[at : at + 2])  # cipher suites
        at += 1 + client_hello[at]  # compression methods
        end = at + 2 + int.from_bytes(client_hello[at : at + 2])
        at += 2
        while at + 4 <= end:
            kind = int.from_bytes(client_hello[at : at + 2])
            octets = int.from_bytes(client_hello[at + 2 : at + 4])
            at += 4
            if kind == _ALPN:
                return _names(client_hello[at : at + octets])
            at += octets
    except IndexError:  # OpenSSL will say what is wrong with it
        pass
    return None


def _names(extension: bytes) -> list[bytes]:
    names = []
    at = 2
    while at < len(extension):
        names.append(extension[at + 1 : at + 1 + extension[at]])
        at += 1 + extension[at]
    return names


def insist(context: ssl.SSLContext, serving: ssl.SSLContext, protocol: str) -> None:
    """Have `context` refuse every client that offers protocols, and this one not among them.

    Handshakes begin with `context` and go on with `serving`, which has no callbacks: what comes
    after a ClientHello costs nothing.
    """
    wanted = protocol.encode("ascii")
    refused: WeakSet[Any] = WeakSet()

    def look(
        connection: Any, _direction: str, _version: int, content_type: int, kind: int, data: bytes
    ) -> None:
        if content_type == _HANDSHAKE and kind == _CLIENT_HELLO and _SIGN in data:
            names = offered(data)
            if names is not None and wanted not in names:
                refused.add(connection)

    def decide(connection: Any, _name: str | None, _context: ssl.SSLContext) -> int | None:
        if connection in refused:
            return _NO_APPLICATION_PROTOCOL
        connection.context = serving
        return None

    if _shown is not None:
        _shown.__set__(context, look)
        context.sni_callback = decide
