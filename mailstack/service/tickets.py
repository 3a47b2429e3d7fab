"""The keys of session tickets (RFC 5077, RFC 8446 §4.6.1), the same in all workers.

OpenSSL gives each context keys of its own, for as long as it lives: a client that comes back would be
known by one worker alone, and never after a reload. So the keys are made of a secret that the
supervisor's workers share, of the certificate, and of the day: a session is not resumed under another
certificate than it began with, nor can old tickets be read by who steals the keys of a later day
(RFC 9325 §3.4: keys are changed regularly and destroyed, tickets end before them; OpenSSL's after 2 hours).

`ssl` has no way to set them, OpenSSL has: SSL_CTX_ctrl(3). The SSL_CTX is the first member of CPython's
object (3.8 to 3.14 at least), and what is found there is looked at before it is used. Where it is
something else, contexts keep the keys that they were made with.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import secrets
import ssl
import struct
import time
from typing import Any, Final

KEY_SECONDS: Final = 24 * 3600
"""So long tickets are made with the same keys."""

_KEY_OCTETS: Final = 80  # a name of 16 octets, 32 for the HMAC, 32 for AES
_SET_KEYS: Final = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS, in openssl/ssl.h
_WORD: Final = struct.calcsize("P")


class TicketKeys:
    """A secret and the day that it is for; made before the workers are forked, who then have the same."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._day = _today()

    def turn(self) -> float:
        """Forget the keys of days that are over; returns in how many seconds there is more to forget."""
        while self._day < _today():
            self._secret = hashlib.sha256(self._secret).digest()
            self._day += 1
        return (self._day + 1) * KEY_SECONDS - time.monotonic()

    def give(self, context: ssl.SSLContext, purpose: bytes) -> bool:
        """Have new tickets of this context be good for all contexts of this purpose, today.

        False where it keeps its own keys.
        """
        self.turn()
        keys = hashlib.shake_256(self._secret + purpose).digest(_KEY_OCTETS)
        library = _library()
        address = library and _address(context, library)
        return bool(address and library.SSL_CTX_ctrl(address, _SET_KEYS, _KEY_OCTETS, keys))


def _today() -> int:
    """Days of the system's clock that nobody sets, which is one for all processes."""
    return int(time.monotonic() // KEY_SECONDS)


def _library() -> Any:
    """The OpenSSL of `ssl`; None where it is not a shared library."""
    import _ssl

    try:
        library = ctypes.CDLL(_ssl.__file__)
        library.SSL_CTX_ctrl.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p)
        library.SSL_CTX_ctrl.restype = ctypes.c_long
        library.TLS_server_method.restype = ctypes.c_void_p
    except (AttributeError, OSError):
        return None
    return library


def _address(context: ssl.SSLContext, library: Any) -> int | None:
    """Where OpenSSL has its part of a server's context; None where it is not where it was expected.

    Among its first two words is that of the methods of a TLS server, which nothing else has. They are
    read as from a file: an address of nothing is an error there, not the end of the process.
    """
    address = ctypes.c_size_t.from_address(id(context) + object.__basicsize__).value
    try:
        memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            words = os.pread(memory, 2 * _WORD, address)
        finally:
            os.close(memory)
    except (OSError, OverflowError):
        return None
    methods: int = library.TLS_server_method()
    return address if methods in struct.unpack("2P", words) else None
