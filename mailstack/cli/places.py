"""Where a new server puts everything, and the settings file that says so."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from mailstack.cli.exits import Usage
from mailstack.files import write_whole
from mailstack.mail.address import Mailbox

USER: Final = "mailstack"
"""The system user that owns the mail."""

Ports = tuple[int, int, int]
"""Of SMTP, of POP3, and of POP3 under TLS."""

LISTEN: Final = {
    "smtp": '[smtp]\nlisten = ["{}"]',
    "pop3": '[pop3]\nlisten = ["{}"]',
    "pop3s": 'tls_listen = ["{}"]',
}
"""How the settings file says where each listens, in the order of `Ports`."""

_FILE: Final = """\
# mailstack's settings; `mailstack settings show` tells all that can be set, docs/settings.md what it means.
# A path that does not begin with / begins at this file's folder.

hostname = "{hostname}"
default_domain = "{domain}"
{postmaster}state_dir = "{state_dir}"
{tls}
{smtp}

{pop3}      # plain, with STLS
{pop3s}  # TLS from the first octet

[backup]
folder = "{backups}"
keep = 7
"""

_TLS: Final = """
[tls]
certificate = "{folder}/certificate.pem"
private_key = "{folder}/private-key.pem"
"""


class Place(NamedTuple):
    """The machine itself, or a folder that stands for it."""

    config: Path
    state_dir: Path
    backups: Path
    host: str  # to listen on
    ports: Ports
    certificates: Path | None = None  # a folder of their own; else they lie in state_dir
    is_machine: bool = False

    def written(self, hostname: str, domain: str, postmaster: Mailbox | None = None) -> str:
        """The settings file."""
        quoted = json.dumps(str(postmaster), ensure_ascii=False)
        lines = zip(LISTEN.items(), self.ports, strict=True)
        return _FILE.format(
            hostname=hostname,
            domain=domain,
            postmaster=f"postmaster = {quoted}\n" if postmaster else "",
            state_dir=self._from_here(self.state_dir),
            tls=_TLS.format(folder=self._from_here(self.certificates)) if self.certificates else "",
            **{name: line.format(f"{self.host}:{port}") for (name, line), port in lines},
            backups=self._from_here(self.backups),
        )

    def _from_here(self, path: Path) -> str:
        folder = self.config.parent
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def machine(config: Path) -> Place:
    """The places of a server that stays."""
    everywhere = "[::]" if Path("/proc/net/if_inet6").exists() else "0.0.0.0"
    state_dir, backups = Path("/var/lib/mailstack"), Path("/var/backups/mailstack")
    return Place(config, state_dir, backups, everywhere, above(0), is_machine=True)


def folder(directory: Path, ports: Ports = (2525, 1110, 1995), *, tls: str | None = None) -> Place:
    """Everything below one folder, for loopback only: to try it, without root."""
    here = directory.absolute()
    certificates = here / tls if tls else None
    return Place(here / "mailstack.toml", here / "state", here / "backups", "127.0.0.1", ports, certificates)


def above(base: int) -> Ports:
    """The usual ports, that far up; raises Usage where they do not all exist."""
    if not 0 <= base <= 65535 - 995:
        raise Usage(f"--base-port {base} leaves no room for the three ports above it")
    return base + 25, base + 110, base + 995


def write(path: Path, text: str) -> None:
    """A file that never exists half, readable by everybody: there is no secret in it."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_whole(path, text.encode(), mode=0o644)


def make_private(path: Path, owner: pwd.struct_passwd | None) -> None:
    """A folder for its owner alone; one that is there already stays as it is."""
    if path.exists():
        return
    path.mkdir(mode=0o700, parents=True)
    if owner is not None:
        os.chown(path, owner.pw_uid, owner.pw_gid)


@contextmanager
def acting_as(owner: pwd.struct_passwd | None) -> Iterator[None]:
    """Do something as another user and come back: what is made belongs to them."""
    if owner is None or os.geteuid() != 0 or owner.pw_uid == 0:
        yield
        return
    groups = os.getgroups()
    os.initgroups(owner.pw_name, owner.pw_gid)
    os.setegid(owner.pw_gid)
    os.seteuid(owner.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def user() -> pwd.struct_passwd | None:
    """The system user, if there is one."""
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None
