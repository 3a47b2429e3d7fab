"""How soon an honest newcomer is greeted while others attack: `python -m bench.greeting_under_attack`.

Starts a server in a temporary folder, lets another process hold a thousand idle connections and run
slowloris, ten thousand NOOPs, megabytes without a line end and broken TLS handshakes against it, and
measures from here how long a new client waits for the greeting and for the answer to its HELO.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from bench.ours import free_ports, made, served

IDLE = 1000
ATTACKERS = 5
"""Of each kind, beside the idle ones."""


async def silence(port: int) -> None:
    """Say nothing; whoever is sent away is back in half a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.read()
    writer.transport.abort()
    await asyncio.sleep(0.5)


async def slowloris(port: int) -> None:
    """An octet of a command now and then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for octet in b"EHLO slow.example" * 10_000:
        writer.write(bytes([octet]))
        await asyncio.sleep(0.05)
        if reader.at_eof():
            return


async def noops(port: int) -> None:
    """Ten thousand commands that lead nowhere."""
    await say(port, b"NOOP\r\n" * 10_000)


async def endless(port: int) -> None:
    """A megabyte without CRLF."""
    await say(port, b"x" * 1_000_000)


async def guesses(port: int) -> None:
    """Names that nobody has."""
    await say(port, b"HELO x\r\nMAIL FROM:<>\r\n" + b"RCPT TO:<guess@example.org>\r\n" * 1000)


async def handshakes(port: int) -> None:
    """STARTTLS, then no TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"EHLO x\r\n")
    await reader.readuntil(b"STARTTLS\r\n")
    writer.write(b"STARTTLS\r\n")
    await reader.readuntil(b"\r\n")
    writer.write(b"\x16\x03\x01\x02\x00" + b"\0" * 512)
    await reader.read()
    writer.transport.abort()


async def say(port: int, octets: bytes) -> None:
    """Send it all, and read until the server has enough of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    writer.write(octets)
    while await reader.read(1 << 16):
        pass
    writer.transport.abort()


ATTACKS: tuple[Callable[[int], Awaitable[None]], ...] = (slowloris, noops, endless, guesses, handshakes)


async def attack(port: int) -> None:
    """Attack until killed; `ready` on standard output once everybody is there."""

    async def again_and_again(once: Callable[[int], Awaitable[None]]) -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                await once(port)
            await asyncio.sleep(0.001)  # who is refused at once has no need to hurry either

    holding = [asyncio.create_task(again_and_again(silence)) for _ in range(IDLE)]
    await asyncio.sleep(3)
    print("ready", flush=True)
    await asyncio.gather(*holding, *(again_and_again(each) for each in ATTACKS for _ in range(ATTACKERS)))


async def newcomers(port: int, count: int) -> tuple[list[float], int]:
    """Milliseconds to greeting and HELO's answer, of those that were greeted; how many were not."""
    waits, refused = [], 0
    for _ in range(count):
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if (await reader.readline()).startswith(b"220 "):
            writer.write(b"HELO honest.example\r\n")
            assert (await reader.readline()).startswith(b"250 ")
            waits.append((time.perf_counter() - began) * 1000)
        else:
            refused += 1
        writer.transport.abort()
        await asyncio.sleep(0.05)
    return waits, refused


def processor_seconds(pid: int) -> float:
    """What a process has had of the processor so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def line(what: str, waits: list[float], refused: int) -> str:
    """The median, the 99th percentile and the worst."""
    waits = sorted(waits)
    if not waits:
        return f"{what:<26} nobody was greeted, {refused} were asked to come back"
    middle, late = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    return (
        f"{what:<26} {middle:7.1f} ms at the median, {late:7.1f} at p99, {waits[-1]:7.1f} at worst;"
        f" {len(waits)} greeted, {refused} asked to come back"
    )


def run() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--newcomers", type=int, default=200)
    parser.add_argument("--attack", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.attack:
        asyncio.run(attack(options.attack))
        return
    (port,) = free_ports(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        served(
            made(Path(folder, "mail"), ["u0"]),
            ("smtp",),
            listening={"MAILSTACK_SMTP__LISTEN": f"127.0.0.1:{port}", "MAILSTACK_LOG__LEVEL": "error"},
        ) as (pid,),
    ):
        print(line("in peace:", *asyncio.run(newcomers(port, options.newcomers))))
        command = [sys.executable, "-m", "bench.greeting_under_attack", "--attack", str(port)]
        attackers = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert attackers.stdout is not None
            assert attackers.stdout.readline() == "ready\n"
            began = processor_seconds(pid), time.monotonic()
            print(line("under attack:", *asyncio.run(newcomers(port, options.newcomers))))
            busy = (processor_seconds(pid) - began[0]) / (time.monotonic() - began[1])
            print(f"the server was busy for {busy:.0%} of that time")
        finally:
            attackers.kill()
            attackers.wait()
            if attackers.stdout is not None:
                attackers.stdout.close()


if __name__ == "__main__":
    run()
