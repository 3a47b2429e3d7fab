"""A self-signed certificate, so that TLS works before anybody has asked for a real one."""

from __future__ import annotations

import fcntl
import logging
import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailstack import log
from mailstack.files import drafted, sync

VALID_DAYS = 3650
"""Ten years: whoever trusts it has told each mail program so by hand, and would have to again."""

_SKEW = timedelta(hours=1)
"""A client whose clock is a little behind must not find the certificate from the future."""


def ensure(certificate: Path, private_key: Path, hostname: str) -> None:
    """Make a self-signed certificate where there is none yet, and say so.

    Processes that start at the same moment agree on one.
    """
    certificate.parent.mkdir(mode=0o700, exist_ok=True)
    folder = os.open(certificate.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if certificate.exists() and private_key.exists():
            return
        write_self_signed(certificate, private_key, hostname)
    finally:
        os.close(folder)
    log.event(
        "self-signed certificate made",
        level=logging.WARNING,
        certificate=str(certificate),
        hostname=hostname,
        advice="mail programs will ask before they trust it; mailstack certificate obtain gets one they know",
    )


def write_self_signed(certificate: Path, private_key: Path, hostname: str) -> None:
    """Make an ECDSA P-256 key, readable by its owner alone, and a certificate for this host."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = _certificate(key, hostname)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    replace(certificate, private_key, made.public_bytes(serialization.Encoding.PEM), pem)


def _certificate(key: ec.EllipticCurvePrivateKey, hostname: str) -> x509.Certificate:
    # A common name has at most 64 characters (RFC 5280, appendix A.1); clients look at the names below.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    names: list[x509.GeneralName] = [x509.DNSName(each) for each in dict.fromkeys((hostname, "localhost"))]
    names += [x509.IPAddress(ip_address(each)) for each in ("127.0.0.1", "::1")]
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_KEY_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def replace(certificate: Path, private_key: Path, chain: bytes, key: bytes) -> None:
    """Put a certificate, with its chain, and its key in the place of the old ones.

    Both are on disk before the first takes its place, so there is but a moment between the two; a
    service that looks in between waits until they rest.
    """
    with (
        drafted(private_key, key, mode=0o600) as new_key,
        drafted(certificate, chain, mode=0o644) as new_certificate,
    ):
        new_key.replace(private_key)
        new_certificate.replace(certificate)
    for folder in {private_key.parent, certificate.parent}:
        sync(folder)
