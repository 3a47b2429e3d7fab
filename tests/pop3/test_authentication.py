"""AUTH over sockets: SCRAM with another maker's client, channel binding, and who waits for whom."""

from __future__ import annotations

import asyncio
import base64
import ssl
import statistics
import time

import pytest
from scramp import ScramClient

from mailstack.auth import binding
from mailstack.auth.binding import BindingContext
from mailstack.pop3.authentication import LINE_OCTETS
from tests.pop3.rig import Client
from tests.pop3.transcript import NAME, SECRET


def in_base64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


async def scram(
    client: Client, mechanism: str = "SCRAM-SHA-256", *, secret: str = SECRET, bound=None
) -> bytes:
    """One exchange; the last line of the server."""
    half = ScramClient([mechanism], NAME, secret, channel_binding=bound)
    line = await client.ask(f"AUTH {mechanism} ".encode() + in_base64(half.get_client_first().encode()))
    if not line.startswith(b"+ "):
        return line
    half.set_server_first(base64.b64decode(line[2:]).decode())
    line = await client.ask(in_base64(half.get_client_final().encode()))
    if not line.startswith(b"+ "):
        return line
    half.set_server_final(base64.b64decode(line[2:]).decode())
    return await client.ask(b"")


async def test_the_name_whose_proof_was_refused_is_logged(start, caplog):
    caplog.set_level("INFO", logger="mailstack")
    async with start() as rig:
        client = await rig.connect()
        assert await scram(client, secret="wrong") == b"-ERR [AUTH] wrong name or password\r\n"
        await client.ask(b"QUIT")
        await rig.until_sessions(0)
    [fields] = [each.fields for each in caplog.records if each.getMessage() == "pop3.session"]
    assert (fields["refused"], fields["tried"]) == (1, NAME)


async def test_scram_needs_no_tls_and_tells_no_password(start):
    async with start() as rig:
        client = await rig.connect()
        assert await scram(client, secret="wrong") == b"-ERR [AUTH] wrong name or password\r\n"
        assert (await scram(client)).startswith(b"+OK 0 messages")
        assert await client.ask(b"STAT") == b"+OK 0 0\r\n"


async def test_the_log_tells_the_mechanism(start, caplog):
    caplog.set_level("INFO", logger="mailstack")
    async with start() as rig:
        for login in (b"AUTH PLAIN " + in_base64(f"\0{NAME}\0{SECRET}".encode()), None):
            client = await rig.connect()
            assert (await (client.ask(login) if login else scram(client))).startswith(b"+OK")
            await client.ask(b"QUIT")
            await rig.until_sessions(0)
    told = [record.fields for record in caplog.records if record.getMessage() == "pop3.session"]
    assert [fields["mechanism"] for fields in told] == ["PLAIN", "SCRAM-SHA-256"]
    assert SECRET not in str(told)


@pytest.fixture
def bound_context(certificate) -> BindingContext:
    context = BindingContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.end_point = binding.end_point(certificate[0])
    return context


@pytest.mark.parametrize("implicit_tls", [True, False])
async def test_plus_is_bound_to_the_certificate_that_the_client_saw(
    start, bound_context, client_context, implicit_tls
):  # RFC 5929 §4
    async with start(tls=bound_context, implicit_tls=implicit_tls) as rig:
        client = await rig.connect(client_context if implicit_tls else None)
        if not implicit_tls:
            assert b"PLUS" not in await client.body(b"CAPA")
            assert (await client.ask(b"STLS")).startswith(b"+OK")
            await client.start_tls(client_context)
        assert b"SASL SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\r\n" in await client.body(b"CAPA")
        seen = client.writer.get_extra_info("ssl_object")
        name = "tls-server-end-point"
        stranger = (name, b"another certificate")
        assert (await scram(client, "SCRAM-SHA-256-PLUS", bound=stranger)).startswith(b"-ERR [AUTH]")
        # scramp takes the hash of the certificate that was shown in this very handshake.
        assert (await scram(client, "SCRAM-SHA-256-PLUS", bound=(name, seen))).startswith(b"+OK")


async def test_a_response_may_be_as_long_as_12288_octets(start):
    async with start() as rig:
        client = await rig.connect()
        longest = in_base64(f"\0{NAME}\0".encode() + b"x" * 9000)
        assert len(longest) < LINE_OCTETS
        for response, said in ((longest, b"-ERR [AUTH]"), (b"A" * (LINE_OCTETS + 2), b"-ERR line too long")):
            assert await client.ask(b"AUTH PLAIN") == b"+ \r\n"
            assert (await client.ask(response)).startswith(said)
        assert (await client.log_in()).startswith(b"+OK")


async def test_an_endless_response_ends_the_session(start):
    async with start() as rig:
        client = await rig.connect()
        assert await client.ask(b"AUTH PLAIN") == b"+ \r\n"
        client.send(b"A" * 100_000)
        assert (await client.rest()).startswith(b"-ERR line too long")


async def test_a_session_is_served_at_once_while_others_guess(start):
    """Hashing is off the event loop: 20 failing logins keep nobody waiting."""
    async with start() as rig:
        mine = await rig.log_in()
        guessers = [await rig.connect() for _ in range(20)]
        for n, guesser in enumerate(guessers):
            guesser.send(f"USER guess{n}\r\nPASS wrong\r\n".encode())
        refused = asyncio.gather(*(guesser.line() for guesser in guessers))
        waits, worked = [], time.thread_time()
        for _ in range(50):
            began = time.monotonic()
            assert await mine.ask(b"NOOP") == b"+OK\r\n"
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.01)
        await refused
        assert all([(await guesser.line()).startswith(b"-ERR [AUTH]") for guesser in guessers])
        # On a busy machine a single answer may be late for reasons of others, so what is bounded is
        # the loop's own work: 20 hashes would be more than a second of it.
        assert time.thread_time() - worked < 0.5
        assert statistics.median(waits) < 0.5
