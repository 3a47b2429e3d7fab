"""One serving process from start to stop: what is opened on the way up is closed on the way down."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from mailstack import log, memory
from mailstack.auth.logins import Logins
from mailstack.auth.passwords import Verifier
from mailstack.directory import Directory
from mailstack.service import housekeeping, roles
from mailstack.service.answers import answers
from mailstack.service.contexts import TicketTurn, TlsContext
from mailstack.service.control import Control
from mailstack.service.heartbeat import READY, Heartbeat
from mailstack.service.reload import Reload, Reread
from mailstack.service.sockets import Sockets
from mailstack.service.systemd import Manager
from mailstack.service.tickets import TicketKeys
from mailstack.service.watchdog import WatchdogOfDebug
from mailstack.service.watching import CertificateWatch
from mailstack.settings import Settings, share
from mailstack.store import fitness, schema
from mailstack.store.engine import Database
from mailstack.store.store import Store
from mailstack.store.writing_process import WritingProcess

if TYPE_CHECKING:  # a process for one protocol does not read the code of the other
    from mailstack.pop3.listener import Listener as Pop3Listener
    from mailstack.smtp.listener import Listener as SmtpListener

DRAIN_SECONDS: Final = 20.0
"""How long running transactions may take to end when the server stops."""

_LOST_DRAIN_SECONDS: Final = 1.0
"""The same where nothing can be written any more: replies go out, and the next process takes over."""


class Listener(Protocol):
    """What the lifecycle needs of a protocol's listener."""

    def close(self) -> None:
        """Accept nothing more."""
        ...

    @property
    def sessions(self) -> int:
        """How many connections are open."""
        ...

    async def drain(self, timeout_seconds: float, /) -> None:
        """Let what is under way end, within the bound."""
        ...


async def serve(
    settings: Settings,
    sockets: Sockets,
    *,
    manager: Manager,
    tickets: TicketKeys,
    reread: Reread,
    keeps_house: bool = False,
    workers: int = 1,
    writing: WritingProcess | None = None,
) -> int:
    """Serve on the sockets, as one of so many processes, until SIGTERM or SIGINT; the manager hears of it.

    The settings are those of the whole server, and this process keeps to its share of them. SIGHUP reads
    them and the certificate anew. Returns the exit code: 1 where the writing process has died.
    """
    loop = asyncio.get_running_loop()
    stop, end = _stopping(loop)
    async with AsyncExitStack() as stack:
        store = await _opened(settings, stack, writing)
        store.on_writer_lost.append(partial(end, 1))
        tls, pop3_tls = contexts = _contexts(settings, tickets)
        stack.callback(TicketTurn(tickets, contexts).close)
        watch = CertificateWatch(settings.certificate_files, contexts)
        stack.callback(watch.close)
        directory = Directory(
            store,
            hostname=settings.hostname,
            default_domain=settings.default_domain,
            postmaster=settings.postmaster,
        )
        logins = _logins(settings, store, stack, workers)
        smtp_listeners: list[SmtpListener] = []
        pop3_listeners: list[Pop3Listener] = []
        if not sockets.keys().isdisjoint(roles.SMTP):
            from mailstack.service import smtp

            smtp_listeners = await smtp.opened(share(settings, workers), sockets, directory, store, tls)
        if not sockets.keys().isdisjoint(roles.POP3):
            from mailstack.service import pop3

            pop3_listeners = await pop3.opened(share(settings, workers), sockets, logins, store, pop3_tls)
        listeners: list[Listener] = [*smtp_listeners, *pop3_listeners]
        control = Control(
            settings.control_dir, answers(store, smtp_listeners, pop3_listeners, sockets=sockets)
        )
        await control.open()
        stack.push_async_callback(control.close)
        stack.push_async_callback(_drain, listeners, stop)
        if "metrics" in sockets:
            from mailstack.service import metrics  # with a library that no other process needs

            stack.callback(metrics.serve(sockets["metrics"], settings, store))
        heartbeat = Heartbeat(manager, store, list(sockets), listeners)
        watchdog = stack.enter_context(closing(WatchdogOfDebug(settings.log.level)))

        def adopt(new: Settings) -> None:
            watch.follow(new.certificate_files)  # the only one that may refuse, so it comes first
            log.configure(new.log.level)
            watchdog.adopt(new.log.level)
            directory.adopt(default_domain=new.default_domain, postmaster=new.postmaster)
            logins.adopt(default_domain=new.default_domain)
            for smtp_listener in smtp_listeners:
                smtp_listener.adopt(share(new, workers).smtp)
            for pop3_listener in pop3_listeners:
                pop3_listener.adopt(share(new, workers).pop3)

        loop.add_signal_handler(signal.SIGHUP, Reload(settings, reread, adopt, heartbeat))
        if keeps_house:
            await stack.enter_async_context(housekeeping.kept(store, settings))
        log.event("serving", on=_described(sockets))
        memory.settle()
        heartbeat.ready()
        print(READY, flush=True)
        async with heartbeat.kept():
            await stop
        heartbeat.stopping()
        log.event("stopping")
    log.event("stopped")
    return stop.result()


def _stopping(loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Future[int], Callable[[int], None]]:
    """What comes with the exit code when the process is to stop, and what says so: a signal, say."""
    stop: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not stop.done():
            stop.set_result(code)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, 0)
    return stop, end


def _contexts(settings: Settings, tickets: TicketKeys) -> tuple[TlsContext, TlsContext]:
    """For SMTP, which has no name for ALPN, and for POP3."""
    files, binding = settings.certificate_files, settings.auth.channel_binding
    pop3 = TlsContext(*files, channel_binding=binding, protocol="pop3", tickets=tickets)
    return TlsContext(*files, tickets=tickets), pop3


async def _opened(settings: Settings, stack: AsyncExitStack, writing: WritingProcess | None) -> Store:
    database = Database(settings.url)
    stack.callback(database.dispose)
    with database.reading() as connection:
        schema.check(connection)
    fitness.check(database)
    settings.spool_dir.mkdir(mode=0o700, exist_ok=True)
    store = Store.of(database, settings, writing=writing)
    stack.push_async_callback(store.close)
    store.leftovers.ask()  # what a process before this one has left
    return store


def _logins(settings: Settings, store: Store, stack: AsyncExitStack, workers: int) -> Logins:
    verifier = Verifier(workers)
    stack.callback(verifier.close)
    return Logins(
        store,
        verifier,
        default_domain=settings.default_domain,
        scram_iterations=settings.auth.scram_iterations,
    )


async def _drain(listeners: list[Listener], stop: asyncio.Future[int]) -> None:
    for listener in listeners:
        listener.close()
    lost = stop.done() and not stop.cancelled() and stop.result() != 0
    seconds = _LOST_DRAIN_SECONDS if lost else DRAIN_SECONDS
    await asyncio.gather(*(listener.drain(seconds) for listener in listeners))


def _described(sockets: Sockets) -> str:
    return ", ".join(f"{name} {_address(each)}" for name, several in sockets.items() for each in several)


def _address(bound: socket.socket) -> str:
    name = bound.getsockname()
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)
