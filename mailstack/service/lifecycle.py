"""One serving process from start to stop: what is opened on the way up is closed on the way down."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Protocol

from mailstack import log
from mailstack.auth.passwords import Verifier
from mailstack.delivery import Delivery
from mailstack.directory import Directory
from mailstack.pop3 import listener as pop3
from mailstack.service import housekeeping, memory
from mailstack.service.answers import answers
from mailstack.service.contexts import TlsContext
from mailstack.service.control import Control
from mailstack.service.heartbeat import READY, Heartbeat
from mailstack.service.reload import Reload, Reread
from mailstack.service.sockets import Sockets
from mailstack.service.watchdog import Watchdog
from mailstack.service.watching import CertificateWatch
from mailstack.settings import Settings
from mailstack.smtp.listener import Listener as SmtpListener
from mailstack.smtp.receiver import Reception
from mailstack.smtp.site import Site
from mailstack.store import fitness, schema
from mailstack.store.engine import Database
from mailstack.store.housekeeping import Rules
from mailstack.store.store import Store

DRAIN_SECONDS: Final = 20.0
"""How long running transactions may take to end when the server stops."""


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


async def serve(settings: Settings, sockets: Sockets, *, reread: Reread, keeps_house: bool = False) -> int:
    """Serve on the sockets until SIGTERM or SIGINT; SIGHUP reads certificate and settings anew."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        store = await _opened(settings, stack)
        files = settings.certificate_files
        tls = TlsContext(*files)
        binding = settings.auth.channel_binding
        pop3_tls = TlsContext(*files, channel_binding=binding, protocol="pop3")
        watch = CertificateWatch(files, (tls, pop3_tls))
        stack.callback(watch.close)
        verifier = Verifier()
        stack.callback(verifier.close)
        directory = Directory(
            store,
            verifier,
            default_domain=settings.default_domain,
            postmaster=settings.postmaster,
            scram_iterations=settings.auth.scram_iterations,
        )
        smtp_listeners = await _smtp(settings, sockets, directory, store, tls)
        pop3_listeners = await _pop3(settings, sockets, directory, store, pop3_tls)
        listeners: list[Listener] = [*smtp_listeners, *pop3_listeners]
        control = Control(
            settings.control_dir, answers(store, smtp_listeners, pop3_listeners, sockets=sockets)
        )
        await control.open()
        stack.push_async_callback(control.close)
        stack.push_async_callback(_drain, listeners)
        if "metrics" in sockets:
            from mailstack.service import metrics  # with a library that no other process needs

            stack.callback(metrics.serve(sockets["metrics"], settings, store))
        heartbeat = Heartbeat(store, list(sockets), listeners)

        def adopt(new: Settings) -> None:
            watch.follow(new.certificate_files)  # the only one that may refuse, so it comes first
            log.configure(new.log.level)
            directory.adopt(default_domain=new.default_domain, postmaster=new.postmaster)
            for smtp_listener in smtp_listeners:
                smtp_listener.adopt(new.smtp)
            for pop3_listener in pop3_listeners:
                pop3_listener.adopt(new.pop3)

        loop.add_signal_handler(signal.SIGHUP, Reload(settings, reread, adopt, heartbeat))
        if keeps_house:
            await stack.enter_async_context(housekeeping.kept(store, settings))
        if settings.log.level == "debug":
            stack.callback(Watchdog().close)
        log.event("serving", on=_described(sockets))
        memory.settle()
        heartbeat.ready()
        print(READY, flush=True)
        async with heartbeat.kept():
            await stop.wait()
        heartbeat.stopping()
        log.event("stopping")
    log.event("stopped")
    return 0


async def _opened(settings: Settings, stack: AsyncExitStack) -> Store:
    database = Database(settings.url)
    stack.callback(database.dispose)
    with database.reading() as connection:
        schema.check(connection)
    fitness.check(database)
    _spool_dir(settings).mkdir(mode=0o700, exist_ok=True)
    store = Store(
        database,
        state_dir=settings.state_dir,
        reserve_octets=settings.store.reserve_octets,
        keep_deleted=settings.retention.undo_deleted_seconds > 0,
        keep_events=settings.trace.keep_seconds > 0,
    )
    stack.push_async_callback(store.close)
    return store


async def _smtp(
    settings: Settings, sockets: Sockets, directory: Directory, store: Store, tls: TlsContext
) -> list[SmtpListener]:
    delivery = Delivery(
        store,
        hostname=settings.hostname,
        spool_dir=_spool_dir(settings),
        max_message_octets=settings.smtp.max_message_octets,
        max_header_octets=settings.smtp.max_header_octets,
        max_octets_in_flight=settings.smtp.max_octets_in_flight,
        reject_bare_newlines=settings.smtp.bare_newlines == "reject",
    )
    listeners: list[SmtpListener] = []
    for name in ("smtp", "lmtp"):
        if name in sockets:
            site = Site(
                hostname=settings.hostname,
                directory=directory,
                delivery=delivery,
                tls_available=lambda: True,
                lmtp=name == "lmtp",
                settings=settings.smtp,
            )
            listener = SmtpListener(Reception(site, tls))
            await listener.open(sockets[name])
            listeners.append(listener)
    return listeners


async def _pop3(
    settings: Settings, sockets: Sockets, directory: Directory, store: Store, tls: TlsContext
) -> list[pop3.Listener]:
    return [
        await pop3.serve(
            sockets[name],
            store=store,
            directory=directory,
            tls=tls,
            implicit_tls=name == "pop3s",
            allow_plaintext_login=settings.pop3.allow_plaintext_login,
            idle_seconds=settings.pop3.idle_seconds,
            login_idle_seconds=settings.pop3.login_idle_seconds,
            login_delay_seconds=settings.pop3.login_delay_seconds,
            retention=Rules.of(settings).default,
        )
        for name in ("pop3", "pop3s")
        if name in sockets
    ]


def _spool_dir(settings: Settings) -> Path:
    return settings.state_dir / "spool"  # not /tmp, which may be memory


async def _drain(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.close()
    await asyncio.gather(*(listener.drain(DRAIN_SECONDS) for listener in listeners))


def _described(sockets: Sockets) -> str:
    return ", ".join(f"{name} {_address(each)}" for name, several in sockets.items() for each in several)


def _address(bound: socket.socket) -> str:
    name = bound.getsockname()
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)
