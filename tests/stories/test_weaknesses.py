"""testssl.sh, which looks for weaknesses of TLS, finds nothing above "informational"."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from tests.support.appliance import POP3_PORT, POP3S_PORT, SMTP_PORT, Appliance

QUIET = {"OK", "INFO", "DEBUG"}

# What speaks of the machine that looks, or of a network that is not there, not of what is looked at.
NOT_OURS = {"engine_problem", "DNS_CAArecord", "scanTime"}

# Whether sessions are resumed is no weakness either way; under STARTTLS the program cannot always tell.
NOT_OURS |= {"sessionresumption_ticket", "sessionresumption_ID"}


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certified(appliance: Appliance, folder: Path) -> Path:
    """Give the appliance a certificate like one from a public authority; the authority's own."""
    now = datetime.now(UTC)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def signed(
        subject: str, public: ec.EllipticCurvePublicKey, days: int, *more: tuple[object, bool]
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("Test Root"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        for extension, critical in more:
            builder = builder.add_extension(extension, critical=critical)  # type: ignore[arg-type]
        return builder.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root = folder / "root.pem"
    may_sign = x509.BasicConstraints(ca=True, path_length=None)
    root.write_bytes(signed("Test Root", root_key.public_key(), 300, (may_sign, True)))
    status = x509.UniformResourceIdentifier("http://status.example.net/")
    lists = x509.DistributionPoint([status], None, None, None)
    leaf = signed(
        "localhost",
        key.public_key(),
        80,
        (x509.SubjectAlternativeName([x509.DNSName("localhost")]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.CRLDistributionPoints([lists]), False),
        (
            x509.AuthorityInformationAccess(
                [x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, status)]
            ),
            False,
        ),
    )
    appliance.certificate.write_bytes(leaf)
    (appliance.folder / "private_key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return root


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("starttls", "port"), [("smtp", SMTP_PORT), ("pop3", POP3_PORT), (None, POP3S_PORT)])
def test_nothing_is_found(appliance: Appliance, tmp_path: Path, starttls: str | None, port: int) -> None:
    root = certified(appliance, tmp_path)
    appliance.start()
    found = tmp_path / "found.json"
    command = ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--nodns", "min"]
    command += ["--ip", appliance.host, "--add-ca", str(root), "--jsonfile", str(found)]
    command += ["--starttls", starttls] if starttls else []
    command.append(f"localhost:{port}")
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=850)
    findings = json.loads(found.read_text())
    assert len(findings) > 60
    assert any(each["id"] == "TLS1_3" for each in findings)
    above = [
        (each["severity"], each["id"], each["finding"])
        for each in findings
        if each["severity"] not in QUIET and each["id"] not in NOT_OURS
    ]
    assert above == []
