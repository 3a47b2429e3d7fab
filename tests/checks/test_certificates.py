"""What is made of the certificate of the settings: its time, its names, its chain, its key."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mailstack.checks import judge_certificate
from mailstack.checks.facts import Facts, Service
from mailstack.checks.finding import Level
from mailstack.checks.probes import certificate
from mailstack.service.tls import write_self_signed
from mailstack.settings import Settings
from tests.checks.samples import HOST, levels


def seen_certificate(folder: Path, host: str = HOST, *, roots: Path = certificate.ROOTS) -> Facts:
    found, problem = certificate.look(
        folder / "c.pem", folder / "k.pem", host, datetime.now(UTC), roots=roots
    )
    return Facts(datetime.now(UTC), Settings(hostname=host), certificate=found, certificate_problem=problem)


def test_a_self_signed_certificate_is_good_and_could_be_better(tmp_path: Path) -> None:
    write_self_signed(tmp_path / "c.pem", tmp_path / "k.pem", HOST)
    facts = seen_certificate(tmp_path)
    for judge in (judge_certificate.validity, judge_certificate.names, judge_certificate.key):
        assert levels(judge, facts) == [Level.FINE]
    assert levels(judge_certificate.chain, facts) == [Level.ADVICE]
    other = replace(facts, settings=Settings(hostname="mx.example.org"))
    assert levels(judge_certificate.names, other) == [Level.WRONG]


@pytest.mark.parametrize(
    ("left", "level", "stage"),
    [
        (timedelta(days=30), Level.FINE, ""),
        (timedelta(days=14, hours=1), Level.FINE, ""),
        (timedelta(days=13), Level.WARNING, "14"),
        (timedelta(days=6), Level.WARNING, "7"),
        (timedelta(hours=5), Level.WARNING, "1"),
        (timedelta(hours=-5), Level.WRONG, ""),
    ],
)
def test_the_end_of_a_certificate_is_told_from_fourteen_days_before(
    tmp_path: Path, left: timedelta, level: Level, stage: str
) -> None:
    write_self_signed(tmp_path / "c.pem", tmp_path / "k.pem", HOST)
    facts = seen_certificate(tmp_path)
    assert facts.certificate is not None
    (found,) = judge_certificate.validity(replace(facts, now=facts.certificate.standing.not_after - left))
    assert (found.level, found.stage) == (level, stage)


def issued(folder: Path, *, with_chain: bool) -> None:
    """A certificate that `roots.pem` vouches for through one between."""
    now = datetime.now(UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    made = []
    for number, key in enumerate(keys):
        issuer = max(0, number - 1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(number))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=60))
            .add_extension(x509.BasicConstraints(ca=number < 2, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if number:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[issuer].public_key()), critical=False
            )
        if number < 2:
            builder = builder.add_extension(_CA_USAGE, critical=True)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
            )
        made.append(builder.sign(keys[issuer], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (folder / "roots.pem").write_bytes(made[0])
    (folder / "c.pem").write_bytes(made[2] + made[1] if with_chain else made[2])
    (folder / "k.pem").write_bytes(
        keys[2].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (folder / "k.pem").chmod(0o600)


def _name(number: int) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"number {number}")])


_CA_USAGE: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@pytest.mark.parametrize(("with_chain", "level"), [(True, Level.FINE), (False, Level.WARNING)])
def test_a_chain_has_to_be_whole(tmp_path: Path, with_chain: bool, level: Level) -> None:
    issued(tmp_path, with_chain=with_chain)
    facts = seen_certificate(tmp_path, roots=tmp_path / "roots.pem")
    assert levels(judge_certificate.chain, facts) == [level]
    unknown_issuer = seen_certificate(tmp_path, roots=tmp_path / "c.pem")
    assert levels(judge_certificate.names, unknown_issuer) == [Level.FINE]


def test_a_key_of_another_certificate_or_that_all_can_read_is_told(tmp_path: Path) -> None:
    write_self_signed(tmp_path / "c.pem", tmp_path / "k.pem", HOST)
    (tmp_path / "k.pem").chmod(0o644)
    assert levels(judge_certificate.key, seen_certificate(tmp_path)) == [Level.WARNING]
    write_self_signed(tmp_path / "other.pem", tmp_path / "k.pem", HOST)
    assert levels(judge_certificate.key, seen_certificate(tmp_path)) == [Level.WRONG]


def test_files_that_hold_no_certificate_are_told_and_missing_ones_are_made_at_the_start(
    tmp_path: Path,
) -> None:
    assert levels(judge_certificate.validity, seen_certificate(tmp_path)) == [Level.UNKNOWN]
    (tmp_path / "c.pem").write_text("nothing")
    assert levels(judge_certificate.validity, seen_certificate(tmp_path)) == [Level.WRONG]


def test_a_certificate_that_is_not_shown_takes_a_reload_of_the_services_alone(tmp_path: Path) -> None:
    write_self_signed(tmp_path / "c.pem", tmp_path / "k.pem", HOST)
    facts = replace(seen_certificate(tmp_path), service=Service((), (), None, {"[::]:25": "00"}))
    (found,) = judge_certificate.served(facts)
    # Sockets, timers and the target, which mailstack* names, too, refuse one.
    assert found.mend.startswith("systemctl reload 'mailstack@*';")
