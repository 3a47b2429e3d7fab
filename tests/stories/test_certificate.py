"""The certificate of a running server: made at the first start, replaced without anybody losing a session."""

from __future__ import annotations

import re
import subprocess

import pytest

from mailstack.service.tls import write_self_signed
from tests.support.appliance import POP3_PORT, POP3S_PORT, SMTP_PORT, Appliance, wait_until


def subject(appliance: Appliance, port: int, *, starttls: str | None = None) -> str:
    """The name in the certificate that `openssl s_client` is shown."""
    command = ["openssl", "s_client", "-connect", f"{appliance.host}:{port}"]
    shown = subprocess.run(
        [*command, *(("-starttls", starttls) if starttls else ())],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
    found = re.search(r"^subject=.*?CN\s*=\s*(\S+)", shown, re.MULTILINE)
    assert found, shown
    return found[1]


def subjects(appliance: Appliance) -> set[str]:
    return {
        subject(appliance, SMTP_PORT, starttls="smtp"),
        subject(appliance, POP3_PORT, starttls="pop3"),
        subject(appliance, POP3S_PORT),
    }


def test_a_new_certificate_is_shown_at_once_and_sessions_go_on(appliance: Appliance) -> None:
    appliance.start()
    session = appliance.pop3("anna", tls=True)
    with appliance.smtp() as sender:
        sender.starttls(context=appliance.tls_context())
        write_self_signed(appliance.certificate, appliance.folder / "private_key.pem", "new.example.test")
        wait_until(lambda: subjects(appliance) == {"new.example.test"}, what="the new certificate is shown")
        assert session.noop().startswith(b"+OK")
        assert sender.noop()[0] == 250
    assert session.quit().startswith(b"+OK")
    assert appliance.said().count('event="certificate reloaded"') == 1


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_without_a_certificate_the_first_start_makes_one_and_says_so(
    appliance: Appliance, workers: tuple[str, ...]
) -> None:
    text = appliance.config.read_text()
    appliance.config.write_text(re.sub(r"\[tls\]\ncertificate.*\nprivate_key.*\n", "", text))
    appliance.start(*workers)
    assert subjects(appliance) == {"mail.example.test"}
    made = (appliance.state_dir / "tls" / "certificate.pem").read_bytes()
    assert appliance.said().count('event="self-signed certificate made"') == 1
    appliance.stop()
    appliance.start(*workers)
    assert (appliance.state_dir / "tls" / "certificate.pem").read_bytes() == made
    assert appliance.said().count('event="self-signed certificate made"') == 1
