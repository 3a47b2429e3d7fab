"""An ACME authority on loopback: Debian's pebble, and a resolver that leads every name to one place."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mailstack.service.tls import write_self_signed


class Pebble(NamedTuple):
    """A running authority."""

    directory: str
    trust: Path  # what a client has to trust of its own HTTPS
    http_port: int  # where it looks for HTTP-01


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(folder: Path, *, host: str) -> Iterator[Pebble]:
    """An authority that finds every name at `host`, a loopback address."""
    folder.mkdir()
    trust, key = folder / "pebble.pem", folder / "pebble-key.pem"
    write_self_signed(trust, key, "localhost")
    ports = [_free_port("127.0.0.1") for _ in range(4)]
    listen, management, dns, dns_management = ports
    http_port = _free_port(host)
    config = {
        "listenAddress": f"127.0.0.1:{listen}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(trust),
        "privateKey": str(key),
        "httpPort": http_port,
        "tlsPort": http_port,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
    names = [
        "pebble-challtestsrv",
        "-dns01",
        f"127.0.0.1:{dns}",
        "-management",
        f"127.0.0.1:{dns_management}",
    ]
    names += ["-defaultIPv4", host, "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]
    authority = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"]
    environ = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "5"}
    with (folder / "log").open("wb") as log:
        processes = [
            subprocess.Popen(each, stdout=log, stderr=log, env=environ) for each in (names, authority)
        ]
        try:
            url = f"https://localhost:{listen}/dir"
            _wait(url, trust, folder / "log")
            yield Pebble(url, trust, http_port)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _wait(url: str, trust: Path, log: Path) -> None:
    context = ssl.create_default_context(cafile=str(trust))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, context=context, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    raise AssertionError(log.read_text())
