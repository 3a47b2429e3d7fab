"""What is told about a session: to an administrator while it lasts, to the log when it is over."""

from __future__ import annotations

from typing import NamedTuple

from mailstack import log
from mailstack.pop3.answers import Answers
from mailstack.pop3.session import Session
from mailstack.store.clock import SECOND


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
    info: SessionInfo, *, session: Session, answers: Answers, seconds: float, ended: str | None
) -> None:
    """The session's one line in the log; an event, where it took or removed mail; and what it has read."""
    tally = session.tally
    log.event(
        "pop3.session",
        session=info.session,
        address=info.address,
        tls=info.tls,
        account=answers.account,
        mechanism=session.mechanism,
        refused=answers.refused or None,
        tried=answers.tried,
        retrieved=tally.retrieved,
        retrieved_octets=tally.retrieved_octets,
        cut=int(tally.cut) or None,
        deleted=tally.deleted,
        deleted_octets=tally.deleted_octets,
        seconds=round(seconds, 3),
        trouble=session.trouble,
        ended=ended,
    )
    answers.count(
        {
            "pop3_sessions": 1,
            "logins": int(answers.account is not None),
            "logins_refused": answers.refused,
            "retrieved": tally.retrieved,
            "retrieved_octets": tally.retrieved_octets,
            "deleted": tally.deleted,
        }
    )
    if tally.read:
        answers.note_read(tally.read)
    if tally.sent or tally.removed:
        answers.note(
            info.session,
            address=info.address,
            tls=info.tls,
            began_at=round(info.since * SECOND),
            account=answers.account,
            account_id=answers.account_id,
            retrieved=tally.sent and str(tally.sent),
            retrieved_octets=tally.retrieved_octets,
            deleted=tally.removed and str(tally.removed),
            ended=ended,
        )
