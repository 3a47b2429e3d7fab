"""The start of the service: sockets, workers, and the loop that each process runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from itertools import chain

import uvloop

from mailstack import memory
from mailstack.service import descriptors, lifecycle, roles, sockets, supervisor
from mailstack.service.contexts import TlsContext
from mailstack.service.reload import Reread
from mailstack.service.systemd import Manager
from mailstack.service.tickets import TicketKeys
from mailstack.settings import Settings
from mailstack.store import fitness, schema, writing_process
from mailstack.store.engine import Database


def run(settings: Settings, wanted: Sequence[str], workers: int, reread: Reread) -> int:
    """Serve until told to stop, in so many processes; return the exit code.

    `reread` gives the settings as they are now, the environment included.
    """
    memory.tell_allocator(memory.SERVING_OCTETS)
    descriptors.raise_limit()
    _ensure_certificate(settings)
    listening = sockets.inherited(os.environ) or sockets.bind(roles.addresses(settings, wanted))
    try:
        return _served(settings, wanted, workers, reread, listening)
    finally:
        for each in chain.from_iterable(listening.values()):
            each.close()


def _served(
    settings: Settings, wanted: Sequence[str], workers: int, reread: Reread, listening: sockets.Sockets
) -> int:
    manager = Manager.of(os.environ)
    tickets = TicketKeys()
    receives = not listening.keys().isdisjoint(roles.SMTP)
    if workers > 1 or receives:  # some process is forked
        roles.read_code(listening)
        _rehearse(settings)
    if workers > 1:
        outcome = supervisor.supervise(workers, manager, tickets)
        if isinstance(outcome, int):
            return outcome
        manager = outcome
        settings = reread()  # who comes after one that died goes by what they say now
    writing = writing_process.fork(settings.url) if receives else None
    keeps_house = not wanted or "housekeeping" in wanted
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(
                lifecycle.serve(
                    settings,
                    listening,
                    manager=manager,
                    tickets=tickets,
                    reread=reread,
                    keeps_house=keeps_house,
                    workers=workers,
                    writing=writing,
                )
            )
    finally:
        if writing is not None:  # which the store has ended, but for a start that failed
            writing.end()


def _rehearse(settings: Settings) -> None:
    """Do what each process does at its start, before they are forked: what it leaves in memory is shared.

    No thread and no connection outlives it. Raises what would keep them from starting.
    """
    database = Database(settings.url)
    try:
        with database.reading() as connection:
            schema.check(connection)
        fitness.check(database)
    finally:
        database.dispose()
    TlsContext(*settings.certificate_files)


def _ensure_certificate(settings: Settings) -> None:
    """TLS works from the first start on; what the settings name is left to whoever named it."""
    certificate, private_key = settings.certificate_files
    if settings.tls.certificate is None and not (certificate.exists() and private_key.exists()):
        from mailstack.service.tls import ensure  # with a library that is not needed again

        ensure(certificate, private_key, settings.hostname)
