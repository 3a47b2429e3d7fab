"""Where `mailstack setup` puts everything, and the settings file that says so."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from mailstack.mail.address import Mailbox

USER: Final = "mailstack"
"""The system user that owns the mail."""

_HIGHEST_BASE: Final = 65535 - 995

_FILE: Final = """\
# mailstack's settings; `mailstack settings show` tells all that can be set, docs/settings.md what it means.
# A path that does not begin with / begins at this file's folder.

hostname = "{hostname}"
default_domain = "{domain}"
postmaster = "{postmaster}"
state_dir = "{state_dir}"

[smtp]
listen = ["{smtp}"]

[pop3]
listen = ["{pop3}"]        # plain, with STLS
tls_listen = ["{pop3s}"]   # TLS from the first octet

[backup]
folder = "{backups}"       # every night
keep = 7
"""


class Place(NamedTuple):
    """The machine itself, or a folder that stands for it."""

    config: Path
    state_dir: Path
    backups: Path
    host: str  # to listen on
    base_port: int
    is_machine: bool

    def written(self, hostname: str, mailbox: Mailbox) -> str:
        """The settings file."""
        smtp, pop3, pop3s = (f"{self.host}:{self.base_port + port}" for port in (25, 110, 995))
        folder = self.config.parent
        return _FILE.format(
            hostname=hostname,
            domain=mailbox.domain,
            postmaster=str(mailbox).replace("\\", "\\\\").replace('"', '\\"'),
            state_dir=_from(folder, self.state_dir),
            backups=_from(folder, self.backups),
            smtp=smtp,
            pop3=pop3,
            pop3s=pop3s,
        )


def machine(config: Path) -> Place:
    """The places of a server that stays."""
    everywhere = "[::]" if Path("/proc/net/if_inet6").exists() else "0.0.0.0"
    state_dir = Path("/var/lib/mailstack")
    return Place(config, state_dir, Path("/var/backups/mailstack"), everywhere, 0, is_machine=True)


def folder(directory: Path, base_port: int) -> Place:
    """Everything below one folder, for loopback only: to try it, without root."""
    here = directory.absolute()
    config = here / "mailstack.toml"
    return Place(config, here / "state", here / "backups", "127.0.0.1", base_port, is_machine=False)


def is_base_port(number: int) -> bool:
    """Whether all three ports above it exist."""
    return 0 <= number <= _HIGHEST_BASE


def write(path: Path, text: str) -> None:
    """A file that never exists half, readable by everybody: there is no secret in it."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o644)
    draft.replace(path)


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


def _from(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
