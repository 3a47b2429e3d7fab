"""SMTP and LMTP as a process offers them: listeners from settings and sockets."""

from __future__ import annotations

from mailstack.delivery import Delivery
from mailstack.directory import Directory
from mailstack.service import roles
from mailstack.service.contexts import TlsContext
from mailstack.service.sockets import Sockets
from mailstack.settings import Settings
from mailstack.smtp.listener import Listener
from mailstack.smtp.receiver import Reception
from mailstack.smtp.site import Site
from mailstack.store.store import Store


async def opened(
    settings: Settings, sockets: Sockets, directory: Directory, store: Store, tls: TlsContext
) -> list[Listener]:
    """Accept on the sockets of these protocols."""
    delivery = Delivery(
        store,
        hostname=settings.hostname,
        spool_dir=settings.spool_dir,
        max_message_octets=settings.smtp.max_message_octets,
        max_header_octets=settings.smtp.max_header_octets,
        max_octets_in_flight=settings.smtp.max_octets_in_flight,
        reject_bare_newlines=settings.smtp.bare_newlines == "reject",
    )
    listeners: list[Listener] = []
    for name in roles.SMTP:
        if name in sockets:
            site = Site(
                hostname=settings.hostname,
                directory=directory,
                delivery=delivery,
                lmtp=name == "lmtp",
                settings=settings.smtp,
            )
            listener = Listener(Reception(site, tls))
            await listener.open(sockets[name])
            listeners.append(listener)
    return listeners
