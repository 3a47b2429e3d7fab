"""A server made of the pure parts and literal answers: bytes in, bytes out, no clock, no socket."""

from __future__ import annotations

import base64
from array import array
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from mailstack.auth import sasl, scram
from mailstack.auth.mechanisms import offered
from mailstack.errors import (
    LoggedInLately,
    LoginRefused,
    MaildropInUse,
    MailstackError,
    MessageGone,
    StoreUnavailable,
)
from mailstack.mail.surrogate import in_ascii
from mailstack.pop3 import pages
from mailstack.pop3.asks import (
    Ask,
    Enter,
    Expunge,
    FindKeys,
    Judge,
    LoadExpiry,
    LoadLayout,
    LoadListing,
    LoadMechanisms,
    LoadUniqueIds,
    LogIn,
    OpenMessage,
)
from mailstack.pop3.capabilities import Channel
from mailstack.pop3.lines import LineReader
from mailstack.pop3.replies import Lines, Reply, reply_to
from mailstack.pop3.session import Session
from mailstack.pop3.stuffing import Transfer
from mailstack.store.digests import damaged
from mailstack.store.limits import Expiry
from mailstack.store.listing import Layout, Listing, UniqueIds
from mailstack.store.messages import Snapshot
from tests.pop3.transcript import NAME, SECRET, Utf8

CHANNELS = {
    "clear": Channel(tls=False, plaintext_login=False),
    "loopback": Channel(tls=False, plaintext_login=True),
    "tls": Channel(tls=True, plaintext_login=False),
    "bound": Channel(tls=True, plaintext_login=False, end_point=b"a hash"),
}

SECRETS = {NAME: SECRET, "jürgen@müller.example": "Grüße an \u00c5"}

# RFC 7677 §3
SCRAM_NAME = "user"
SCRAM_SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
SCRAM_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SCRAM_KEYS = scram.keys("pencil", iterations=4096, salt=SCRAM_SALT)
STRANGERS_KEYS = scram.nobodys_keys("nobody", b"secret", iterations=4096)


class LiteralContent:
    """One message, already in memory."""

    def __init__(self, octets: bytes, part_octets: int) -> None:
        self.parts = [octets[at : at + part_octets] for at in range(0, len(octets), part_octets)]
        self.octets = len(octets)
        self.dotted = octets.startswith(b".") or b"\n." in octets

    def whole(self) -> None:
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part


@dataclass
class Maildrops:
    """One account's maildrop, its lock, and the failures that a test wants."""

    messages: dict[int, bytes] = field(default_factory=dict)
    next_uid: int = 1
    locked: bool = False
    logged_in: bool = False  # once
    all_have_keys: bool = True
    failing: set[type[object]] = field(default_factory=set)
    part_octets: int = 7
    surrogates: dict[int, bytes] = field(default_factory=dict)
    expiry: Expiry | None = field(default_factory=lambda: Expiry(None, differs=False))
    expiry_of_all: Expiry | None = None  # where it is another
    damaged: bool = False
    asked: list[Ask] = field(default_factory=list)

    @classmethod
    def of(cls, *contents: bytes) -> Maildrops:
        maildrop = cls()
        for content in contents:
            maildrop.deliver(content)
        return maildrop

    def seen(self, uid: int, *, surrogates: bool) -> bytes:
        """A message as a session gets it."""
        return self.surrogates.get(uid, self.messages[uid]) if surrogates else self.messages[uid]

    def deliver(self, content: bytes) -> None:
        self.messages[self.next_uid] = content
        if isinstance(content, Utf8):
            self.surrogates[self.next_uid] = in_ascii(content)
        self.next_uid += 1


class PureServer:
    """One connection: what is fed is obeyed at once; what is to be sent is returned."""

    def __init__(self, maildrops: Maildrops, channel: Channel = CHANNELS["loopback"]) -> None:
        self.maildrops = maildrops
        self._reader = LineReader()
        self._holds_lock = False
        self.snapshot: Snapshot | None = None
        self.start_tls = False
        self.closed = False
        self.replies = 0
        self.begin(channel)

    def begin(self, channel: Channel) -> bytes:
        self.channel = channel
        self.session = Session(channel)
        self.start_tls = False
        return self.session.greeting().text

    def feed(self, octets: bytes) -> bytes:
        if self.closed:
            return b""
        sent = []
        self._reader.feed(octets)
        while not self.closed and not self.start_tls and (line := self._next_line()) is not None:
            reply = self._run(self.session.obey(line, more=self._reader.more))
            self.replies += 1
            sent.append(self._rendered(reply))
            self.start_tls = reply.start_tls
            if self.session.ended or self._reader.endless:
                self.end()
        return b"".join(sent)

    def _next_line(self) -> bytes | None:
        return self._reader.take(self.session.longest_line)

    def end(self) -> None:
        self.closed = True
        if self._holds_lock:
            self._holds_lock = self.maildrops.locked = False

    def _run(self, turn: Reply | Generator[Ask, Any, Reply]) -> Reply:
        if isinstance(turn, Reply):
            return turn
        try:
            ask = next(turn)
            while True:
                try:
                    answer = self._answer(ask)
                except Exception as error:
                    ask = turn.throw(error)
                else:
                    ask = turn.send(answer)
        except StopIteration as end:
            reply: Reply = end.value
            return reply
        except Exception as error:  # what the connection logs before it answers
            return reply_to(error)

    def _answer(self, ask: Ask) -> object:
        maildrops = self.maildrops
        maildrops.asked.append(ask)
        if type(ask) in maildrops.failing:
            raise StoreUnavailable("the disk is on fire")
        match ask:
            case LoadMechanisms() | LogIn() | FindKeys() | Judge() | Enter():
                return self._authenticate(ask)
            case LoadExpiry():
                others = None if self.session.logged_in else maildrops.expiry_of_all
                return others or maildrops.expiry
            case LoadLayout():
                uids = self._uids()
                return Layout(array("q", uids[:: pages.PAGE_ENTRIES]), len(uids))
            case LoadListing(first_uid, last_uid, surrogates):
                uids = self._uids(first_uid, last_uid)
                sizes = (len(maildrops.seen(uid, surrogates=surrogates)) for uid in uids)
                return Listing(array("q", uids), array("q", sizes))
            case LoadUniqueIds(first_uid, last_uid):
                return UniqueIds(" ".join(f"77.{uid}" for uid in self._uids(first_uid, last_uid)))
            case OpenMessage(uid, surrogates=surrogates):
                if uid not in maildrops.messages:
                    raise MessageGone("gone")
                if maildrops.damaged:
                    raise damaged(uid)
                return LiteralContent(maildrops.seen(uid, surrogates=surrogates), maildrops.part_octets)
            case Expunge(uids):
                for uid in uids:
                    del maildrops.messages[uid]
                return None

    def _authenticate(self, ask: LoadMechanisms | LogIn | FindKeys | Judge | Enter) -> object:
        match ask:
            case LoadMechanisms(channel):
                return offered(channel, keys=self.maildrops.all_have_keys)
            case LogIn(name, secret, acting_as):
                if SECRETS.get(name) != secret or acting_as not in ("", name):
                    raise LoginRefused("no")
                return self._open()
            case FindKeys(name, acting_as):
                known = name == SCRAM_NAME and acting_as in ("", name)
                return sasl.Found(SCRAM_KEYS if known else STRANGERS_KEYS, SCRAM_NONCE)
            case Judge(_, proven):
                if not proven:
                    raise LoginRefused("no")
                return None
            case Enter():
                return self._open()

    def _open(self) -> Snapshot:
        maildrops = self.maildrops
        if maildrops.locked:
            raise MaildropInUse("held since 12:00:00 UTC by a session from 192.0.2.7")
        if maildrops.logged_in and self.channel.login_delay_seconds:
            raise LoggedInLately("the last login was 1 seconds ago, wait 59 more")
        self._holds_lock = maildrops.locked = maildrops.logged_in = True
        octets = sum(map(len, maildrops.messages.values()))
        more = sum(
            len(maildrops.seen(uid, surrogates=True)) - len(maildrops.messages[uid])
            for uid in maildrops.messages
        )
        counters = len(maildrops.messages), octets, maildrops.next_uid - 1
        self.snapshot = Snapshot(*counters, None, len(maildrops.surrogates), more)
        return self.snapshot

    def _uids(self, first_uid: int = 0, last_uid: int = 1 << 62) -> list[int]:
        assert self.snapshot is not None
        last_uid = min(last_uid, self.snapshot.last_uid)
        return [uid for uid in self.maildrops.messages if first_uid <= uid <= last_uid]

    def _rendered(self, reply: Reply) -> bytes:
        """All octets of a reply."""
        sent = [reply.text]
        if reply.lines is not None:
            sent += self._listed(reply.lines)
        elif reply.message is not None:
            content, of_body = reply.message
            assert isinstance(content, LiteralContent)
            transfer = Transfer(dotted=content.dotted, lines=of_body)
            sent += [*map(transfer.feed, content.parts), transfer.finish()]
            self.session.tally.finish_sending()
        return b"".join(sent)

    def _listed(self, lines: Lines) -> Iterator[bytes]:
        """A list as far as it can be read; what has begun can only be cut."""
        answer = None
        try:
            while True:
                some = lines.send(answer)
                answer = None if isinstance(some, bytes) else self._answer(some)
                if isinstance(some, bytes):
                    yield some
        except StopIteration:
            pass
        except MailstackError:
            self.end()
