"""A certificate from an authority: issued, renewed, and shown without anybody losing a session."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack import certificates
from tests.stories.test_certificate import subject
from tests.support import pebble
from tests.support.appliance import HOSTNAME, SMTP_PORT, Appliance, wait_until
from tests.support.pebble import Pebble


@pytest.fixture
def authority(appliance: Appliance, tmp_path: Path) -> Iterator[Pebble]:
    """An authority that the appliance, which has no certificate of its own yet, is to ask."""
    with pebble.running(tmp_path / "pebble", host=appliance.host) as running:
        text = re.sub(r"\[tls\]\ncertificate.*\nprivate_key.*\n", "", appliance.config.read_text())
        listen = f"{appliance.host}:{running.http_port}"
        text += f'\n[acme]\ndirectory = "{running.directory}"\nlisten = ["{listen}"]\n'
        appliance.config.write_text(text)
        yield running


def certificate(appliance: Appliance, authority: Pebble, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mailstack", "--config", str(appliance.config), "certificate"]
    environ = {**os.environ, "REQUESTS_CA_BUNDLE": str(authority.trust)}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environ, timeout=100)


def issuer(appliance: Appliance) -> str:
    """Who has issued the certificate that `openssl s_client` is shown."""
    command = ["openssl", "s_client", "-connect", f"{appliance.host}:{SMTP_PORT}", "-starttls", "smtp"]
    shown = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    found = re.search(r"^issuer=(.*)$", shown.stdout, re.MULTILINE)
    assert found, shown.stdout
    return found[1]


def serial(file: Path) -> str:
    return subprocess.run(
        ["openssl", "x509", "-in", str(file), "-noout", "-serial"], capture_output=True, text=True, check=True
    ).stdout


def test_issued_shown_and_renewed_while_a_session_stays(appliance: Appliance, authority: Pebble) -> None:
    appliance.start()
    folder = appliance.state_dir / "tls"
    file = folder / "certificate.pem"
    assert subject(appliance, SMTP_PORT, starttls="smtp") == HOSTNAME
    assert "Pebble" not in issuer(appliance)
    session = appliance.pop3("anna")
    done = certificate(appliance, authority, "obtain", "--email", "admin@example.test")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: "Pebble" in issuer(appliance), what="the new certificate is shown")
    assert session.noop().startswith(b"+OK")
    found = certificates.standing(file)
    assert (found.names, found.self_signed) == ((HOSTNAME,), False)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}
    assert modes.pop("certificate.pem") == 0o644
    assert set(modes.values()) == {0o600}
    assert set(modes) >= {"private-key.pem", "account-key.pem"}

    first, key = serial(file), (folder / "account-key.pem").read_bytes()
    assert "nothing is done" in certificate(appliance, authority, "renew").stdout
    assert serial(file) == first
    done = certificate(appliance, authority, "renew", "--force")
    assert done.returncode == 0, done.stderr
    assert serial(file) != first
    assert (folder / "account-key.pem").read_bytes() == key
    wait_until(
        lambda: appliance.said().count('event="certificate reloaded"') == 2, what="the renewed one is used"
    )
    assert session.noop().startswith(b"+OK")
    assert session.quit().startswith(b"+OK")
    shown = certificate(appliance, authority, "show", "--json")
    assert json.loads(shown.stdout)["trouble"] is None


def test_what_the_authority_cannot_check_is_told_in_its_words(
    appliance: Appliance, authority: Pebble
) -> None:
    appliance.start()
    before = (appliance.state_dir / "tls" / "certificate.pem").read_bytes()
    text = appliance.config.read_text()
    appliance.config.write_text(re.sub(r'(\[acme\].*listen = \["[^:]*:)\d+', r"\g<1>0", text, flags=re.S))
    done = certificate(appliance, authority, "obtain")
    assert done.returncode == os.EX_UNAVAILABLE
    assert f"could not check {HOSTNAME}: {HOSTNAME}: " in done.stderr
    assert "Traceback" not in done.stderr
    assert (appliance.state_dir / "tls" / "certificate.pem").read_bytes() == before


def test_what_somebody_else_looks_after_is_left_alone(appliance: Appliance, authority: Pebble) -> None:
    appliance.start()
    assert certificate(appliance, authority, "obtain").returncode == 0
    file = appliance.state_dir / "tls" / "certificate.pem"
    (file.parent / "obtained").unlink()  # as if certbot had put it there
    before = file.read_bytes()
    renewed = certificate(appliance, authority, "renew", "--force")
    assert (renewed.returncode, "nothing is done" in renewed.stdout) == (0, True)
    refused = certificate(appliance, authority, "obtain")
    assert (refused.returncode, "--force takes its place" in refused.stderr) == (os.EX_DATAERR, True)
    assert file.read_bytes() == before
    assert certificate(appliance, authority, "obtain", "--force").returncode == 0
    assert file.read_bytes() != before
