"""The entries of a maildrop as a session reads them: a page at a time, whatever their number.

A client may ask for the list of a maildrop of any size and then not read it, so no session holds
more of one than a page. All pages are found by the uids with which they begin, and nobody but the
session removes anything while it has the lock: a number means the same message on every reading.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, NamedTuple, TypeVar

from mailstack.errors import StoreUnavailable
from mailstack.pop3.asks import Ask, LoadLayout, LoadListing, LoadUniqueIds
from mailstack.store.listing import PAGE_ENTRIES, Layout, Listing, UniqueIds
from mailstack.store.messages import Snapshot

T = TypeVar("T")

Asking = Generator[Ask, Any, T]
"""What yields asks and is sent their answers until it returns."""


class Entry(NamedTuple):
    """One message of the maildrop."""

    number: int
    uid: int
    octets: int


class Pages:
    """The pages of a snapshot, and the one of each list that was needed last."""

    __slots__ = ("_last_uid", "_layout", "_listing", "_messages", "_surrogates", "_unique_ids")

    def __init__(self, snapshot: Snapshot, *, surrogates: bool) -> None:
        self._messages: Final = snapshot.messages
        self._last_uid: Final = snapshot.last_uid
        self._surrogates: Final = surrogates
        self._layout: Layout | None = None
        self._listing: tuple[int, Listing] | None = None
        self._unique_ids: tuple[int, UniqueIds] | None = None

    def __len__(self) -> int:
        """How many pages there are; of an empty maildrop one, which says that it is empty."""
        return max(1, -(-self._messages // PAGE_ENTRIES))

    def at_hand(self, number: int) -> Entry | None:
        """The message of a number that the maildrop has; None where its page has to be read first."""
        page, index = divmod(number - 1, PAGE_ENTRIES)
        if self._listing is None or self._listing[0] != page:
            return None
        listing = self._listing[1]
        return Entry(number, listing.uids[index], listing.octets[index])

    def entry(self, number: int) -> Asking[Entry]:
        """The same in any case."""
        entry = self.at_hand(number)
        if entry is None:
            page, index = divmod(number - 1, PAGE_ENTRIES)
            listing = yield from self.listing(page)
            entry = Entry(number, listing.uids[index], listing.octets[index])
        return entry

    def unique_id(self, number: int) -> Asking[str]:
        """Its UIDL."""
        page, index = divmod(number - 1, PAGE_ENTRIES)
        if self._unique_ids is None or self._unique_ids[0] != page:
            # Whoever asks one by one will go on so; after the whole list, nobody asks again.
            self._unique_ids = page, (yield from self.unique_ids(page))
        return self._unique_ids[1][index]

    def listing(self, page: int) -> Asking[Listing]:
        """The page of LIST; raises StoreUnavailable where it contradicts what STAT has told."""
        if self._listing is None or self._listing[0] != page:
            first, last = yield from self._ends(page)
            listing = yield LoadListing(first, last, self._surrogates)
            self._check(page, len(listing.uids))
            self._listing = page, listing
        return self._listing[1]

    def unique_ids(self, page: int) -> Asking[UniqueIds]:
        """The page of UIDL, which is not kept; raises as above."""
        if self._unique_ids is not None and self._unique_ids[0] == page:
            return self._unique_ids[1]
        first, last = yield from self._ends(page)
        unique_ids: UniqueIds = yield LoadUniqueIds(first, last)
        self._check(page, len(unique_ids))
        return unique_ids

    def _ends(self, page: int) -> Asking[tuple[int, int]]:
        """The uids between which the entries of a page are."""
        if len(self) == 1:
            return 0, self._last_uid
        if self._layout is None:
            layout: Layout = yield LoadLayout()
            if layout.entries != self._messages:
                raise _contradiction()
            self._layout = layout
        firsts = self._layout.firsts
        return firsts[page], self._last_uid if page + 1 == len(firsts) else firsts[page + 1] - 1

    def _check(self, page: int, entries: int) -> None:
        if entries != min(self._messages - page * PAGE_ENTRIES, PAGE_ENTRIES):
            raise _contradiction()


def _contradiction() -> StoreUnavailable:
    return StoreUnavailable("the maildrop's entries do not agree with its counters")
