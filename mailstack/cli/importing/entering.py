"""The second way through a source: what the maildrop lacks is read again and entered, many in a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from mailstack import log
from mailstack.cli.importing import measuring
from mailstack.cli.importing.measuring import Measured
from mailstack.cli.importing.source import Source
from mailstack.mail import arrival
from mailstack.mail.spool import Spool
from mailstack.mail.surrogate import surrogate
from mailstack.settings import Settings
from mailstack.store import imports
from mailstack.store.engine import Database
from mailstack.store.imports import Batch, Decision, Fate, Imported, Item, Stand
from mailstack.store.progress import Progress
from mailstack.store.store import Store

_BATCH_OCTETS: Final = 8 * 1024 * 1024
_BATCH_MESSAGES: Final = 500


class Entering:
    """One import; `run` yields its progress, in messages."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        source: Source,
        *,
        account_id: int,
        stand: Stand,
        told: str,
    ) -> None:
        self.entered = 0
        """How many messages are in the maildrop by now, on disk."""
        self._database = database
        self._settings = settings
        self._spool_dir = settings.spool_dir
        self._account_id = account_id
        self._stand = stand
        self._source = source
        self._told = told
        self._name = log.new_session_id()

    def run(self, messages: Sequence[tuple[Measured, Decision]]) -> Iterator[Progress]:
        """Enter what is new, in the order of the source; can be done again after a stop at any point."""
        with asyncio.Runner() as runner:
            store = runner.run(self._opened())
            try:
                for here in _slices([each for each in messages if each[1].fate is Fate.HERE]):
                    rows = tuple(
                        Imported(each.digest, each.source_id, made.unique_id or "") for each, made in here
                    )
                    runner.run(self._enter(store, (), rows))
                new = [each for each in messages if each[1].fate is Fate.NEW]
                for some in _slices(new):
                    with self._spooled(some) as items:
                        if items:
                            runner.run(self._enter(store, items, ()))
                    self.entered += len(items)
                    yield Progress(self.entered, len(new))
            finally:
                runner.run(store.close())

    async def _opened(self) -> Store:
        self._spool_dir.mkdir(mode=0o700, exist_ok=True)
        return Store.of(self._database, self._settings)

    async def _enter(self, store: Store, items: tuple[Item, ...], here: tuple[Imported, ...]) -> None:
        spools = [spool for each in items for spool in each.spools]
        await store.disk.require(sum(spool.octets for spool in spools))
        batch = Batch(self._account_id, self._stand, self._name, self._told, items, here)
        in_memory = sum(spool.in_memory for spool in spools)
        self._stand = await store.write(imports.enter, batch, octets=in_memory)

    @contextmanager
    def _spooled(self, messages: Sequence[tuple[Measured, Decision]]) -> Iterator[tuple[Item, ...]]:
        items: list[Item] = []
        try:
            for each, decision in messages:
                if (item := self._item(each, decision)) is not None:
                    items.append(item)
            yield tuple(items)
        finally:
            for spool in (spool for each in items for spool in each.spools):
                spool.close()

    def _item(self, each: Measured, decision: Decision) -> Item | None:
        with ExitStack() as stack:
            spool = stack.enter_context(Spool(self._spool_dir))
            try:
                content = measuring.spooled(self._source.chunks(each.found), spool)
                if content.digest != each.digest:
                    raise OSError("it changed while the import ran; run the same command again")
            except OSError as error:
                self._source.problems.append(f"{each.found.place}: {error.strerror or error}")
                return None
            # For clients that have not said UTF8, as it would have come by SMTP (RFC 6858).
            international = arrival.is_internationalized(content.head)
            in_ascii = surrogate(spool, self._spool_dir) if international else None
            stack.pop_all()  # whoever has the item closes its spools
            return Item(
                digest=each.digest,
                source_id=each.source_id,
                unique_id=decision.unique_id,
                spool=spool,
                dotted=content.dotted,
                reverse_path=each.reverse_path,
                at=each.at,
                surrogate=in_ascii,
            )


def _slices(messages: Sequence[tuple[Measured, Decision]]) -> Iterator[list[tuple[Measured, Decision]]]:
    """As many at a time as one commit is worth; a large message alone."""
    some: list[tuple[Measured, Decision]] = []
    octets = 0
    for each in messages:
        octets += each[0].octets
        if some and (octets > _BATCH_OCTETS or len(some) == _BATCH_MESSAGES):
            yield some
            some, octets = [], each[0].octets
        some.append(each)
    if some:
        yield some
