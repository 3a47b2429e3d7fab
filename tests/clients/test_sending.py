"""What real programs send is what we keep, octet for octet below our own trace fields."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.clients import senders
from tests.clients.conftest import Office
from tests.support import postfix, reference
from tests.support.appliance import SMTP_PORT, Appliance, retrieved, send
from tests.support.postgresql import temporary_directory
from tests.support.samples import Sample, corpus, everything, hard

pytestmark = pytest.mark.clients

needs_postfix = pytest.mark.skipif(postfix.available() is not None, reason=postfix.available() or "")


@pytest.mark.parametrize("account", ["smtplib", "socket"])
def test_python(office: Office, account: str) -> None:
    assert len(office.maildrop(account)) == len(everything())


@needs_postfix
def test_postfix(office: Office) -> None:
    with temporary_directory() as folder:
        accepted = office.receive("postfix", senders.by_postfix(folder), everything())

    assert len(office.maildrop("postfix")) == len(everything())
    bodies = {_body(reference.unstuffed(data)) for data in accepted.values()}
    # Postfix writes a header and a blank line where it misses one; all other bodies it passes on.
    altered = [each.name for each in everything() if _body(senders.with_crlf(each.content)) not in bodies]
    assert len(altered) < len(everything()) / 10, altered


@needs_postfix
def test_postfix_over_tls(appliance: Appliance) -> None:
    appliance.start()
    own = (appliance.host, SMTP_PORT + 1)
    relay = (appliance.host, SMTP_PORT)
    with (
        temporary_directory() as folder,
        postfix.running(folder, listen=own, relay=relay, more="smtp_tls_security_level = encrypt") as conf,
    ):
        senders.by_smtplib([Sample("8-bit", b"Subject: \xfc\r\n\r\n.\xff\r\n")], "anna", own)
        postfix.wait_for_empty_queue(conf)

    message = retrieved(appliance.pop3("anna"), 1)
    _, _, content = reference.below_trace(message)
    assert content.endswith(b"Subject: \xfc\r\n\r\n.\xff\r\n")
    assert re.search(rb"with ESMTPS\s+\(TLSv1\.3 ", message)


@pytest.mark.skipif(shutil.which("swaks") is None, reason="swaks is not installed")
def test_swaks(office: Office) -> None:
    some = (*corpus()[::10], *hard())

    office.receive("swaks", senders.by_swaks, some)

    assert len(office.maildrop("swaks")) == len(some)


def test_smtplib_over_tls(appliance: Appliance) -> None:
    appliance.start()
    with appliance.smtp() as connection:
        connection.starttls(context=appliance.tls_context())
        connection.ehlo()
        for sample in hard():
            code, _ = send(connection, senders.with_crlf(sample.content), "anna")
            assert code == 250

    session = appliance.pop3("anna", tls=True)
    for number, sample in enumerate(hard(), start=1):
        message = retrieved(session, number)
        _, _, content = reference.below_trace(message)
        # smtplib ends even an empty message with a line end.
        sent = reference.canonical(senders.with_crlf(sample.content)) or b"\r\n"
        assert content == reference.with_its_header(sent).content, sample.name
        assert re.search(rb"with ESMTPS\s+\(TLSv1\.3 ", message)


def _body(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
