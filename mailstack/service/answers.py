"""What a serving process tells and does for an administrator, by its control socket."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mailstack import __version__
from mailstack.errors import BadAddress, MailstackError
from mailstack.mail.address import fold_domain, fold_local_part, parse_mailbox
from mailstack.service.control import Answer
from mailstack.service.numbers import numbers
from mailstack.service.sockets import Sockets
from mailstack.store.store import Store

if TYPE_CHECKING:  # the process may have no listener of one protocol or the other
    from mailstack.pop3.listener import Listener
    from mailstack.pop3.record import SessionInfo
    from mailstack.smtp.listener import Listener as SmtpListener

_HEALTH_SECONDS: Final = 4.0


def answers(
    store: Store, smtp: Sequence[SmtpListener], pop3: Sequence[Listener], *, sockets: Sockets
) -> Mapping[str, Answer]:
    """The commands of one process, over its store and its listeners."""
    since = time.time()
    # Not always what the settings say: sockets may come from systemd, settings from the environment.
    listening = {
        name: [each.getsockname()[:2] for each in several if each.family != socket.AF_UNIX]
        for name, several in sockets.items()
    }

    async def status(_request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "pid": os.getpid(),
            "version": __version__,
            "sockets": list(sockets),
            "listening": listening,
            "since": since,
            "pop3_sessions": sum(listener.sessions for listener in pop3),
        }

    async def told_numbers(_request: Mapping[str, Any]) -> Mapping[str, Any]:
        in_flight = max((listener.octets_in_flight for listener in smtp), default=0)
        told = numbers(store, smtp=smtp, pop3=pop3, octets_in_flight=in_flight)
        return {"version": __version__, "sockets": list(sockets), "since": since, **told}

    async def health(_request: Mapping[str, Any]) -> Mapping[str, Any]:
        why: str | None = None
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                await store.check()
                if smtp:
                    await store.disk.require(0)
        except TimeoutError:
            why = f"the store has not answered for {_HEALTH_SECONDS:.0f} s"
        except MailstackError as error:
            why = str(error)
        return {"pid": os.getpid(), "why": why}

    async def sessions(_request: Mapping[str, Any]) -> Mapping[str, Any]:
        told = [session for listener in pop3 for session in listener.told()]
        return {"pid": os.getpid(), "sessions": [session._asdict() for session in told]}

    async def kick(request: Mapping[str, Any]) -> Mapping[str, Any]:
        names = {_folded(str(name)) for name in request.get("names", ())}

        def is_wanted(session: SessionInfo) -> bool:
            return session.session in names or (
                session.account is not None and _folded(session.account) in names
            )

        return {"kicked": sum([await listener.kick(is_wanted) for listener in pop3])}

    return {
        "status": status,
        "numbers": told_numbers,
        "health": health,
        "sessions": sessions,
        "kick": kick,
    }


def _folded(name: str) -> str:
    """One spelling for all spellings of an address; a session's id stays as it is."""
    try:
        mailbox = parse_mailbox(name)
        return f"{fold_local_part(mailbox.local_part)}@{fold_domain(mailbox.domain)}"
    except BadAddress:
        return name
