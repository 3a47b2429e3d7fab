"""Who may connect when there is no room."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Callable

import pytest

from mailstack import crowd
from mailstack.auth.logins import Logins
from mailstack.settings import Pop3
from tests.pop3.transcript import NAME, SECRET

INITIAL = b64encode(f"\0{NAME}\0{SECRET}".encode()).decode()
FULL = b"-ERR [SYS/TEMP] too many connections, try again later\r\n"


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how long nothing may be said while others wait; a long time, at first."""

    def seconds(number: float) -> None:
        monkeypatch.setattr(crowd, "SILENT_SECONDS", number)

    seconds(60)
    return seconds


async def refused(rig) -> None:
    client = await rig.connect_silently()
    assert await client.rest() == FULL


async def test_who_has_not_logged_in_makes_room_for_a_newcomer(start, patience):
    async with start(max_connections=2) as rig:
        reader, silent = await rig.log_in(), await rig.connect()
        await refused(rig)
        assert rig.store.counts["pop3_connections_refused"] == 1
        patience(0)
        await asyncio.sleep(0.01)
        newcomer = await rig.connect()
        assert await silent.ended() == b""
        await rig.until_sessions(2)
        assert (await newcomer.ask(b"CAPA")).startswith(b"+OK")
        await asyncio.sleep(0.01)
        last = await rig.connect()
        assert await newcomer.ended() != FULL
        assert await reader.ask(b"NOOP") == b"+OK\r\n", "who has logged in may be silent"
        assert (await last.log_in()).startswith(b"-ERR [IN-USE] ")


async def test_octets_of_a_line_that_does_not_end_are_silence(start, patience):
    patience(0.2)
    async with start(max_connections=1) as rig:
        trickling = await rig.connect()
        for _ in range(8):
            trickling.send(b"N")
            await asyncio.sleep(0.05)
        newcomer = await rig.connect()
        assert await newcomer.ask(b"NOOP") == b"-ERR log in first\r\n"
        await trickling.ended()


@pytest.mark.parametrize(
    "last_step",
    [f"USER {NAME}\r\nPASS {SECRET}\r\n", f"AUTH PLAIN {INITIAL}\r\n"],
    ids=["PASS", "AUTH"],
)
async def test_whose_login_is_under_way_makes_no_room(start, patience, monkeypatch, last_step):
    """A device that nobody knows waits for seconds while somebody guesses, and not by its own choice."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    log_in = Logins.log_in

    async def slow(self, *words, **options):
        begun.set()
        await go_on.wait()
        return await log_in(self, *words, **options)

    monkeypatch.setattr(Logins, "log_in", slow)
    async with start(max_connections=2) as rig:
        waiting = await rig.connect()
        waiting.send(last_step.encode())
        await begun.wait()
        silent = await rig.connect()
        patience(0)
        await asyncio.sleep(0.01)
        newcomer = await rig.connect()
        assert await silent.ended() == b""
        patience(60)
        go_on.set()
        while (line := await waiting.line()) == b"+OK password please\r\n":
            pass
        assert line == b"+OK 0 messages (0 octets)\r\n"
        assert await newcomer.ask(b"NOOP") == b"-ERR log in first\r\n"


@pytest.mark.parametrize("implicit_tls", [True, False])
async def test_who_does_not_go_on_with_the_handshake_makes_room(
    start, server_context, client_context, patience, implicit_tls
):
    async with start(tls=server_context, implicit_tls=implicit_tls, max_connections=1) as rig:
        stalling = await (rig.connect_silently() if implicit_tls else rig.connect())
        if not implicit_tls:
            await stalling.ask(b"STLS")
        stalling.send(b"\x16\x03\x01")
        patience(-1)
        newcomer = await rig.connect(client_context if implicit_tls else None)
        assert await newcomer.ask(b"NOOP") == b"-ERR log in first\r\n"
        await stalling.ended()
        await rig.until_sessions(1)


async def test_one_too_many_under_tls_is_cut_before_the_handshake(
    start, server_context, client_context, patience
):
    async with start(tls=server_context, implicit_tls=True, max_connections=1) as rig:
        first = await rig.log_in(client_context)
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await rig.connect_silently(client_context)
        first.writer.transport.abort()
        await rig.until_sessions(0)
        await rig.log_in(client_context)


async def test_a_handshake_that_fails_takes_no_place_any_more(start, server_context, client_context):
    async with start(tls=server_context, implicit_tls=True, max_connections=1) as rig:
        plain = await rig.connect_silently()
        plain.send(b"QUIT\r\n")
        await plain.ended()
        await rig.log_in(client_context)


async def test_other_limits_hold_from_now_on(start, patience):
    async with start(max_connections=1) as rig:
        await rig.connect()
        await refused(rig)
        rig.listener.adopt(Pop3(max_connections=2))
        await rig.connect()
        await refused(rig)
