"""Every transcript once more, over a socket and on the real store."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from mailstack.store.limits import Limits
from tests.pop3.rig import Client, Rig
from tests.pop3.transcript import Event, Step, Transcript, read_all, sized
from tests.support.transcripts import Names, mismatch

ALL = [transcript for transcript in read_all() if transcript.runs != "pure"]


def other_address() -> str | None:
    """An address of this machine that is not loopback, so that a password needs TLS."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return None if address.startswith("127.") else address


def is_about_no_tls(transcript: Transcript) -> bool:
    steps = transcript.steps
    return (
        transcript.channel != "loopback"
        or any(b"STLS" in b"".join([step.sent, *step.expected]) for step in steps)
        or any(step.event is Event.HALF_CLOSE for step in steps)  # TLS ends both ways at once
    )


def rules(transcript: Transcript) -> dict[str, Any]:
    """What the server of a transcript is told besides where it listens."""
    days = transcript.keep_days
    retention = Limits(
        keep_seconds=None if days is None else days * 86400, keep_messages=transcript.keep_messages
    )
    return {
        "login_delay_seconds": transcript.login_delay_seconds,
        "retention": retention,
        # The ten minutes of RFC 1939 §3 are over sooner here.
        **({"idle_seconds": 0.4} if transcript.runs == "sockets" else {}),
    }


@pytest.mark.parametrize("octets_at_once", [None, 1], ids=["whole", "octet-by-octet"])
@pytest.mark.parametrize("transcript", ALL, ids=str)
async def test_plain(transcript, octets_at_once, start, server_context, client_context):
    if transcript.runs == "whole" and octets_at_once:
        pytest.skip("what it shows depends on the packet")
    host = other_address() if transcript.channel == "clear" else "127.0.0.1"
    if host is None:
        pytest.skip("every address of this machine is loopback")
    implicit_tls = transcript.channel == "tls"
    async with start(tls=server_context, host=host, implicit_tls=implicit_tls, **rules(transcript)) as rig:
        await rig.deliver(*transcript.messages)
        context = client_context if implicit_tls else None
        await Play(rig, transcript, octets_at_once, context, client_context).run()


@pytest.mark.parametrize("transcript", [t for t in ALL if not is_about_no_tls(t)], ids=str)
async def test_tls(transcript, start, server_context, client_context):
    async with start(tls=server_context, implicit_tls=True, **rules(transcript)) as rig:
        await rig.deliver(*transcript.messages)
        await Play(rig, transcript, None, client_context, client_context).run()


class Play:
    """One transcript against one rig."""

    def __init__(self, rig: Rig, transcript: Transcript, octets_at_once, *contexts) -> None:
        self.rig = rig
        self.transcript = transcript
        self.octets_at_once = octets_at_once
        self.context, self.stls_context = contexts
        self.other: Client | None = None
        self.names = Names()

    async def run(self) -> None:
        client = await self.rig.connect(self.context)
        for step in self.transcript.steps:
            await self._send(client, step.sent)
            # A half-close has to come with what was sent, not after its answers.
            if step.event is Event.HALF_CLOSE:
                client.half_close()
            got = b"".join([await client.line() for _ in step.expected])
            if step.expected and (differs := mismatch(step.expected, got, self.names)):
                pytest.fail(f"{self.transcript}: after {step.sent!r}: {differs}")
            client = await self._event(client, step)
        await client.close()

    async def _send(self, client: Client, octets: bytes) -> None:
        if not octets:
            return  # a client that has gone can send nothing, not even that
        if self.octets_at_once is None:
            client.send(octets)
            return
        for at in range(0, len(octets), self.octets_at_once):
            if client.writer.transport.is_closing():
                return  # the server ended the session before it had read everything
            client.send(octets[at : at + self.octets_at_once])
            await asyncio.sleep(0)

    async def _event(self, client: Client, step: Step) -> Client:
        match step.event:
            case Event.TLS:
                await client.start_tls(self.stls_context)
            case Event.DROP:
                client.reset()
                await self.rig.until_sessions(0)
            case Event.AGAIN:
                return await self.rig.connect(self.context)
            case Event.CLOSED | Event.SILENCE:
                assert await client.rest() == b""
            case Event.DELIVERY:
                await self.rig.deliver(sized(99))
            case Event.LOCKED:
                self.other = await self.rig.log_in(self.context)
            case Event.UNLOCKED:
                assert (await self.other.ask(b"QUIT")).startswith(b"+OK")
            case Event.LEFT:
                assert await self.rig.messages() == step.value
            case Event.READ:
                await self.rig.until_sessions(0)
                assert await self.rig.read() == step.value
        return client
