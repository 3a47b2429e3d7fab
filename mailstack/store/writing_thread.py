"""A thread that writes, for a process that writes little or does nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from queue import SimpleQueue

from mailstack import log
from mailstack.store.batches import Batches, Task
from mailstack.store.engine import Database
from mailstack.store.writer import Writer


class WritingThread:
    """The hand of a Writer that shares its process."""

    def __init__(self, writer: Writer, database: Database) -> None:
        self._writer = writer
        self._batches = Batches(database)
        self._loop = asyncio.get_running_loop()
        self._handed: SimpleQueue[Sequence[Task]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def take(self, batch: Sequence[Task]) -> None:
        """Write these, which are not none."""
        self._handed.put(batch)

    async def close(self) -> None:
        """End the thread."""
        self._handed.put(())
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._batches.close)

    def _run(self) -> None:
        try:
            self._write_all()
        except Exception as error:
            log.failure("writing thread", error)  # whoever waits for it would wait for ever
            self._loop.call_soon_threadsafe(self._writer.lose, "the thread that writes has died")

    def _write_all(self) -> None:
        while batch := self._handed.get():
            report = self._batches.write(batch)
            # One wake-up of the loop for the batch, not one for each job.
            self._loop.call_soon_threadsafe(self._writer.report, report)
            self._batches.tidy()
