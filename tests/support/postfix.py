"""A Postfix of our own, in a temporary folder: a relay that passes on all it is given, or a receiver.

Its configuration, queue and log are its own; the system's Postfix, if one runs, does not notice.
Postfix starts as root and gives its rights up by itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SERVICES = """
{listen} inet n - n - 20 smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 5 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
tlsmgr unix - - n 1000? 1 tlsmgr
scache unix - - n - 1 scache
anvil unix - - n - 1 anvil
showq unix n - n - - showq
virtual unix - n n - - virtual
discard unix - - n - - discard
postlog unix-dgram n - n - 1 postlogd
"""

_SETTINGS = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
mydestination =
inet_protocols = ipv4
inet_interfaces = loopback-only
alias_maps =
alias_database =
local_recipient_maps =
disable_dns_lookups = yes
smtp_host_lookup = native
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
in_flow_delay = 0
minimal_backoff_time = 1s
queue_run_delay = 1s
"""

_RELAY = """
myhostname = postfix.example.net
mynetworks = 127.0.0.0/8
relayhost = [{host}]:{port}
message_size_limit = 0
# What it is given it shall pass on: long lines, long headers, and the fields that it would drop.
smtp_line_length_limit = 0
header_size_limit = 10000000
local_header_rewrite_clients =
message_drop_headers =
smtpd_forbid_bare_newline = no
smtpd_client_connection_rate_limit = 0
"""


def available() -> str | None:
    """Why it cannot run here, or None where it can."""
    if shutil.which("postfix") is None:
        return "postfix is not installed"
    return None if os.getuid() == 0 else "postfix has to be started as root"


@contextmanager
def running(
    folder: Path, *, listen: tuple[str, int], relay: tuple[str, int], more: str = ""
) -> Iterator[Path]:
    """Run one that relays; yields the configuration folder for `postqueue -c` and the like."""
    settings = _RELAY.format(host=relay[0], port=relay[1]) + more
    with started(folder, listen=listen, settings=settings) as configuration:
        yield configuration


@contextmanager
def started(folder: Path, *, listen: tuple[str, int], settings: str) -> Iterator[Path]:
    """Run one with these settings; yields the configuration folder.

    The folder must be searchable for everybody, and its path short.
    """
    configuration = folder / "etc"
    for name in ("etc", "queue", "data"):
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix")
    (configuration / "main.cf").write_text(_SETTINGS.format(folder=folder) + settings)
    (configuration / "master.cf").write_text(_SERVICES.format(listen=f"{listen[0]}:{listen[1]}"))
    done = subprocess.run(
        ["postfix", "-c", configuration, "start"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr or _log(folder) or "see `postfix check`"
    try:
        yield configuration
    finally:
        subprocess.run(["postfix", "-c", configuration, "stop"], capture_output=True, timeout=60, check=True)


def wait_for_empty_queue(configuration: Path, *, seconds: float = 60.0) -> None:
    """Wait until everything has been passed on; fails with the queue's own list of reasons."""
    deadline = time.monotonic() + seconds
    while waiting := _queue(configuration):
        assert time.monotonic() < deadline, f"still queued:\n{waiting[-2000:]}"
        time.sleep(0.05)


def _log(folder: Path) -> str:
    path = folder / "log"
    return path.read_text() if path.exists() else ""


def _queue(configuration: Path) -> str:
    """One line of JSON for every message that waits."""
    queue = configuration.parent / "queue"
    names = ("maildrop", "incoming", "active", "deferred")
    if not any(path.is_file() for name in names for path in (queue / name).rglob("*")):
        return ""
    listed = subprocess.run(
        ["postqueue", "-c", configuration, "-j"], capture_output=True, text=True, timeout=60
    )
    return listed.stdout or listed.stderr or "messages under way"
