"""An Exim that passes on what it is given on standard input, from Debian's packages but not installed.

Debian has one mail server a machine, and the tests have Postfix already. So Exim's packages are
unpacked, and it runs where /usr and /etc have its files laid over them, for itself alone.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

_PACKAGES = ("exim4-base", "exim4-daemon-light")
_USER_ID = 47

_SETTINGS = """
primary_hostname = exim.example.net
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
host_lookup =
rfc1413_hosts =
tls_advertise_hosts =
trusted_users = root
message_size_limit = 50M
begin routers
onward:
  driver = manualroute
  route_list = * {host}::{port} byname
  transport = onward
  self = send
begin transports
onward:
  driver = smtp
  hosts_require_tls = {tls}
  hosts_avoid_tls = {plain}
  tls_verify_certificates = {certificate}
  tls_verify_hosts = {tls}
  tls_verify_cert_hostnames =
begin retry
* * F,1h,1s
"""


@cache
def unpacked(folder: Path) -> str | None:
    """Make it ready in this folder; why it cannot run here, or None where it can."""
    if os.getuid() != 0 or shutil.which("apt-get") is None or shutil.which("unshare") is None:
        return "exim needs root, apt-get and unshare"
    folder.chmod(0o755)
    # Not `apt-get download`: this brings the libraries along that the machine lacks, and installs nothing.
    archives = ("-o", f"Dir::Cache::archives={folder}", "-o", "Debug::NoLocking=true")
    (folder / "partial").mkdir()
    fetch = ["apt-get", "-y", "--no-install-recommends", "--download-only", *archives, "install", *_PACKAGES]
    if _quiet(fetch, folder):
        return "the packages of exim cannot be downloaded"
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True, timeout=60)
    for name in ("spool", "log"):
        (folder / name).mkdir()
        os.chown(folder / name, _USER_ID, _USER_ID)
    (folder / "etc" / "exim4").mkdir(parents=True)
    for name, line in (
        ("passwd", f"Debian-exim:x:{_USER_ID}:{_USER_ID}::/:/usr/sbin/nologin\n"),
        ("group", f"Debian-exim:x:{_USER_ID}:\n"),
    ):
        (folder / "etc" / name).write_text(Path("/etc", name).read_text() + line)
    if _quiet(_within(folder, ["true"]), folder):
        return "this machine has no overlays"
    return (
        "exim lacks a library"
        if _quiet(_within(folder, ["/usr/sbin/exim4", "-C", "/dev/null", "-bV"]), folder)
        else None
    )


def send(
    folder: Path, content: bytes, sender: str, recipient: str, *, server: tuple[str, int], tls: Path | None
) -> None:
    """Have one message delivered, and wait for it; `tls` is the certificate to trust."""
    settings = _SETTINGS.format(
        folder=folder,
        host=server[0],
        port=server[1],
        tls="*" if tls else "",
        plain="" if tls else "*",
        certificate=tls or "/dev/null",
    )
    (folder / "etc" / "exim4" / "exim4.conf").write_text(settings)
    command = ["/usr/sbin/exim4", "-odf", "-i", "-f", sender, recipient]
    done = subprocess.run(_within(folder, command), input=content, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    waiting = subprocess.run(
        _within(folder, ["/usr/sbin/exim4", "-bp"]), capture_output=True, text=True, timeout=60
    ).stdout
    assert not waiting, waiting + (folder / "log" / "mainlog").read_text()


def _within(folder: Path, command: list[str]) -> list[str]:
    overlay = "mount -t overlay overlay -o lowerdir={above}:{below} {below}"
    script = " && ".join(
        (
            overlay.format(above=shlex.quote(str(folder / "root" / "usr")), below="/usr"),
            overlay.format(above=shlex.quote(str(folder / "etc")), below="/etc"),
            f"exec {shlex.join(command)}",
        )
    )
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]


def _quiet(command: list[str], folder: Path) -> int:
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=100).returncode
