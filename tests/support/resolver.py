"""A resolver of our own on loopback: unbound, which knows what a test tells it, and asks nobody."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import dns.exception
import dns.message
import dns.query

_SETTINGS = """
server:
    interface: 127.0.0.1@{port}
    directory: "{folder}"
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    logfile: "{folder}/log"
    do-daemonize: no
    num-threads: 1
    do-not-query-localhost: no
    access-control: 127.0.0.0/8 allow
    module-config: "{modules}"
{server}
remote-control:
    control-enable: no
{clauses}
"""

_UNSIGNED = """
    local-zone: "." static
{data}
"""

_ZONES = """
auth-zone:
    name: "."
    zonefile: "{folder}/root"
    for-downstream: no
    for-upstream: yes
auth-zone:
    name: "{name}"
    zonefile: "{folder}/zone"
    for-downstream: no
    for-upstream: yes
"""

_ROOT = """
. 60 IN SOA ns. hostmaster. 1 3600 600 86400 60
. 60 IN NS ns.
ns. 60 IN A 127.0.0.1
{name}. 60 IN NS ns.{name}.
ns.{name}. 60 IN A 127.0.0.1
"""


class Where(NamedTuple):
    """A network to run it in: the command that enters it, and what calls a function in it."""

    enter: tuple[str, ...]
    call: Callable[[Callable[[], None]], None]


HERE: Final = Where((), lambda function: function())


def available() -> str | None:
    """Why it cannot run here, or None where it can."""
    return None if shutil.which("unbound", path="/usr/sbin:/usr/bin") else "unbound is not installed"


@contextmanager
def running(
    folder: Path, lines: Sequence[str], *, where: Where = HERE, port: int | None = None
) -> Iterator[tuple[str, int]]:
    """A resolver to which the world is these records, in zone-file form; yields its address and port."""
    data = "\n".join(f"    local-data: '{line}'" for line in lines)
    server = _UNSIGNED.format(data=data)
    with _running(folder, server=server, modules="iterator", clauses="", where=where, port=port) as place:
        yield place


@contextmanager
def with_zone(folder: Path, name: str, zone: str, *, anchor: str = "") -> Iterator[tuple[str, int]]:
    """A resolver to which the world is one zone; it checks signatures if it is told whom to trust."""
    (folder / "root").write_text(_ROOT.format(name=name))
    (folder / "zone").write_text(zone)
    with _running(
        folder,
        server=f'    trust-anchor: "{anchor}"' if anchor else "",
        modules="validator iterator",
        clauses=_ZONES.format(name=name, folder=folder),
    ) as place:
        yield place


@contextmanager
def _running(
    folder: Path, *, server: str, modules: str, clauses: str, where: Where = HERE, port: int | None = None
) -> Iterator[tuple[str, int]]:
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    file = folder / "unbound.conf"
    file.write_text(
        _SETTINGS.format(port=port, folder=folder, server=server, modules=modules, clauses=clauses)
    )
    process = subprocess.Popen(
        [*where.enter, "/usr/sbin/unbound", "-d", "-c", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        where.call(lambda: _wait(process, port))
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    question = dns.message.make_query("nothing.invalid.", "A")
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError, dns.exception.Timeout):
            dns.query.tcp(question, "127.0.0.1", timeout=1, port=port)
            return
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"unbound did not start: {process.communicate()[1]!r}")


def free_port() -> int:
    """A port that neither UDP nor TCP uses."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            udp.bind(("127.0.0.1", 0))
            port: int = udp.getsockname()[1]
            with suppress(OSError):
                tcp.bind(("127.0.0.1", port))
                return port
