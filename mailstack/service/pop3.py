"""POP3 as a process offers it: listeners from settings and sockets."""

from __future__ import annotations

from mailstack.auth.logins import Logins
from mailstack.pop3.listener import Listener, serve
from mailstack.service import roles
from mailstack.service.contexts import TlsContext
from mailstack.service.sockets import Sockets
from mailstack.settings import Settings
from mailstack.store.housekeeping import Rules
from mailstack.store.store import Store


async def opened(
    settings: Settings, sockets: Sockets, logins: Logins, store: Store, tls: TlsContext
) -> list[Listener]:
    """Accept on the sockets of this protocol, with TLS from the start or on demand."""
    return [
        await serve(
            sockets[name],
            store=store,
            logins=logins,
            tls=tls,
            settings=settings.pop3,
            implicit_tls=name == "pop3s",
            retention=Rules.of(settings).default,
        )
        for name in roles.POP3
        if name in sockets
    ]
