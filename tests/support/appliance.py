"""The whole appliance as a process of its own: started, stopped, killed and started again.

Each has a loopback address to itself, so its ports are free, stay its own while it is down, and no
other process's outgoing connection can sit on them.
"""

from __future__ import annotations

import io
import itertools
import os
import poplib
import re
import select
import shutil
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from mailstack import cli
from mailstack.auth.passwords import hash_password
from mailstack.mail.address import parse_mailbox
from mailstack.service.tls import write_self_signed
from mailstack.store import accounts, domains, integrity, messages
from mailstack.store.engine import Database
from mailstack.store.messages import Snapshot

HOSTNAME = "mail.example.test"
DOMAIN = "example.test"
PASSWORD = "correct horse"

# Below the range from which the kernel takes ports for outgoing connections.
SMTP_PORT, POP3_PORT, POP3S_PORT = 2525, 1110, 1995

# What is not closed, and what a later Python has no more (or forks beside a thread, since 3.12).
_WARNED = re.compile(r"\b(?:Resource|Deprecation)Warning: ")

READY_SECONDS = 60.0
STOP_SECONDS = 30.0

# poplib refuses lines of more than 2048 octets, which mail has and RFC 1939 allows.
poplib._MAXLINE = 64 * 1024 * 1024  # type: ignore[attr-defined]

_ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)


class Pop3(poplib.POP3):
    """Python's own keeps its socket where it is not greeted."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        try:
            super().__init__(*arguments, **options)
        except BaseException:
            if hasattr(self, "file"):
                self.close()
            raise


class Pop3s(Pop3, poplib.POP3_SSL):
    """The same under TLS from the start."""


class NotReady(AssertionError):
    """The process ended, or said nothing for too long, before its `ready`."""


@cache
def password_hash() -> str:
    """The hash of PASSWORD: made once, for it is slow on purpose."""
    return hash_password(PASSWORD)


def wait_until(condition: Callable[[], bool], *, what: str, seconds: float = 20.0) -> None:
    """Look again and again until the condition holds; fail with `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.01)


def _own_address() -> str:
    """A loopback address that nobody else uses: made of our process number and a count.

    Processes that were started one after the other, as a suite's are, have numbers that lie close.
    """
    number = os.getpid() % 8192 * 512 + next(_numbers)
    return f"127.{64 + number // 65536 % 64}.{number // 256 % 256}.{number % 256}"


class Process:
    """One `mailstack serve`."""

    def __init__(
        self, arguments: Sequence[str], *, environ: Mapping[str, str], log: Path, module: str = "mailstack"
    ) -> None:
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environ,
                cwd=log.parent,
            )
        self._log = log

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait for the line `ready`."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if readable else b""
        if line != b"ready\n":
            self.kill()
            raise NotReady(f"said {line!r}, then:\n{self._log.read_text()[-2000:]}")

    def terminate(self) -> None:
        """Send SIGTERM and do not wait."""
        self._process.terminate()

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for the end; return the exit code."""
        return self._process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, at once; what it has started ends, too, when it sees that."""
        started: list[int] = []
        for child in self.children() if self.running else ():
            with suppress(ProcessLookupError):
                started.append(os.pidfd_open(child))
        self._process.kill()
        self._process.wait(STOP_SECONDS)
        for each in started:
            assert select.select([each], [], [], STOP_SECONDS)[0]
            os.close(each)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def read_stdout(self) -> bytes:
        """All that it said on standard output, once it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.read()

    def children(self) -> list[int]:
        """The numbers of the processes that it has started: workers, or the one that writes for it."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(number) for number in listed.split()]


class Appliance:
    """A folder with settings and state, and the processes that serve from it."""

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str | None = None,
        settings: str = "",
        smtp: str = "",
        store: str = "",
        module: str = "mailstack",
    ) -> None:
        self._module = module  # what is run in the place of the server's own
        self.folder = folder
        self.host = _own_address()
        self.config = folder / "mailstack.toml"
        self.log = folder / "log"
        self.state_dir = folder / "state"
        self.url = database_url or f"sqlite:///{self.state_dir / 'mail.db'}"
        self.certificate = folder / "certificate.pem"
        self.state_dir.mkdir(exist_ok=True)
        self.log.touch()
        if not self.certificate.exists():
            write_self_signed(self.certificate, folder / "private_key.pem", HOSTNAME)
        self.config.write_text(
            f"""
hostname = "{HOSTNAME}"
default_domain = "{DOMAIN}"
state_dir = "{self.state_dir}"
database_url = "{self.url}"
{settings}
[tls]
certificate = "{self.certificate}"
private_key = "{folder / "private_key.pem"}"
[smtp]
listen = ["{self.host}:{SMTP_PORT}"]
{smtp}
[pop3]
listen = ["{self.host}:{POP3_PORT}"]
tls_listen = ["{self.host}:{POP3S_PORT}"]
[store]
{store}
"""
        )
        self.processes: list[Process] = []
        self._clients: list[poplib.POP3 | smtplib.SMTP] = []

    def __enter__(self) -> Appliance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for client in self._clients:
            with suppress(OSError):  # of one whose socket a test has closed
                client.close()
        if kind is None:
            warned = [line for line in self.said().splitlines() if _WARNED.search(line)]
            assert not warned, warned

    # -- processes -------------------------------------------------------------------------------

    def run(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Process:
        """Start `mailstack serve ARGUMENTS` and do not wait for it."""
        return self.begin("serve", *arguments, environ=environ)

    def begin(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Process:
        """Start any command of `mailstack` and do not wait for it."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith("MAILSTACK_")}
        process = Process(
            ["--config", str(self.config), *arguments],
            environ={
                **mine,
                "PYTHONPATH": str(_ROOT),
                "PYTHONWARNINGS": "always::ResourceWarning,always::DeprecationWarning",
                **(environ or {}),
            },
            log=self.log,
            module=self._module,
        )
        self.processes.append(process)
        return process

    def command(self, *arguments: str, seconds: float = 60.0) -> bytes:
        """Run any command of `mailstack` to its end, which must be a good one; what it says."""
        process = self.begin(*arguments)
        said = process.read_stdout()
        code = process.wait(seconds)
        process.kill()
        self.processes.remove(process)
        assert code == 0, f"{arguments} ended with {code}:\n{self.said()[-2000:]}"
        return said

    def obey(self, *arguments: str) -> bytes:
        """The same in this process, which spares the start of one; not on an event loop."""
        with io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) as said:
            with self.log.open("a") as log, redirect_stdout(said), redirect_stderr(log):
                code = cli.main(["--config", str(self.config), *arguments])
            assert code == 0, f"{arguments} ended with {code}:\n{self.said()[-2000:]}"
            assert isinstance(said.buffer, io.BytesIO)
            return said.buffer.getvalue()

    def start(self, *arguments: str) -> Process:
        """Start `mailstack serve ARGUMENTS` and wait until it is ready."""
        process = self.run(*arguments)
        process.wait_ready()
        return process

    def stop(self) -> None:
        """SIGTERM to every process; each must end by itself, and well."""
        for process in self.processes:
            process.terminate()
        codes = [process.wait() for process in self.processes]
        self.kill()
        assert codes == [0] * len(codes), self.said()

    def kill(self) -> None:
        """SIGKILL to every process."""
        for process in self.processes:
            process.kill()
        self.processes.clear()

    def said(self) -> str:
        """Everything on standard error so far."""
        return self.log.read_text()

    # -- the store, beside the service -----------------------------------------------------------

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The store, as the command line opens it."""
        database = Database(self.url)
        try:
            yield database
        finally:
            database.dispose()

    def add_accounts(self, *local_parts: str) -> None:
        """Make accounts in DOMAIN, all with the same PASSWORD."""
        with self.database() as database, database.writing() as connection:
            if DOMAIN not in {each.name for each in domains.list_domains(connection)}:
                domains.add_domain(connection, DOMAIN)
            for name in local_parts:
                accounts.add_account(
                    connection, parse_mailbox(f"{name}@{DOMAIN}"), password_hash=password_hash()
                )

    def snapshot(self, local_part: str) -> Snapshot:
        """The counters of an account."""
        with self.database() as database, database.reading() as connection:
            found = accounts.find_account(connection, parse_mailbox(f"{local_part}@{DOMAIN}"))
            return messages.snapshot(connection, found.id)

    def findings(self) -> list[str]:
        """What `database check` has to complain about."""
        with self.database() as database:
            return [each.text for step in integrity.check(database) for each in step.findings]

    # -- clients of Python's own library ---------------------------------------------------------

    def smtp(self) -> smtplib.SMTP:
        """A connection that has said EHLO."""
        connection = smtplib.SMTP(self.host, SMTP_PORT, local_hostname="client.example.net", timeout=60)
        self._clients.append(connection)
        connection.ehlo()
        return connection

    def send(self, content: bytes, *local_parts: str) -> tuple[int, bytes]:
        """One message in a connection of its own; the reply to its content, or the refusal before."""
        with self.smtp() as connection:
            return send(connection, content, *local_parts)

    def pop3_plain(self) -> poplib.POP3:
        """A connection that has been greeted."""
        connection = Pop3(self.host, POP3_PORT, timeout=60)
        self._clients.append(connection)
        return connection

    def pop3(self, local_part: str, *, tls: bool = False, utf8: bool = False) -> poplib.POP3:
        """A session that has logged in."""
        connection = self.pop3s() if tls else self.pop3_plain()
        if utf8:
            connection.utf8()
        connection.user(local_part)
        connection.pass_(PASSWORD)
        return connection

    def pop3s(self) -> poplib.POP3_SSL:
        """A connection over implicit TLS, its certificate checked."""
        connection = Pop3s(self.host, POP3S_PORT, context=self.tls_context(), timeout=60)
        self._clients.append(connection)
        return connection

    def tls_context(self) -> ssl.SSLContext:
        """A client's context that trusts our certificate alone; its name is not that of the address."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.check_hostname = False
        return context


def send(connection: smtplib.SMTP, content: bytes, *local_parts: str) -> tuple[int, bytes]:
    """One transaction; the reply to the content, or to the first command that was refused."""
    try:
        for code, text in (
            connection.mail("sender@example.net"),
            *(connection.rcpt(f"{name}@{DOMAIN}") for name in local_parts),
        ):
            if code != 250:
                connection.rset()
                return code, text
        return connection.data(content)
    except smtplib.SMTPDataError as error:
        return error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else b""


def retrieved(connection: poplib.POP3, number: int) -> bytes:
    """A message's octets as RETR sends them, without the stuffing."""
    _, lines, _ = connection.retr(number)
    return b"".join(line + b"\r\n" for line in lines)


def copy_template(template: Path, appliance: Appliance) -> None:
    """Give a SQLite appliance its schema: a copy of a file that the migrations made."""
    shutil.copy(template, appliance.state_dir / "mail.db")
