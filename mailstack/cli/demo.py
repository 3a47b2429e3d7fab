"""`mailstack demo`: a server to try, with an account and a first message, for as long as one watches."""

from __future__ import annotations

import os
import shutil
import signal
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from mailstack import settings
from mailstack.cli import activity, demo_words, places, show
from mailstack.cli.demo_home import ADDRESS, Home
from mailstack.errors import StoreUnavailable

EXAMPLE = "Example: mailstack demo --directory ~/mailstack-demo --base-port 20000"

_PATIENCE_SECONDS: Final = 30
"""How long the server may take to stop: its own bound, and half of that again."""


def demo(
    directory: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the demo keeps its mail; made if need be.")
    ] = Path(".run"),
    base_port: Annotated[
        int | None,
        typer.Option(metavar="N", help="Listen on ports N+25, N+110 and N+995 from now on."),
    ] = None,
) -> None:
    """Run a server to try, on this machine only: all set up, with an account and a first message."""
    ports = None if base_port is None else places.above(base_port)
    home = Home(directory)
    home.prepare()
    if ports:
        home.listen_on(ports)
    found = settings.load(home.config, os.environ)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with _Server(home.config) as server:
        if server.ready():
            if not home.notes.welcomed:
                _send_welcome(found)
                home.remember_welcome()
            words = demo_words.guide(
                found,
                directory=home.directory,
                config=home.config,
                password=home.notes.password,
                program=_program(),
            )
            for line in words.splitlines():
                console.print(Text(line.removeprefix("# "), "bold" if line.startswith("#") else ""))
            for line in server.log_lines():
                console.print(activity.told(line))
    if not server.asked_to_stop:
        raise typer.Exit(_explained(server))
    console.print(f"stopped; the mail is in {home.directory}, and the next start finds it there")


class _Server:
    """`mailstack serve` as a child, which is told to stop when somebody tells us to.

    Everything happens in the main thread: it reads what the child writes until the child has ended,
    and a signal does no more than pass on the wish.
    """

    def __init__(self, config: Path) -> None:
        self.asked_to_stop = False
        self.code = 0
        self.last_words: list[str] = []  # what it said when nobody listened any more
        self._process: subprocess.Popen[str] | None = None
        self._command = [sys.executable, "-m", "mailstack", "--config", str(config), "serve"]

    def __enter__(self) -> _Server:
        # Python would leave SIGINT ignored where we were started in the background of a script.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._kill)
        # In our own process group: whoever signals the group reaches the server, too.
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
        )
        if self.asked_to_stop:  # while it was being started
            self._process.terminate()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is not None:
            self._stop()
        with self._child:  # which closes the pipes, and waits
            self.last_words.extend(self.log_lines())
        self.code = self._child.returncode
        signal.alarm(0)

    def ready(self) -> bool:
        """Wait until every listener accepts; False if the server ended instead."""
        assert self._child.stdout is not None
        return self._child.stdout.readline() == "ready\n"

    def log_lines(self) -> Iterator[str]:
        """What the server tells, as it tells it, until it ends."""
        assert self._child.stderr is not None
        for line in self._child.stderr:
            yield line.rstrip("\n")

    @property
    def _child(self) -> subprocess.Popen[str]:
        assert self._process is not None, "__enter__ comes first"
        return self._process

    def _stop(self, *_: object) -> None:
        if not self.asked_to_stop:
            self.asked_to_stop = True
            signal.alarm(_PATIENCE_SECONDS)
        if self._process is not None:
            self._process.terminate()

    def _kill(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()


def _send_welcome(found: settings.Settings) -> None:
    address = demo_words.first_tcp(found.smtp.listen)
    try:
        with smtplib.SMTP(address.host, address.port, timeout=_PATIENCE_SECONDS) as smtp:
            smtp.send_message(demo_words.welcome(), to_addrs=[str(ADDRESS)])
    except (OSError, smtplib.SMTPException) as error:
        raise StoreUnavailable(f"the welcome message could not be delivered: {error}") from error


def _program() -> str:
    """How a person calls us: as they did, if that was by our name."""
    called = sys.argv[0]
    return called if called.endswith("/mailstack") and shutil.which(called) else "mailstack"


def _explained(server: _Server) -> int:
    for line in server.last_words:
        show.note(line)
    if any("cannot listen on" in line for line in server.last_words):
        show.note("is a demo running already? --base-port 20000 takes ports 20025, 20110 and 20995")
        show.note("with make: make run PORTS=20000")
    elif not server.last_words:
        show.note(f"mailstack: the server has ended by itself, with code {server.code}")
    return server.code if server.code > 0 else os.EX_SOFTWARE
