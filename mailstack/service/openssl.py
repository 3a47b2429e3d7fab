"""What OpenSSL can do with a context and `ssl` has no call for, before Python 3.15 at least.

The SSL_CTX is the first member of CPython's object (3.8 to 3.14 at least), and what is found there is
looked at before it is used. Where it is something else, or OpenSSL is no shared library, nothing is done.
"""

from __future__ import annotations

import _ssl
import ctypes
import os
import ssl
import struct
from typing import Any, Final

TICKET_KEYS_OCTETS: Final = 80
"""A name of 16 octets, 32 for the HMAC, 32 for AES."""

_SET_TICKET_KEYS: Final = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS, in openssl/ssl.h
_WORD: Final = struct.calcsize("P")


def set_ticket_keys(context: ssl.SSLContext, keys: bytes) -> bool:
    """Have a server's context make and read session tickets with these keys; whether it does.

    SSL_CTX_set_tlsext_ticket_keys(3).
    """
    library = _library()
    address = library and _address(context, library)
    return bool(address and library.SSL_CTX_ctrl(address, _SET_TICKET_KEYS, len(keys), keys))


def set_cipher_suites(context: ssl.SSLContext, names: str) -> bool:
    """Give a server's context the cipher suites of TLS 1.3, the best one first; whether it has them.

    SSL_CTX_set_ciphersuites(3).
    """
    library = _library()
    address = library and _address(context, library)
    return bool(address and library.SSL_CTX_set_ciphersuites(address, names.encode("ascii")))


def _library() -> Any:
    """The OpenSSL of `ssl`; None where it is not a shared library."""
    try:
        library = ctypes.CDLL(_ssl.__file__)
        library.SSL_CTX_ctrl.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p)
        library.SSL_CTX_ctrl.restype = ctypes.c_long
        library.SSL_CTX_set_ciphersuites.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
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
    if len(words) != 2 * _WORD:
        return None
    methods: int = library.TLS_server_method()
    return address if methods in struct.unpack("2P", words) else None
