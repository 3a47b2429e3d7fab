"""A Dovecot of our own in a folder, with one account: an account moves from it, or POP3 is compared with it.

Debian's package, as root; the system's Dovecot, if one runs, does not notice.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OWNER = 65534
"""Who the mail belongs to."""
_DELIVERY_AGENT = "/usr/lib/dovecot/dovecot-lda"
_CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/log
protocols = pop3
listen = {listen}
ssl = no
disable_plaintext_auth = no
mail_location = maildir:~/Maildir
first_valid_uid = 1
hostname = old.example.test
postmaster_address = postmaster@example.test
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {folder}/passwd
}}
userdb {{
  driver = static
  args = uid={owner} gid={owner} home={folder}/home
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {port}
  }}
}}
{more}
"""


class Dovecot:
    """One running instance, with one account."""

    def __init__(self, folder: Path, name: str) -> None:
        self.maildir = folder / "home" / "Maildir"
        self._configuration = folder / "dovecot.conf"
        self._name = name

    def deliver(self, message: bytes) -> None:
        """Hand a message to its own delivery agent."""
        command = [
            _DELIVERY_AGENT,
            "-c",
            self._configuration,
            "-e",
            "-d",
            self._name,
            "-f",
            "eve@example.net",
        ]
        subprocess.run(command, input=message, check=True, timeout=60)


def require() -> None:
    """Skip a test where it cannot be run."""
    if shutil.which("dovecot") is None or not os.access(_DELIVERY_AGENT, os.X_OK):
        pytest.skip("dovecot-core and dovecot-pop3d are not installed")
    if os.geteuid() != 0:
        pytest.skip("Dovecot wants to be started by root")


@contextmanager
def dovecot(listen: str, port: int, name: str, password: str, *, more: str = "") -> Iterator[Dovecot]:
    """A fresh instance for the length of the block, at addresses with commas between them.

    `more` are settings of its own; the files stay behind the process a little longer.
    """
    with tempfile.TemporaryDirectory(prefix="ms-dovecot-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "home").mkdir()
        os.chown(folder / "home", OWNER, OWNER)
        (folder / "passwd").write_text(f"{name}:{{PLAIN}}{password}\n")
        values = {"folder": folder, "owner": OWNER, "listen": listen, "port": port, "more": more}
        (folder / "dovecot.conf").write_text(_CONFIGURATION.format(**values))
        process = subprocess.Popen(["dovecot", "-F", "-c", folder / "dovecot.conf"])
        try:
            _wait_for(listen.partition(",")[0], port)
            yield Dovecot(folder, name)
        finally:
            process.terminate()
            process.wait(60)


def _wait_for(host: str, port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
