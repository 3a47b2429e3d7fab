"""The TLS context, and what a client can be bound to."""

from __future__ import annotations

import datetime
import hashlib
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from mailstack.auth.binding import end_point_of
from mailstack.errors import BadSetting
from mailstack.service.contexts import TlsContext
from tests.service.test_alpn import shake_hands

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
NOW = datetime.datetime.now(datetime.UTC)


def certificate(folder: Path, key, algorithm) -> tuple[Path, bytes]:
    """A PEM file with certificate and key, and the certificate in DER."""
    made = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + datetime.timedelta(days=1))
        .sign(key, algorithm)
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return path, made.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [(hashes.SHA256(), "sha256"), (hashes.SHA384(), "sha384"), (hashes.SHA512(), "sha512")],
)
def test_the_end_point_is_hashed_as_the_certificate_is(tmp_path, algorithm, name):  # RFC 5929 §4.1
    path, der = certificate(tmp_path, ec.generate_private_key(ec.SECP256R1()), algorithm)
    context = TlsContext(path, path, channel_binding=True)()
    assert context is not None
    assert end_point_of(context) == hashlib.new(name, der).digest()


def test_an_end_point_is_never_hashed_by_sha1(tmp_path, monkeypatch):  # RFC 5929 §4.1
    from mailstack.auth import binding

    path, der = certificate(tmp_path, rsa.generate_private_key(65537, 2048), hashes.SHA256())

    class OldCertificate:
        signature_hash_algorithm = hashes.SHA1()

        def public_bytes(self, _encoding) -> bytes:
            return der

    monkeypatch.setattr(x509, "load_pem_x509_certificates", lambda _octets: [OldCertificate()])
    assert binding.end_point(path) == hashlib.sha256(der).digest()


def test_a_certificate_without_a_hash_cannot_be_bound_to(tmp_path):
    path, _ = certificate(tmp_path, ed25519.Ed25519PrivateKey.generate(), None)
    with pytest.raises(BadSetting, match="no hash of its own"):
        TlsContext(path, path, channel_binding=True)
    assert TlsContext(path, path)() is not None


def test_nothing_is_bound_unless_asked_for(tmp_path):
    path, _ = certificate(tmp_path, ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    context = TlsContext(path, path)()
    assert context is not None
    assert end_point_of(context) is None
    assert end_point_of(ssl.create_default_context()) is None


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("ECDHE+AESGCM", "TLS_AES_128_GCM_SHA256"),  # and all of TLS 1.3
        ("ECDHE+AESGCM:@SECLEVEL=4", "TLS_AES_256_GCM_SHA384"),  # 192 bits and more
    ],
)
def test_of_strong_ciphers_the_cheaper_one_is_chosen(tmp_path, offered, chosen):
    path, _ = certificate(tmp_path, ec.generate_private_key(ec.SECP521R1()), hashes.SHA512())
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_ciphers(offered)
    here, _ = shake_hands(TlsContext(path, path)(), client)
    assert here.cipher()[0] == chosen


def test_so_it_is_in_tls_1_2(tmp_path):
    path, _ = certificate(tmp_path, ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    here, _ = shake_hands(TlsContext(path, path)(), client)
    assert here.cipher()[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"


def test_a_file_that_is_replaced_between_two_looks_is_told_of_like_any_other(tmp_path):
    class Gone(type(Path())):
        def read_bytes(self) -> bytes:
            raise FileNotFoundError(2, "No such file or directory")

    path, _ = certificate(tmp_path, ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    with pytest.raises(BadSetting, match="cannot be used"):
        TlsContext(Gone(path), path)
