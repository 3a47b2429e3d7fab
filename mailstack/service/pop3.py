"""POP3 as a process offers it: listeners from settings and sockets."""

from __future__ import annotations

from mailstack.crowd import Limits
from mailstack.directory import Directory
from mailstack.pop3.listener import Listener, serve
from mailstack.service import roles
from mailstack.service.contexts import TlsContext
from mailstack.service.sockets import Sockets
from mailstack.settings import Settings
from mailstack.store.housekeeping import Rules
from mailstack.store.store import Store


async def opened(
    settings: Settings, sockets: Sockets, directory: Directory, store: Store, tls: TlsContext
) -> list[Listener]:
    """Accept on the sockets of this protocol, with TLS from the start or on demand."""
    return [
        await serve(
            sockets[name],
            store=store,
            directory=directory,
            tls=tls,
            implicit_tls=name == "pop3s",
            allow_plaintext_login=settings.pop3.allow_plaintext_login,
            idle_seconds=settings.pop3.idle_seconds,
            login_idle_seconds=settings.pop3.login_idle_seconds,
            login_delay_seconds=settings.pop3.login_delay_seconds,
            retention=Rules.of(settings).default,
            connections=Limits.of(settings.pop3),
        )
        for name in roles.POP3
        if name in sockets
    ]
