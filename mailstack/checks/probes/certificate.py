"""Reads the certificate of the settings, and what it would be worth to a stranger."""

from __future__ import annotations

import hashlib
import re
import stat
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from mailstack.certificates import said_by
from mailstack.checks.facts import Certificate, Unseen

ROOTS: Final = Path("/etc/ssl/certs/ca-certificates.crt")
"""What Debian's package ca-certificates makes."""

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def look(
    file: Path, private_key: Path, host: str, at: datetime, *, roots: Path = ROOTS
) -> tuple[Certificate | None, str]:
    """The certificate, or why it cannot be used; neither where neither file is there."""
    try:
        if not file.exists() and not private_key.exists():
            return None, ""
        loaded = x509.load_pem_x509_certificates(file.read_bytes())
    except PermissionError as error:
        return None, _unseen(file, error)
    except OSError as error:
        return None, f"{file} cannot be read: {(error.strerror or str(error)).lower()}"
    except ValueError:
        return None, f"{file} holds no certificate"
    try:
        key = serialization.load_pem_private_key(private_key.read_bytes(), password=None)
        is_private = not private_key.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH)
    except PermissionError as error:
        return None, _unseen(private_key, error)
    except OSError as error:
        return None, f"{private_key} cannot be read: {(error.strerror or str(error)).lower()}"
    except (ValueError, TypeError):
        return None, f"{private_key} holds no private key, or one with a password"
    leaf, others = loaded[0], loaded[1:]
    standing = said_by(leaf)
    seen = Certificate(
        file,
        standing,
        chain_problem=_chain_problem(leaf, others, next(iter(standing.hosts), host), at, roots),
        key_fits=_public(key.public_key()) == _public(leaf.public_key()),
        key_is_private=is_private,
        association=associations(leaf),
        fingerprint=hashlib.sha256(leaf.public_bytes(serialization.Encoding.DER)).hexdigest(),
        issuer_associations=tuple(associations(each) for each in others),
    )
    return seen, ""


def _unseen(file: Path, error: PermissionError) -> Unseen:
    return Unseen(f"{file} cannot be read by this user: {(error.strerror or str(error)).lower()}")


def associations(certificate: x509.Certificate) -> dict[tuple[int, int], str]:
    """What TLSA records of each selector and matching type hold for it (RFC 6698 §2.1)."""
    selected = {
        0: certificate.public_bytes(serialization.Encoding.DER),
        1: _public(certificate.public_key()),
    }
    matched = {}
    for selector, octets in selected.items():
        matched[selector, 0] = octets.hex()
        matched[selector, 1] = hashlib.sha256(octets).hexdigest()
        matched[selector, 2] = hashlib.sha512(octets).hexdigest()
    return matched


def _public(key: object) -> bytes:
    octets: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return octets


def _chain_problem(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], host: str, at: datetime, roots: Path
) -> str:
    try:
        trusted = _authorities(roots.read_bytes())
    except OSError:
        return f"this machine knows no authorities; {roots} comes with the package ca-certificates"
    if not trusted:
        return f"{roots} names no authority; install the package ca-certificates again"
    # Its name and its time are judged by themselves; here it is the way to a root that counts.
    moment = min(max(at, leaf.not_valid_before_utc), leaf.not_valid_after_utc)
    try:
        builder = PolicyBuilder().store(Store(trusted)).time(moment)
        builder.build_server_verifier(x509.DNSName(host.removeprefix("*."))).verify(leaf, list(others))
    except (VerificationError, ValueError) as error:
        return str(error)
    return ""


def _authorities(pem: bytes) -> list[x509.Certificate]:
    """Every root that can be read; some old ones break today's rules and are no reason to lose the others."""
    found = []
    for block in _PEM.findall(pem):
        with suppress(ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(x509.load_pem_x509_certificate(block))
    return found
