"""The end of a mail transaction: its content goes to delivery, a reply and a log line come back."""

from __future__ import annotations

import logging
from functools import lru_cache

from mailstack import log
from mailstack.delivery import Delivery
from mailstack.errors import MailstackError, NoSuchMailbox, StoreUnavailable, Temporary
from mailstack.mail.envelope import Envelope
from mailstack.mail.intake import Intake
from mailstack.smtp.refusals import Refusals
from mailstack.smtp.replies import Reply, reply_to


@lru_cache(maxsize=16)
def protocol(*, lmtp: bool, extended: bool, utf8: bool, tls: bool) -> str:
    """How a message came in, by the keywords of RFC 3848 §1 and RFC 6531 §4.3."""
    if lmtp:
        base = "UTF8LMTP" if utf8 else "LMTP"
    elif utf8:
        base = "UTF8SMTP"
    elif extended:
        base = "ESMTP"
    else:
        return "SMTP"  # there is no keyword for TLS without EHLO
    return base + "S" if tls else base


async def deliver(delivery: Delivery, intake: Intake, *, session_id: str, each_alone: bool = False) -> bytes:
    """Deposit the message and say how that went, in one reply; never raises. See `Delivery.deliver`."""
    reason, level = None, logging.INFO
    try:
        number = await delivery.deliver(intake, each_alone=each_alone)
    except Exception as error:
        reply = failed(error, session_id=session_id)
        outcome = reply.decode().strip()
        if isinstance(error, Temporary):  # the sender hears what to do, and here it is told why
            reason = str(error)
        if isinstance(error, StoreUnavailable) and delivery.alarm.is_due():
            level = logging.WARNING
        delivery.note_failed(intake, outcome)
    else:
        reply = Reply(250, "2.0.0", f"{intake.mail_id} is delivered").octets
        outcome = f"delivered as message {number}"
    finally:
        intake.close()
    envelope, arrival = intake.envelope, intake.arrival
    log.event(
        "mail",
        level=level,
        id=intake.mail_id,
        session=session_id,
        address=arrival.address,
        helo=arrival.helo,
        protocol=arrival.protocol,
        tls=arrival.tls,
        reverse_path=str(envelope.reverse_path or "<>"),
        forward_path=str(envelope.forward_paths[0]),
        recipients=len(envelope.forward_paths),
        octets=intake.octets,
        outcome=outcome,
        reason=reason,
    )
    return reply


def for_each(
    reply: bytes, delivery: Delivery, intake: Intake, accepted: Envelope, *, session_id: str
) -> bytes:
    """That reply for each RCPT that was accepted (RFC 2033 §4.2), but for those that lead nowhere now."""
    if intake.envelope is accepted:
        return reply * len(accepted.forward_paths)
    gone, refused = failed(NoSuchMailbox(), session_id=session_id), Refusals()
    replies = []
    for forward_path, route in zip(accepted.forward_paths, accepted.routes, strict=True):
        is_gone = intake.envelope.accounts.keys().isdisjoint(route)
        replies.append(gone if is_gone else reply)
        if is_gone:
            refused.add(
                gone,
                session_id=session_id,
                arrival=intake.arrival,
                reverse_path=accepted.reverse_path,
                forward_path=forward_path,
            )
    refused.tell(delivery, intake.arrival, session_id=session_id)
    return b"".join(replies)


def failed(error: Exception, *, session_id: str) -> bytes:
    """The reply to a failure; one that nobody foresaw is for the log alone to tell about."""
    if not isinstance(error, MailstackError):
        log.failure("smtp", error, session=session_id)
    return reply_to(error).octets
