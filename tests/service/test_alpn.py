"""ALPN (RFC 7301): a client that wants another protocol is refused, one that wants none is not."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.service.alpn import offered
from mailstack.service.contexts import TlsContext
from mailstack.service.tls import write_self_signed


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    write_self_signed(folder / "certificate.pem", folder / "key.pem", "localhost")
    return folder / "certificate.pem", folder / "key.pem"


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after the handshake, with no network between them; the server's ending comes first."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(to_server, to_client, server_side=True)
    there = client.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
    for _ in range(10):
        for end in (there, here):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    here.read, there.read  # noqa: B018 - both are whole
    return here, there


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("protocols", "chosen"),
    [
        (None, None),
        (["pop3"], "pop3"),
        (["imap", "pop3"], "pop3"),
        (["http/1.1"], False),
        (["h2", "imap"], False),
    ],
)
def test_only_a_foreign_protocol_is_refused(files, version, protocols, chosen) -> None:
    server = TlsContext(*files, protocol="pop3")()
    client = ssl.create_default_context(cafile=str(files[0]))
    client.minimum_version = client.maximum_version = version
    if protocols:
        client.set_alpn_protocols(protocols)
    assert server is not None
    if chosen is False:
        with pytest.raises(ssl.SSLError, match=r"(?i)application.protocol|callback"):
            shake_hands(server, client)
    else:
        here, there = shake_hands(server, client)
        assert here.selected_alpn_protocol() == there.selected_alpn_protocol() == chosen
        assert here.context is not server  # what follows goes without callbacks


def test_smtp_has_no_protocol_to_insist_on(files) -> None:
    server = TlsContext(*files)()
    client = ssl.create_default_context(cafile=str(files[0]))
    client.set_alpn_protocols(["http/1.1"])
    assert server is not None
    assert shake_hands(server, client)[0].selected_alpn_protocol() is None


def test_octets_that_only_look_like_the_extension_refuse_nobody(files) -> None:
    server, client = TlsContext(*files, protocol="pop3")(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(to_server, to_client, server_side=True)
    there = client.wrap_bio(to_client, to_server, server_hostname="sixteen.example.")  # its length is 0x0010
    with pytest.raises(ssl.SSLWantReadError):
        there.do_handshake()
    hello = to_server.read()
    assert b"\x00\x10" in hello
    to_server.write(hello)
    with pytest.raises(ssl.SSLWantReadError):  # and no refusal
        here.do_handshake()
    assert here.context is not server


@given(st.binary(max_size=120))
def test_a_broken_hello_breaks_nothing(octets: bytes) -> None:
    assert offered(octets) is None or isinstance(offered(octets), list)
