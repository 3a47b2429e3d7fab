"""What a certificate file tells, and when a person should hear of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailstack import certificates
from mailstack.certificates import Standing
from mailstack.errors import BadSetting
from mailstack.service import tls


@pytest.fixture
def made(tmp_path: Path) -> Path:
    certificate = tmp_path / "certificate.pem"
    tls.write_self_signed(certificate, tmp_path / "private-key.pem", "mail.example.org")
    return certificate


def lasting(**until_end: float) -> Standing:
    now = datetime.now(UTC)
    names = ("mail.example.org", "*.example.net")
    return Standing(names, (), "CN=somebody", now - timedelta(days=60), now + timedelta(**until_end), False)


def test_a_file_tells_whom_it_is_for_and_that_nobody_has_vouched_for_it(made: Path) -> None:
    found = certificates.standing(made)
    assert found.names == ("mail.example.org", "localhost", "127.0.0.1", "::1")
    assert found.self_signed
    assert found.days_left(datetime.now(UTC)) in (tls.VALID_DAYS - 1, tls.VALID_DAYS)
    assert certificates.trouble(found, "mail.example.org") is None


@pytest.mark.parametrize(
    ("until_end", "host", "said"),
    [
        ({"days": 15}, "mail.example.org", None),
        ({"days": 15}, "MX.example.net", None),
        ({"days": 13, "hours": 12}, "mail.example.org", "ends in 13 days"),
        ({"hours": 25}, "mail.example.org", "ends in 1 day,"),
        ({"hours": 3}, "mail.example.org", "ends today"),
        ({"seconds": -1}, "mail.example.org", "ended on"),
        ({"days": 90}, "example.net", "not for example.net"),
        ({"days": 90}, "a.b.example.net", "not for a.b.example.net"),
    ],
)
def test_two_weeks_before_the_end_it_is_worth_a_sentence(
    until_end: dict[str, float], host: str, said: str | None
) -> None:
    told = certificates.trouble(lasting(**until_end), host)
    assert (told is None) if said is None else (told is not None and said in told)


def test_a_certificate_from_the_future_is_a_wrong_clock() -> None:
    found = lasting(days=90)
    assert "clock" in str(certificates.trouble(found, "mail.example.org", found.not_before - timedelta(1)))


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_no_certificate_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "certificate.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadSetting, match=str(file)):
        certificates.standing(file)


def test_the_first_start_makes_one_and_no_other_start_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = tmp_path / "tls" / "certificate.pem", tmp_path / "tls" / "private-key.pem"
    tls.ensure(certificate, key, "mail.example.org")
    made = certificate.read_bytes()
    tls.ensure(certificate, key, "mail.example.org")
    assert certificate.read_bytes() == made
    assert [record.getMessage() for record in caplog.records] == ["self-signed certificate made"]
    assert certificate.parent.stat().st_mode & 0o777 == 0o700
