"""The end of a mail transaction: its content goes to delivery, a reply and a log line come back."""

from __future__ import annotations

from mailstack import log
from mailstack.delivery import Delivery, Intake
from mailstack.errors import MailstackError, Temporary
from mailstack.smtp.replies import Reply, reply_to


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


async def deliver(delivery: Delivery, intake: Intake, *, session_id: str) -> bytes:
    """Deposit the message and say how that went, in one reply; never raises."""
    reason = None
    try:
        number = await delivery.deliver(intake)
    except Exception as error:
        reply = failed(error, session_id=session_id)
        outcome = reply.decode().strip()
        if isinstance(error, Temporary):  # the sender hears what to do, and here it is told why
            reason = str(error)
        delivery.note_failed(intake, outcome)
    else:
        reply = Reply(250, "2.0.0", f"{intake.mail_id} is delivered").octets
        outcome = f"delivered as message {number}"
    finally:
        intake.close()
    envelope, arrival = intake.envelope, intake.arrival
    log.event(
        "mail",
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


def failed(error: Exception, *, session_id: str) -> bytes:
    """The reply to a failure; one that nobody foresaw is for the log alone to tell about."""
    if not isinstance(error, MailstackError):
        log.failure("smtp", error, session=session_id)
    return reply_to(error).octets
