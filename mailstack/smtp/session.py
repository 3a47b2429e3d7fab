"""One SMTP session (RFC 5321 §3) without a socket: lines and content go in, replies come out.

A reply that needs the directory or the store is a coroutine; whoever drives the session awaits it
before the next line is obeyed, so replies stay in order.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple

from mailstack.errors import MaildropFull, MailstackError, MessageTooBig, Utf8NotAskedFor
from mailstack.mail.address import Mailbox
from mailstack.mail.envelope import Bound, Envelope
from mailstack.mail.intake import Intake
from mailstack.mail.trace import Arrival
from mailstack.peers import CROSS_PROTOCOL, Peer
from mailstack.smtp import commands, handover, lines, replies
from mailstack.smtp.content import Content
from mailstack.smtp.lines import LineCutter
from mailstack.smtp.refusals import Refusals
from mailstack.smtp.site import Site
from mailstack.store import clock

Answer = bytes | Coroutine[Any, Any, bytes]


class Session:
    """The state of one connection between its greeting and its end, or the next TLS handshake."""

    # fmt: off
    __slots__ = (
        "_began_at", "_commands", "_esmtp", "_helo", "_lines", "_mails", "_refusals", "_refused", "_site",
        "broken_off", "closing", "content", "envelope", "id", "peer", "starting_tls", "tls",
    )
    # fmt: on

    def __init__(self, site: Site, peer: Peer, session_id: str, *, tls: str | None = None) -> None:
        self.id = session_id
        self.peer = peer
        self.tls = tls
        """Version and cipher, where the handshake is done."""
        self.envelope: Envelope | None = None
        self.closing = False
        """Set when the connection is to be closed behind the last reply."""
        self.broken_off = False
        """Set with it where it is our wish, so that the peer may still be talking."""
        self.starting_tls = False
        """Set when the TLS handshake is to begin behind the last reply."""
        self.content: Content | None = None
        """What is being read of a message, from DATA or the first BDAT on."""
        self._site = site
        self._helo = ""
        self._lines = LineCutter()
        self._esmtp = False
        self._mails = 0
        self._commands = 0  # since the last message
        self._refusals = 0
        self._refused: Refusals | None = None  # of the transaction under way
        self._began_at = clock.now()

    # -- what the connection calls ---------------------------------------------------------------

    @property
    def wants_content(self) -> bool:
        """Whether the next octets are content, not a command."""
        return self.content is not None and self.content.wanted

    def greeting(self) -> bytes:
        """What the server says first (RFC 5321 §3.1)."""
        kind = "LMTP" if self._site.lmtp else "ESMTP"
        return f"220 {self._site.hostname} {kind} mailstack\r\n".encode()

    def answer(self, given: bytes, position: int) -> tuple[Answer | None, int]:
        """What there is to say to the next line or content, and where that ends; None: more has to come."""
        if self.content is not None and self.content.wanted:
            end = self.content.take(given, position)
            return (None, len(given)) if end is None else (self._content_ended(self.content), end)
        line, position = self._lines.cut(given, position)
        if isinstance(line, bytes):
            return self.obey(line), position
        if line is None:
            return None, position
        return self._hang_up(line.reply) if line.hopeless else self._counted(line.reply), position

    def obey(self, line: bytes) -> Answer:
        """The answer to one command line, given without its CRLF."""
        self._commands += 1
        if self._commands > self._site.settings.max_commands:
            return self._hang_up(replies.TOO_MANY_COMMANDS)
        word, text, damage = lines.words(line)
        if damage is not None:
            return self._hang_up(damage)
        verb = (LMTP_VERBS if self._site.lmtp else VERBS).get(word)
        if verb is None:
            if word in CROSS_PROTOCOL:
                return self._hang_up(replies.NOT_SMTP)
            return self._counted(replies.UNKNOWN_COMMAND)
        if text is None:
            # Behind BDAT comes a chunk, which nobody takes now.
            return (self._hang_up if word == b"BDAT" else self._counted)(replies.BAD_OCTETS)
        if verb.place is not None and (misplaced := verb.place(self)):
            return self._counted(misplaced)
        try:
            answer = verb.method(self, *verb.grammar(text))
        except Exception as error:
            answer = handover.failed(error, session_id=self.id)
            if word == b"BDAT":
                # Nobody takes the chunk now, and its octets must not be taken for commands.
                return self._hang_up(answer)
        return self._counted(answer) if isinstance(answer, bytes) else answer

    def abandon(self) -> None:
        """The connection is gone, or begins anew under TLS: forget the transaction."""
        if self.content is not None and self.content.wanted:
            self.content.note_lost(self._site.delivery, session_id=self.id)
        self._reset()

    # -- verbs, in the order of RFC 5321 §4.1.1 --------------------------------------------------

    def helo(self, name: str) -> Answer:
        """HELO, RFC 5321 §4.1.1.1."""
        self._reset()
        self._helo = name
        self._esmtp = False
        return f"250 {self._site.hostname}\r\n".encode()

    def ehlo(self, name: str) -> Answer:
        """EHLO, RFC 5321 §4.1.1.1; LHLO, RFC 2033 §4.1."""
        self._reset()
        self._helo = name
        self._esmtp = True
        return replies.hello(
            self._site.hostname,
            max_octets=self._site.delivery.max_message_octets,
            max_recipients=self._site.settings.max_recipients,
            starttls=self.tls is None,
        )

    def mail_misplaced(self) -> bytes | None:
        """What there is to say where MAIL may not come."""
        if not self._helo:
            return replies.HELO_FIRST
        return None if self.envelope is None else replies.NESTED_MAIL

    def mail(self, reverse_path: Mailbox | None, octets: int, utf8: bool) -> Answer:
        """MAIL, RFC 5321 §4.1.1.2, with SIZE (RFC 1870), BODY (RFC 6152) and SMTPUTF8 (RFC 6531)."""
        delivery = self._site.delivery
        if octets > delivery.max_message_octets:
            too_big = MessageTooBig(f"{octets} octets were announced")
            return self._noted(handover.failed(too_big, session_id=self.id), reverse_path, None)
        delivery.flight.require(octets)
        envelope = Envelope(reverse_path, declared_octets=octets, utf8=utf8)
        if octets and not delivery.disk.surely_fits(octets):
            return self._begun_where_it_fits(envelope)
        self.envelope = envelope
        return replies.SENDER_OK

    async def _begun_where_it_fits(self, envelope: Envelope) -> bytes:
        try:
            await self._site.delivery.disk.require(envelope.declared_octets)  # RFC 1870 §6.1
        except Exception as error:
            return handover.failed(error, session_id=self.id)
        self.envelope = envelope
        return replies.SENDER_OK

    def rcpt_misplaced(self) -> bytes | None:
        """What there is to say where RCPT may not come."""
        if self.envelope is None:
            return replies.MAIL_FIRST
        return None if self.content is None else replies.BDAT_UNDER_WAY

    def rcpt(self, forward_path: Mailbox, is_ascii: bool) -> Answer:
        """RCPT, RFC 5321 §4.1.1.3."""
        envelope = self.envelope
        assert envelope is not None
        if not (is_ascii or envelope.utf8):
            raise Utf8NotAskedFor("an address that is not ASCII needs SMTPUTF8")
        if not forward_path.domain:
            forward_path = self._site.directory.full(forward_path)
        if len(envelope.forward_paths) >= self._site.settings.max_recipients:
            return replies.TOO_MANY_RECIPIENTS
        try:
            known = self._site.directory.route_at_once(forward_path, octets=envelope.declared_octets)
        except MailstackError as error:
            return self._refused_recipient(forward_path, error)
        if known is None:
            return self._looked_up(envelope, forward_path)
        return self._accepted(envelope, forward_path, known)

    async def _looked_up(self, envelope: Envelope, forward_path: Mailbox) -> bytes:
        try:
            route = await self._site.directory.route(forward_path, octets=envelope.declared_octets)
        except Exception as error:
            return self._counted(self._refused_recipient(forward_path, error))
        return self._accepted(envelope, forward_path, route)

    def _accepted(self, envelope: Envelope, forward_path: Mailbox, route: Mapping[int, Bound]) -> bytes:
        envelope.add(forward_path, route)
        return replies.RECIPIENT_OK

    def _refused_recipient(self, forward_path: Mailbox, error: Exception) -> bytes:
        if isinstance(error, MaildropFull) and self._site.settings.over_quota == "permanent":
            reply = replies.FULL_FOR_GOOD
        else:
            reply = handover.failed(error, session_id=self.id)
        return self._noted(reply, self.envelope.reverse_path if self.envelope else None, forward_path)

    def _noted(self, reply: bytes, reverse_path: Mailbox | None, forward_path: Mailbox | None) -> bytes:
        if self._refused is None:
            self._refused = Refusals()
        self._refused.add(
            reply,
            session_id=self.id,
            arrival=self._arrival(utf8=False),
            reverse_path=reverse_path,
            forward_path=forward_path,
        )
        return reply

    def data(self) -> Answer:
        """DATA, RFC 5321 §4.1.1.4."""
        if self.content is not None:
            return replies.BDAT_UNDER_WAY
        if not self._ready_for_content:
            return self._no_transaction()
        self._site.delivery.flight.require(0)
        self.content = Content(self._intake())
        self.content.begin_data()
        return replies.GO_AHEAD

    def bdat(self, octets: int, last: bool) -> Answer:
        """BDAT, RFC 3030 §2: its octets follow at once, so they are read whatever the answer will be."""
        content = self.content = self.content or Content(self._intake())
        content.begin_chunk(octets, last=last)
        if octets and self._ready_for_content:
            self._commands -= 1  # the size of a message bounds them, and some senders make them small
        return b"" if content.wanted else self._content_ended(content)

    def rset(self) -> Answer:
        """RSET, RFC 5321 §4.1.1.5."""
        self._reset()
        return replies.OK

    def vrfy(self) -> Answer:
        """VRFY, RFC 5321 §4.1.1.6: the same answer for everybody tells a harvester nothing."""
        return replies.CANNOT_VERIFY

    def expn(self) -> Answer:
        """EXPN, RFC 5321 §4.1.1.7."""
        return replies.NOT_IMPLEMENTED

    def help(self) -> Answer:
        """HELP, RFC 5321 §4.1.1.8."""
        return replies.LMTP_HELP if self._site.lmtp else replies.HELP

    def noop(self) -> Answer:
        """NOOP, RFC 5321 §4.1.1.9."""
        return replies.OK

    def quit(self) -> Answer:
        """QUIT, RFC 5321 §4.1.1.10."""
        self.closing = True
        return replies.BYE

    def starttls(self) -> Answer:
        """STARTTLS, RFC 3207 §4."""
        if self.tls is not None:
            return replies.TLS_ACTIVE
        if not self._helo:
            return replies.HELO_FIRST
        self.starting_tls = True
        return replies.READY_FOR_TLS

    # -- content ---------------------------------------------------------------------------------

    @property
    def _ready_for_content(self) -> bool:
        return self.envelope is not None and bool(self.envelope.accounts)

    def _no_transaction(self) -> bytes:
        if self.envelope is None:
            return replies.MAIL_FIRST
        # RFC 2033 §4.2 wants 503 where RFC 5321 §3.3 leaves a choice.
        return replies.LMTP_NO_RECIPIENTS if self._site.lmtp else replies.NO_RECIPIENTS

    def _intake(self) -> Intake | None:
        if self.envelope is None or not self.envelope.accounts:
            return None
        self._mails += 1
        return self._site.delivery.begin(
            self.envelope, self._arrival(utf8=self.envelope.utf8), f"{self.id}-{self._mails}"
        )

    def _arrival(self, *, utf8: bool) -> Arrival:
        protocol = handover.protocol(
            lmtp=self._site.lmtp, extended=self._esmtp, utf8=utf8, tls=self.tls is not None
        )
        return Arrival(self._helo, self.peer.address, protocol, self.tls, self.id, self._began_at)

    def _content_ended(self, content: Content) -> Answer:
        if content.ended:
            intake = content.hand_over()
            answer = self._counted(self._no_transaction()) if intake is None else self._delivered(intake)
            self._reset()
            return answer
        if (failure := content.failure) is not None:
            self._reset()  # RFC 3030 §2: the sender must not go on, and what is under way already is dropped
            return self._counted(handover.failed(failure, session_id=self.id))
        if self._ready_for_content:
            return replies.CHUNK_OK
        refusal = self._no_transaction()
        if self.envelope is None:
            self._reset()  # there is no message that further chunks could belong to
        return self._counted(refusal)

    async def _delivered(self, intake: Intake) -> bytes:
        delivery, accepted, lmtp = self._site.delivery, intake.envelope, self._site.lmtp
        reply = await handover.deliver(delivery, intake, session_id=self.id, each_alone=lmtp)
        if reply.startswith(replies.FOR_GOOD):
            reply = self._counted(reply)
        else:
            self._refusals = self._commands = 0
        if lmtp:
            return handover.for_each(reply, delivery, intake, accepted, session_id=self.id)
        return reply

    # -- the end of things -----------------------------------------------------------------------

    def _reset(self) -> None:
        if self._refused is not None:
            self._refused.tell(self._site.delivery, self._arrival(utf8=False), session_id=self.id)
            self._refused = None
        if self.content is not None:
            self.content.close()
            self.content = None
        self.envelope = None

    def _counted(self, reply: bytes) -> bytes:
        """Count a command that came to nothing; too many of them end the session.

        What is refused for a while only (a full maildrop, too many recipients, a store that does
        not answer) is not the peer's mistake and does not count.
        """
        if not reply.startswith(replies.FOR_GOOD) or self.closing:
            return reply
        self._refusals += 1
        if self._refusals <= self._site.settings.max_errors:
            return reply
        return self._hang_up(replies.TOO_MANY_ERRORS)

    def _hang_up(self, reply: bytes) -> bytes:
        self.closing = self.broken_off = True
        return reply


class Verb(NamedTuple):
    """One row of the protocol: what to do, with what arguments, and perhaps what is wrong with its place."""

    method: Callable[..., Answer]
    grammar: commands.Grammar
    place: Callable[[Session], bytes | None] | None = None
    """Where it has an answer, that comes before any that the arguments would have."""


VERBS: Final = {
    b"HELO": Verb(Session.helo, commands.host),
    b"EHLO": Verb(Session.ehlo, commands.host),
    b"MAIL": Verb(Session.mail, commands.mail, Session.mail_misplaced),
    b"RCPT": Verb(Session.rcpt, commands.rcpt, Session.rcpt_misplaced),
    b"DATA": Verb(Session.data, commands.nothing),
    b"BDAT": Verb(Session.bdat, commands.bdat),
    b"RSET": Verb(Session.rset, commands.nothing),
    b"VRFY": Verb(Session.vrfy, commands.somebody),
    b"EXPN": Verb(Session.expn, commands.anything),
    b"HELP": Verb(Session.help, commands.anything),
    b"NOOP": Verb(Session.noop, commands.anything),
    b"QUIT": Verb(Session.quit, commands.nothing),
    b"STARTTLS": Verb(Session.starttls, commands.nothing),
}
LMTP_VERBS: Final = {
    b"LHLO" if word == b"EHLO" else word: verb for word, verb in VERBS.items() if word != b"HELO"
}
