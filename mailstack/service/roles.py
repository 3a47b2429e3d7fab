"""What a `serve` can do, and which sockets each role listens on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Final

from mailstack.errors import BadSetting
from mailstack.settings import Settings
from mailstack.values import Listen

SMTP: Final = ("smtp", "lmtp")
POP3: Final = ("pop3", "pop3s")
"""The sockets that a protocol is spoken on."""

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "smtp": ("smtp",),
    "lmtp": ("lmtp",),
    "pop3": POP3,
    "metrics": ("metrics",),
    "housekeeping": (),
}
"""Each role, with the names of its sockets; systemd's socket units use the same names."""


def addresses(settings: Settings, roles: Sequence[str]) -> dict[str, tuple[Listen, ...]]:
    """The addresses of the roles by socket name; raises BadSetting where there is none to listen on."""
    configured = settings.listening
    for role in roles:
        if ROLES[role] and not any(configured[name] for name in ROLES[role]):
            raise BadSetting(f"the role {role} has no address: set [{role}] listen")
    wanted = [name for role in roles or ROLES for name in ROLES[role]]
    found = {name: configured[name] for name in wanted if configured[name]}
    if not found and "housekeeping" not in roles:
        raise BadSetting("there is no address to listen on: set [smtp] listen or [pop3] listen")
    return found


def read_code(sockets: Iterable[str]) -> None:
    """Read what these sockets' protocols need before the process forks: so it is shared."""
    for name in sockets:
        if name in SMTP:
            import_module("mailstack.service.smtp")
        if name in POP3:
            import_module("mailstack.service.pop3")
            import_module("nacl.pwhash.argon2id")  # which its logins need
