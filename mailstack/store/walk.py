"""Reading ahead for a client that walks through its maildrop, which is how mail programs download.

A question to the store costs more than the look at one message. So one question brings some of the
messages behind the one that was wanted, more of them the longer the walk goes on; what it brought is
here when it is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from mailstack.errors import MessageDamaged, StoreDamaged
from mailstack.store import damage, digests, fetching
from mailstack.store.fetching import NOTHING, Ahead, Opened
from mailstack.store.parts import parts_in
from mailstack.store.readers import Readers
from mailstack.store.writer import Writer

_FIRST_OCTETS: Final = 64 * 1024
_MOST_OCTETS: Final = 512 * 1024
"""What one walk reads ahead: so much at first, then twice as much each time, and no more than this."""

_NEAR: Final = 20
"""Whoever goes no further than so many uids, which may have gaps, goes on in order."""

_ALL_OCTETS: Final = 32 * 1024 * 1024
"""What all walks of a process hold; beyond it they go message by message."""


class Budget:
    """Octets of memory that many share."""

    __slots__ = ("left",)

    def __init__(self, octets: int) -> None:
        self.left = octets

    def take(self, octets: int) -> int:
        """As many of them as there are."""
        taken = min(octets, self.left)
        self.left -= taken
        return taken

    def give(self, octets: int) -> None:
        """They are free again."""
        self.left += octets


class Source:
    """What all walks of a store need."""

    __slots__ = ("budget", "readers", "writer")

    def __init__(self, readers: Readers, writer: Writer) -> None:
        self.readers: Final = readers
        self.writer: Final = writer
        self.budget: Final = Budget(_ALL_OCTETS)


class Content:
    """A message that was found, and its octets: `async for piece in content` reads as it goes.

    A piece is at most PIECE_OCTETS and one entry's prefix; those of PARTS_A_STEP parts are in memory.
    No transaction lives between two steps, so a client that reads slowly keeps nothing of the database
    busy.
    """

    __slots__ = ("_opened", "_source", "dotted", "octets")

    def __init__(self, source: Source, opened: Opened) -> None:
        self._source = source
        self._opened = opened
        self.octets: Final = opened.octets
        """How many octets all pieces have together."""
        self.dotted: Final = opened.dotted
        """Whether some line begins with a dot, so that it must be stuffed."""

    def whole(self) -> Sequence[bytes] | None:
        """All its pieces, where they are here already."""
        opened = self._opened
        return opened.first if opened.held == opened.octets else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = list(reversed(self._opened.first))
        opened = self._opened = self._opened._replace(first=())  # a client may take hours for the rest
        sent, parts = 0, parts_in(opened.content_octets)
        for number in range(1, parts + fetching.PARTS_A_STEP, fetching.PARTS_A_STEP):
            while pieces:
                sent += len(pieces[-1])
                yield pieces.pop()  # and this piece is the client's now
            if number < parts:
                pieces = await self._step(opened, number)
        if sent != opened.octets:
            raise digests.damaged(opened.message_id)

    async def _step(self, opened: Opened, number: int) -> list[bytes]:
        """The pieces of the next parts, the first one last."""
        try:
            pieces = await self._source.readers.read(
                lambda connection: fetching.step(connection, opened, number)
            )
        except (MessageDamaged, StoreDamaged):
            # The reply has begun and can only be cut; the next attempt is refused in words.
            await self._source.writer.write(damage.note, opened.message_id)
            raise
        pieces.reverse()
        return pieces


class Walk:
    """One session's way through the entries of its snapshot; owned by the event loop."""

    __slots__ = ("_account_id", "_ahead", "_at", "_closed", "_last_uid", "_source", "_surrogates", "_window")

    def __init__(self, source: Source, account_id: int, last_uid: int, *, surrogates: bool = False) -> None:
        self._source: Final = source
        self._account_id: Final = account_id
        self._last_uid: Final = last_uid
        self._surrogates: Final = surrogates
        self._ahead: dict[int, Opened] = {}
        self._at = 0  # the uid that was wanted last
        self._window = 0
        self._closed = False

    async def open(self, uid: int, *, peek: bool = False, behind: int = 0) -> Content:
        """Find a message and read its first part; raises MessageGone or MessageDamaged.

        A `peek` is no step of the walk. Those that come `behind` it, so many at most, have been asked
        for, too.
        """
        content = self.at_once(uid, peek=peek)
        if content is None:
            opened = await (self._found(uid, NOTHING) if peek else self._step(uid, behind))
            content = Content(self._source, opened[0])
        return content

    def at_once(self, uid: int, *, peek: bool = False) -> Content | None:
        """The same where the message was read ahead, else None."""
        opened = self._ahead.get(uid)
        if opened is None:
            return None
        if not peek:
            self._at = uid
            del self._ahead[uid]
            self._source.budget.left += opened.held
        return Content(self._source, opened)

    def close(self) -> None:
        """Forget what was read ahead; nothing more will be."""
        self._closed = True
        self._forget()

    def _forget(self) -> None:
        for opened in self._ahead.values():
            self._source.budget.give(opened.held)
        self._ahead.clear()

    async def _step(self, uid: int, behind: int) -> list[Opened]:
        """Read the entry, and ahead of it where all that was read ahead so far has been wanted.

        A jump from there ends no walk: where it goes on behind it, it does so at the pace it had.
        What was asked for already is read without waiting to see the pace.
        """
        near = self._at < uid <= self._at + _NEAR or not self._at
        if self._ahead:
            self._window = 0
        elif near:
            self._window = min(max(2 * self._window, _FIRST_OCTETS), _MOST_OCTETS)
        self._at = uid
        self._forget()
        budget, left = self._source.budget, 0
        pace = self._window if near else 0
        granted = budget.take(_MOST_OCTETS if pace and behind else pace)
        try:
            found = await self._found(uid, Ahead(min(pace, granted), behind, granted))
            if not self._closed:
                self._ahead = {opened.uid: opened for opened in found[1:]}
                left = sum(opened.held for opened in found[1:])
        finally:
            budget.give(granted - left)
        return found

    async def _found(self, uid: int, ahead: Ahead) -> list[Opened]:
        readers, account_id = self._source.readers, self._account_id
        last_uid, surrogates = self._last_uid, self._surrogates
        try:
            return await readers.read(
                lambda connection: fetching.open_messages(
                    connection, account_id, uid, ahead=ahead, last_uid=last_uid, surrogates=surrogates
                )
            )
        except StoreDamaged as error:
            if ahead.most:  # it may be only what comes behind this one
                return await self._found(uid, NOTHING)
            message_id = await readers.read(lambda connection: fetching.number(connection, account_id, uid))
            raise digests.damaged(message_id) from error
