"""Opens a backup as a restore would, and checks every message in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from mailstack.store.backups.copy import Copy, as_it_is
from mailstack.store.backups.folder import Folder, Made
from mailstack.store.inspection import Inspection
from mailstack.store.progress import Progress

_AT_MOST: Final = 20
"""How many messages are told one by one before only their number is."""

# What the rest has to say of itself, and what is wrong where a query finds a row.
_CONTRADICTIONS: Final = (
    (
        "SELECT local_part FROM account WHERE messages <> (SELECT count(*) FROM entry WHERE account_id = id)"
        " OR octets <> (SELECT coalesce(sum(octets), 0) FROM entry WHERE account_id = account.id)",
        "the counters of the account {} are wrong",
    ),
    (
        "SELECT message_id FROM entry AS e JOIN message AS m ON m.id = e.message_id"
        " WHERE e.octets <> m.octets + length(e.prefix)",
        "an entry and its message {} differ in size",
    ),
    ('SELECT "table" FROM pragma_foreign_key_check', "a row of the table {} points to nothing"),
    ("SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'", "{}"),
)


class Verification:
    """One look through a backup; `run` yields its progress, afterwards `findings` tells the rest."""

    def __init__(self, folder: Folder, made: Made) -> None:
        self._folder = folder
        self._made = made
        self.findings: list[str] = []
        self.messages = 0

    def run(self) -> Iterator[Progress]:
        """Read everything once; raises BadData where there is nothing to read."""
        with as_it_is(self._folder, self._made) as copy:
            for query, said in _CONTRADICTIONS:
                rows = islice(copy.rows(query), _AT_MOST)
                self.findings.extend(f"{self._made.name}: {said.format(value)}" for (value,) in rows)
            yield from self._content(copy)

    def _content(self, copy: Copy) -> Iterator[Progress]:
        total, done = copy.want(), 0
        for message, rows in copy.contents(self.findings):
            inspection = Inspection(*message)
            for number, octets in rows:
                inspection.see(number, octets)
            if inspection.fault:
                self.findings.append(inspection.fault)
            self.messages += 1
            done += message.octets
            yield Progress(done, total)
        missing = copy.not_found()
        self.findings.extend(f"message {number} is in no archive" for number in missing[:_AT_MOST])
        if len(missing) > _AT_MOST:
            self.findings.append(f"{len(missing) - _AT_MOST} more messages are in no archive")
