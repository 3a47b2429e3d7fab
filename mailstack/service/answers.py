"""What a serving process tells and does for an administrator, by its control socket."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mailstack import __version__
from mailstack.errors import BadAddress
from mailstack.mail.address import fold_domain, fold_local_part, parse_mailbox
from mailstack.pop3.listener import Listener
from mailstack.pop3.record import SessionInfo
from mailstack.service.control import Answer


def answers(pop3: Sequence[Listener], *, sockets: Sequence[str]) -> Mapping[str, Answer]:
    """The commands of one process, over its listeners."""
    since = time.time()

    async def status(_request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "pid": os.getpid(),
            "version": __version__,
            "sockets": list(sockets),
            "since": since,
            "pop3_sessions": sum(listener.sessions for listener in pop3),
        }

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

    return {"status": status, "sessions": sessions, "kick": kick}


def _folded(name: str) -> str:
    """One spelling for all spellings of an address; a session's id stays as it is."""
    try:
        mailbox = parse_mailbox(name)
        return f"{fold_local_part(mailbox.local_part)}@{fold_domain(mailbox.domain)}"
    except BadAddress:
        return name
