"""What is told about a session: to an administrator while it lasts, to the log when it is over."""

from __future__ import annotations

from typing import NamedTuple

from mailstack import log
from mailstack.pop3.session import Tally


class SessionInfo(NamedTuple):
    """One session, as `mailstack session list` shows it."""

    session: str  # as in the log
    account: str | None  # None before login
    address: str
    tls: str | None
    since: float  # seconds since the epoch
    idle_seconds: float
    retrieved: int
    retrieved_octets: int


def write(
    info: SessionInfo,
    *,
    tally: Tally,
    account: str | None,
    mechanism: str | None,
    refused: int,
    seconds: float,
    ended: str | None,
) -> None:
    """The session's one line in the log."""
    log.event(
        "pop3.session",
        session=info.session,
        peer=info.address,
        tls=info.tls,
        account=account,
        mechanism=mechanism,
        refused=refused or None,
        retrieved=tally.retrieved,
        retrieved_octets=tally.retrieved_octets,
        deleted=tally.deleted,
        deleted_octets=tally.deleted_octets,
        seconds=round(seconds, 3),
        ended=ended,
    )
