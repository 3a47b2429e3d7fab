"""One POP3 session, RFC 1939 §3 to §7, without a socket and without a store.

`Session.obey` takes a line and returns its reply, or a turn where something has to be asked first: a
generator that yields what it needs from the world (see `asks`), is sent the answers, and returns the
reply. So every rule of the protocol can be tested as text in, text out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from mailstack.auth import sasl
from mailstack.errors import MailstackError, StoreUnavailable
from mailstack.peers import CROSS_PROTOCOL
from mailstack.pop3 import asks, authentication, capabilities, commands
from mailstack.pop3.asks import Ask, Content
from mailstack.pop3.authentication import Dialogue
from mailstack.pop3.capabilities import Channel
from mailstack.pop3.commands import BadCommand, Refused
from mailstack.pop3.lines import LONGEST_OCTETS
from mailstack.pop3.maildrop import Maildrop
from mailstack.pop3.replies import Lines, Message, Reply, challenge, negative, ok, positive, reply_to
from mailstack.pop3.tally import Tally
from mailstack.store.messages import Snapshot
from mailstack.store.runs import Runs

MAX_BAD_COMMANDS: Final = 20
"""So many lines in a row that are no commands: this is not a mail program."""

LANGUAGES: Final = {"i-default": "Default language", "en": "English"}
"""The languages of our texts, by their tags (RFC 6856 §3); i-default is that of RFC 2277 §4.5."""

_LOOK_LINES: Final = 65_536
"""A TOP of fewer lines is a look, whatever it sends.

Who wants to see how a message begins asks for some dozens of lines, or for some hundreds; fetchmail, which
fetches by TOP so that servers do not mark a message as read, asks for 99,999,999.
"""

_LINE_OCTETS: Final = len(b"\r\n")
"""No line has fewer."""

_RETR_OCTETS: Final = len(b"RETR 1\r\n")
"""What waits cannot ask for more messages than of these."""

Turn = Generator[Ask, Any, Reply]
"""A command under way; the type of an answer is told by its ask."""

_OK: Final = ok()
_DELETED: Final = ok("deleted")
_READY: Final = ok("POP3 server ready")
_PASSWORD: Final = ok("password please")
_BYE: Final = ok("bye")


@dataclass(slots=True)
class Authorization:
    """The state before login (RFC 1939 §4)."""

    name: str | None = None  # what USER said
    utf8: bool = False  # UTF8 was said (RFC 6856 §2), so headers may come as they are
    dialogue: Dialogue | None = None  # between AUTH and its last reply


class Session:
    """The states of RFC 1939 §3; its owner obeys one line at a time, in order."""

    # fmt: off
    __slots__ = (
        "_bad", "_channel", "_more", "_read_ahead", "_state", "ended", "longest_line", "mechanism", "tally",
        "trouble",
    )
    # fmt: on

    def __init__(
        self, channel: Channel, read_ahead: Callable[[int], Content | None] = lambda _uid: None
    ) -> None:
        """`read_ahead` gives a message of the open maildrop, by its uid, where it is in memory."""
        self._channel = channel
        self._read_ahead = read_ahead
        self._state: Authorization | Maildrop = Authorization()
        self._bad = 0
        self._more = 0
        self.longest_line = LONGEST_OCTETS
        """How many octets the next line may have, its end not counted."""
        self.ended: str | None = None  # why, once the connection is to be closed
        self.mechanism: str | None = None  # by which somebody has logged in
        self.trouble: str | None = None  # why the store did not do something, as the log tells it
        self.tally = Tally()

    @property
    def logged_in(self) -> bool:
        """Whether this is the TRANSACTION state, or was when the session ended."""
        return isinstance(self._state, Maildrop)

    def greeting(self) -> Reply:
        """The first line; without a timestamp, since there is no APOP (RFC 1939 §7)."""
        return _READY

    def obey(self, line: bytes, *, more: int = 0) -> Reply | Turn:
        """Obey one line, without its CRLF; `more` tells how many octets wait behind it already."""
        if self.ended is not None:  # from outside, between two commands
            return reply_to(StoreUnavailable(self.ended))
        self._more = more
        try:
            state = self._state
            if isinstance(state, Authorization) and state.dialogue is not None:
                # It is over unless this line carries it on.
                dialogue, state.dialogue = state.dialogue, None
                self.longest_line = LONGEST_OCTETS
                return self._carried(self._continued(dialogue, dialogue.respond(line)))
            word, rest = commands.split(line)
            verb = VERBS.get(word)
            if verb is None:
                raise BadCommand("unknown command")
            if not isinstance(state, verb.states):
                raise BadCommand("already logged in" if self.logged_in else "log in first")
            result = verb.method(self, state, *verb.grammar(rest))
        except MailstackError as error:
            # However long the line is: a web page may choose what is in it.
            if not self.logged_in and line.partition(b" ")[0].upper() in CROSS_PROTOCOL:
                return self._hang_up()
            return self._refused(error)
        if not isinstance(result, Reply):
            return self._carried(result)
        self._bad = 0
        return result

    def _carried(self, turn: Turn) -> Turn:
        """A turn to its end; what refuses it becomes its reply."""
        try:
            reply = yield from turn
        except MailstackError as error:
            return self._refused(error)
        self._bad = 0
        return reply

    def _refused(self, error: MailstackError) -> Reply:
        if isinstance(error, BadCommand):
            return self._count_bad(error)
        self._bad = 0
        if isinstance(error, StoreUnavailable):
            self.trouble = str(error)
        return reply_to(error)

    def _count_bad(self, error: BadCommand) -> Reply:
        self._bad += 1
        if self._bad < MAX_BAD_COMMANDS:
            return reply_to(error)
        self.ended = "too many bad commands"
        return negative("too many bad commands")

    def _hang_up(self) -> Reply:
        """Obey nothing that follows: a browser's next lines are those of a stranger's web page."""
        self.ended = "not POP3"
        return negative("this is a mail server")

    # -- any state -------------------------------------------------------------------------------

    def capa(self, state: Authorization | Maildrop) -> Turn:
        """CAPA (RFC 2449 §5): only what works here and now."""
        expire = yield asks.LoadExpiry()
        mechanisms = yield asks.LoadMechanisms(self._channel.sasl)
        logged_in = isinstance(state, Maildrop)
        lines = capabilities.lines(self._channel, mechanisms, expire, logged_in=logged_in)
        return Reply(positive("capabilities follow") + lines)

    def lang(self, _state: Authorization | Maildrop, wanted: str | None) -> Reply:
        """LANG (RFC 6856 §3): what it has to say, this server says in English."""
        if wanted is None:
            lines = "".join(f"{tag} {text}\r\n" for tag, text in LANGUAGES.items())
            return Reply(positive("language listing follows") + f"{lines}.\r\n".encode("ascii"))
        tag = commands.looked_up(wanted, LANGUAGES)
        if tag is None:
            raise Refused("there is no such language here")
        return ok(f"{tag} English it is")

    def quit(self, state: Authorization | Maildrop) -> Reply | Turn:
        """QUIT (RFC 1939 §6): the only way in which a message is removed, or counts as read."""
        self.ended = "quit"
        if isinstance(state, Maildrop) and state.deleted:
            return self._update(state)
        self.tally.read = self.tally.sent
        return _BYE

    def _update(self, maildrop: Maildrop) -> Turn:
        uids = maildrop.deleted_uids()
        yield asks.Expunge(uids)
        tally = self.tally
        tally.removed = removed = Runs.of(uids)
        tally.read = tally.sent and tally.sent.without(removed)
        tally.deleted = maildrop.deleted
        tally.deleted_octets = maildrop.deleted_octets
        return ok(f"bye, {maildrop.deleted} deleted")

    # -- AUTHORIZATION ---------------------------------------------------------------------------

    def user(self, state: Authorization, name: str) -> Reply:
        """USER (RFC 1939 §7): every name is welcome, so that nobody learns which exist."""
        self._refuse_in_the_clear()
        state.name = name
        return _PASSWORD

    def pass_(self, state: Authorization, secret: str) -> Turn:
        """PASS (RFC 1939 §7): log in, lock the maildrop, and see what it holds."""
        self._refuse_in_the_clear()
        name, state.name = state.name, None
        if name is None:
            raise BadCommand("USER comes first")
        snapshot = yield asks.LogIn(name, secret)
        return self._entered(snapshot, "USER")

    def auth(self, state: Authorization, mechanism: str | None, initial: str | None) -> Turn:
        """AUTH (RFC 5034 §4)."""
        mechanisms = yield asks.LoadMechanisms(self._channel.sasl)
        if mechanism is None:
            # No RFC has it, but Outlook asks so what there is, and other servers answer.
            lines = "".join(f"{name}\r\n" for name in mechanisms)
            return Reply(positive("mechanisms follow") + f"{lines}.\r\n".encode("ascii"))
        if mechanism not in mechanisms:
            raise Refused("this mechanism is not offered here")
        state.name = None
        dialogue = Dialogue(mechanism, initial, self._channel.sasl)
        return (yield from self._continued(dialogue, dialogue.begin()))

    def _continued(self, dialogue: Dialogue, step: authentication.Step) -> Turn:
        result = yield from step
        if not isinstance(result, sasl.Challenge):
            return self._entered(result, dialogue.mechanism)
        assert isinstance(self._state, Authorization)
        self._state.dialogue = dialogue
        self.longest_line = authentication.LINE_OCTETS
        return challenge(result.octets)

    def _entered(self, snapshot: Snapshot, mechanism: str) -> Reply:
        utf8 = isinstance(self._state, Authorization) and self._state.utf8
        self._state = maildrop = Maildrop(snapshot, utf8=utf8)
        self.mechanism = mechanism
        return ok(str(maildrop))

    def utf8(self, state: Authorization) -> Reply:
        """UTF8 (RFC 6856 §2): messages come as they are, not as their surrogates."""
        state.utf8 = True
        return ok("UTF-8 it is")

    def stls(self, state: Authorization) -> Reply:
        """STLS (RFC 2595 §4): the owner does the handshake and begins a new session in it."""
        if self._channel.tls:
            raise BadCommand("TLS is active already")
        if self._more:
            return self.distrust()
        state.name = None
        state.utf8 = False
        return Reply(positive("begin TLS"), start_tls=True)

    def distrust(self) -> Reply:
        """End the session for octets between STLS and the handshake.

        Whoever sits in the line could have put them there, to be obeyed under TLS.
        """
        self.ended = "input behind STLS"
        return negative("nothing may follow STLS before the handshake")

    def _refuse_in_the_clear(self) -> None:
        if not self._channel.may_log_in:
            raise Refused("passwords are only taken under TLS: use STLS first")

    # -- TRANSACTION -----------------------------------------------------------------------------

    def stat(self, maildrop: Maildrop) -> Reply:
        """STAT (RFC 1939 §5)."""
        return ok(f"{maildrop.messages} {maildrop.octets}")

    def list_(self, maildrop: Maildrop, number: int | None) -> Turn:
        """LIST (RFC 1939 §5)."""
        if number is not None:
            entry = yield from maildrop.entry(number)
            return ok(f"{number} {entry.octets}")
        return (yield from _listed(positive(str(maildrop)), maildrop.sizes()))

    def retr(self, maildrop: Maildrop, number: int) -> Reply | Turn:
        """RETR (RFC 1939 §5)."""
        entry = maildrop.at_hand(number)
        content = entry and self._read_ahead(entry.uid)
        if entry is None or content is None:
            return self._retr(maildrop, number)
        return self._sent(entry.uid, content)

    def _retr(self, maildrop: Maildrop, number: int) -> Turn:
        entry = yield from maildrop.entry(number)
        behind, surrogates = self._more // _RETR_OCTETS, maildrop.surrogates
        content = yield asks.OpenMessage(entry.uid, peek=False, behind=behind, surrogates=surrogates)
        return self._sent(entry.uid, content)

    def _sent(self, uid: int, content: Content) -> Reply:
        octets = content.octets
        self.tally.sending = uid, octets
        return Reply(b"+OK %d octets\r\n" % octets, message=Message(content))

    def dele(self, maildrop: Maildrop, number: int) -> Reply | Turn:
        """DELE (RFC 1939 §5): only a mark, until QUIT."""
        entry = maildrop.at_hand(number)
        if entry is None:
            return self._dele(maildrop, number)
        maildrop.delete(entry)
        return _DELETED

    def _dele(self, maildrop: Maildrop, number: int) -> Turn:
        maildrop.delete((yield from maildrop.entry(number)))
        return _DELETED

    def noop(self, _maildrop: Maildrop) -> Reply:
        """NOOP (RFC 1939 §5)."""
        return _OK

    def rset(self, maildrop: Maildrop) -> Reply:
        """RSET (RFC 1939 §5)."""
        maildrop.reset()
        return ok(str(maildrop))

    def top(self, maildrop: Maildrop, number: int, lines: int) -> Turn:
        """TOP (RFC 1939 §7): the header, the blank line, and so many lines of the body.

        Where that is for certain the whole message, it is RETR by another name.
        """
        entry = yield from maildrop.entry(number)
        if lines >= max(_LOOK_LINES, entry.octets // _LINE_OCTETS):
            return (yield from self._retr(maildrop, number))
        content = yield asks.OpenMessage(entry.uid, peek=True, surrogates=maildrop.surrogates)
        return Reply(positive("top of message follows"), message=Message(content, lines))

    def uidl(self, maildrop: Maildrop, number: int | None) -> Turn:
        """UIDL (RFC 1939 §7): the ids that the store keeps, never made up here."""
        if number is None:
            return (yield from _listed(positive("unique-id listing follows"), maildrop.unique_ids()))
        return ok(f"{number} {yield from maildrop.unique_id(number)}")


def _listed(text: bytes, lines: Lines) -> Turn:
    """A list whose beginning has been read: up to there, a failure can still be told."""
    some = next(lines)
    while not isinstance(some, bytes):
        some = lines.send((yield some))
    return Reply(text + some, lines)


class Verb(NamedTuple):
    """One row of the protocol: what to do, in which states, with what arguments."""

    method: Callable[..., Reply | Turn]
    states: type[Authorization] | type[Maildrop] | tuple[type[Authorization], type[Maildrop]]
    grammar: commands.Grammar


_ANY: Final = (Authorization, Maildrop)

VERBS: Final[dict[bytes, Verb]] = {
    # RFC 1939 §5, §6
    b"STAT": Verb(Session.stat, Maildrop, commands.nothing),
    b"LIST": Verb(Session.list_, Maildrop, commands.optional_message_number),
    b"RETR": Verb(Session.retr, Maildrop, commands.message_number),
    b"DELE": Verb(Session.dele, Maildrop, commands.message_number),
    b"NOOP": Verb(Session.noop, Maildrop, commands.nothing),
    b"RSET": Verb(Session.rset, Maildrop, commands.nothing),
    b"QUIT": Verb(Session.quit, _ANY, commands.nothing),
    # RFC 1939 §7
    b"TOP": Verb(Session.top, Maildrop, commands.message_number_and_lines),
    b"UIDL": Verb(Session.uidl, Maildrop, commands.optional_message_number),
    b"USER": Verb(Session.user, Authorization, commands.name),
    b"PASS": Verb(Session.pass_, Authorization, commands.secret),
    # RFC 2449 §5, RFC 5034 §4, RFC 2595 §4
    b"CAPA": Verb(Session.capa, _ANY, commands.nothing),
    b"AUTH": Verb(Session.auth, Authorization, commands.mechanism),
    b"STLS": Verb(Session.stls, Authorization, commands.nothing),
    # RFC 6856 §2, §3
    b"UTF8": Verb(Session.utf8, Authorization, commands.nothing),
    b"LANG": Verb(Session.lang, _ANY, commands.optional_language),
}
