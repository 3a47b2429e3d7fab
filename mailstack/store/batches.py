"""What waits to be written is written together: one COMMIT serves everyone who waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Connection

from mailstack.errors import StoreContended, StoreCutOff, StoreUnavailable, Temporary
from mailstack.store.checkpoint import Checkpointer
from mailstack.store.engine import Database

Job = TypeVar("Job")
Result = TypeVar("Result")
Work = Callable[[Connection, Sequence[Job]], Sequence[Result | Exception]]
"""Set-wise work: all jobs of its kind in a batch at once, a result or an error for each, in their order.

What it raises undoes the batch, and each of its jobs is tried alone.
"""

_CONTENDED_SECONDS: Final = 0.05  # PostgreSQL waits 20 times as long before it looks for a deadlock


class Task(NamedTuple):
    """One job, the work that does it, and the memory that it holds while it waits."""

    work: Work[Any, Any]
    job: Any
    octets: int


class Report(NamedTuple):
    """What became of a batch, and how long it has taken."""

    done: Sequence[Any]  # of each job the result, or the error that came instead
    seconds: float


class Batches:
    """Writes one batch after the other; belongs to one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._checkpointer = Checkpointer(database) if database.is_sqlite else None

    def write(self, batch: Sequence[Task]) -> Report:
        """Do the jobs and commit; what they say is true once this returns."""
        began = time.monotonic()
        done = self._done(batch)
        return Report(done, time.monotonic() - began)

    def tidy(self) -> None:
        """Copy SQLite's log back where it has grown long; for the moment behind a report."""
        if self._checkpointer is not None:
            self._checkpointer.after_commit()

    def close(self) -> None:
        """End what is being copied."""
        if self._checkpointer is not None:
            self._checkpointer.close()

    def _done(self, batch: Sequence[Task], tries: int = 3) -> list[Any]:
        began = ran = False
        try:
            with self._database.writing() as connection:
                began = True
                done = _results(connection, batch)
                ran = True
        except Exception as error:
            if began and not ran and isinstance(error, StoreContended | StoreCutOff) and tries > 1:
                # Another host's batch wanted the same maildrops in another order: it has them once it has
                # woken up, and on a busy machine that may be after we have locked them again. Or the server
                # was started again before our COMMIT, and all that is left is to connect to it.
                time.sleep(_CONTENDED_SECONDS)
                return self._done(batch, tries - 1)
            if began and not ran and len(batch) > 1:
                # One job's statement failed. Nothing is committed, so each may have its own try.
                return list(self._one_by_one(batch))
            # No transaction at all, or a COMMIT of which nobody knows how it ended: doing the jobs
            # again could store them twice. The senders are told to come back.
            return [error] * len(batch)
        return done

    def _one_by_one(self, batch: Sequence[Task]) -> Iterator[Any]:
        for number, task in enumerate(batch, 1):
            (done,) = self._done([task])
            yield done
            if isinstance(done, StoreUnavailable) and not self._database_answers():
                # Each of the others would wait for it as long as this one did, one after the other.
                yield from [done] * (len(batch) - number)
                return

    def _database_answers(self) -> bool:
        try:
            with self._database.writing():
                return True
        except Temporary:
            return False


def _results(connection: Connection, batch: Sequence[Task]) -> list[Any]:
    """The result of each job in its place, each kind of work done once."""
    groups: dict[Work[Any, Any], list[int]] = {}
    for place, task in enumerate(batch):
        groups.setdefault(task.work, []).append(place)
    results: list[Any] = [None] * len(batch)
    for work, places in groups.items():
        found = work(connection, [batch[place].job for place in places])
        for place, result in zip(places, found, strict=True):
            results[place] = result
    return results
