"""The certificate that `init` makes."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mailstack.service.tls import write_self_signed


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "private-key.pem"
    write_self_signed(certificate, key, "mail.example.org")
    return certificate, key


def test_it_names_the_host_and_loopback(files: tuple[Path, Path]) -> None:
    made = x509.load_pem_x509_certificate(files[0].read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mail.example.org", "localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("127.0.0.1"), ip_address("::1")]
    key = made.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)


def test_it_is_valid_now_and_for_years(files: tuple[Path, Path]) -> None:
    made = x509.load_pem_x509_certificate(files[0].read_bytes())
    now = datetime.now(UTC)
    assert made.not_valid_before_utc < now - timedelta(minutes=30)
    assert made.not_valid_after_utc > now + timedelta(days=3000)


def test_the_key_is_its_owners_alone(files: tuple[Path, Path]) -> None:
    assert stat.S_IMODE(files[1].stat().st_mode) == 0o600
    assert sorted(each.name for each in files[0].parent.iterdir()) == ["certificate.pem", "private-key.pem"]


@pytest.mark.parametrize("name", ["mail.example.org", "localhost", "127.0.0.1", "::1"])
def test_a_client_that_trusts_it_is_content(files: tuple[Path, Path], name: str) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*files)
    client = ssl.create_default_context(cafile=str(files[0]))
    assert _handshake(client, server, name) == "TLSv1.3"


def test_a_client_that_does_not_is_not(files: tuple[Path, Path]) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*files)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(ssl.create_default_context(), server, "mail.example.org")


def test_a_long_host_name_has_a_certificate_too(tmp_path: Path) -> None:
    name = ".".join(["a" * 60] * 4)
    write_self_signed(tmp_path / "c.pem", tmp_path / "k.pem", name)
    made = x509.load_pem_x509_certificate((tmp_path / "c.pem").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName)[0] == name


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> str | None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname=name)
    two = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (one, two, one, two):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return one.version()
