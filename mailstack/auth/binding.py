"""Channel binding `tls-server-end-point` (RFC 5929 §4): which certificate a client of ours has seen."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path


class BindingContext(ssl.SSLContext):
    """A server's TLS context that knows the hash of its own certificate; ssl would not tell it."""

    end_point: bytes | None = None


def end_point_of(context: ssl.SSLContext) -> bytes | None:
    """What a connection of this context is bound to, where PLUS is to be offered."""
    return context.end_point if isinstance(context, BindingContext) else None


def end_point(certificate: Path) -> bytes:
    """The binding of a PEM file's first certificate; raises ValueError for one whose hash is unknown."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    found = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    used = found.signature_hash_algorithm
    if used is None:  # Ed25519 has none of its own, and RFC 5929 says nothing then
        raise ValueError("its signature has no hash of its own (RFC 5929 section 4.1)")
    name = "sha256" if used.name in ("md5", "sha1") else used.name
    der = found.public_bytes(Encoding.DER)
    return hashlib.new(name.replace("-", "_"), der).digest()
