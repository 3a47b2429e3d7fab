"""A machine in a box: a real systemd as process 1 of a container, with a disk and a network of its own.

systemd-nspawn starts it over an overlay, so a box begins as a fresh machine and keeps its disk over
reboots. Nothing outside its folder is written but a control group, which goes with it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")

BOOT_SECONDS = 60.0
STOP_SECONDS = 90.0

_CLONE_NEWNET = 0x4000_0000
_POWEROFF = signal.SIGRTMIN + 4  # systemd(1), SIGNALS

# nspawn forbids bpf(2) by itself; without it systemd accepts IPAddressDeny= and DevicePolicy= in the
# box and does not enforce them.
_CAPABILITIES = "CAP_BPF,CAP_PERFMON,CAP_SYS_RESOURCE,CAP_NET_ADMIN"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_libc = ctypes.CDLL(None, use_errno=True)


class Failed(AssertionError):
    """A command in the box ended badly."""


def reason_to_skip() -> str | None:
    """Why no box can be booted on this machine, or None."""
    if os.geteuid() != 0:
        return "booting a real systemd needs root"
    for tool, package in (("systemd-nspawn", "systemd-container"), ("mmdebstrap", "mmdebstrap")):
        if shutil.which(tool) is None:
            return f"booting a real systemd needs {tool}: apt-get install {package}"
    if _control_groups() is None:
        return "booting a real systemd needs a control group tree of version 2"
    return None


def _control_groups() -> Path | None:
    """Where the tree of version 2 is, if this machine may write there."""
    for tree in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (
            (tree / "cgroup.procs").exists()
            and os.access(tree, os.W_OK)
            and (tree / "cgroup.controllers").exists()
        ):
            return tree
    return None


class Box:
    """One machine; a context manager that leaves nothing behind."""

    def __init__(self, folder: Path, rootfs: Path) -> None:
        self.root = folder / "root"
        self._console = folder / "console"
        self._name = f"mailstack-{os.getpid()}-{folder.name[-24:]}"
        tree = _control_groups()
        assert tree is not None
        self._groups = [tree / self._name]
        if (named := tree.parent / "systemd").is_dir():  # a machine of both versions
            self._groups.append(named / self._name)
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._in_network: ThreadPoolExecutor | None = None
        for name in ("root", "upper", "work"):
            (folder / name).mkdir(parents=True)
        layers = f"lowerdir={rootfs},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        subprocess.run(["mount", "-t", "overlay", self._name, "-o", layers, self.root], check=True)

    def __enter__(self) -> Box:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nspawn is not None:
            self._end(signal.SIGKILL)
        subprocess.run(["umount", self.root], check=True)

    # -- power -------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Switch it on and wait until systemd has started everything."""
        for group in self._groups:
            group.mkdir(exist_ok=True)
        enter = " ".join(f"echo $$ > {group}/cgroup.procs;" for group in self._groups)
        command = [
            *("systemd-nspawn", "--quiet", "-D", str(self.root), f"--machine={self._name[:60]}", "--boot"),
            *("--system-call-filter=bpf", f"--capability={_CAPABILITIES}", "--register=no", "--keep-unit"),
            *("--console=pipe", "--link-journal=no", "--timezone=off", "--settings=no", "--private-network"),
        ]
        environ = {"PATH": _PATH, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_LOCK": "0"}
        with self._console.open("wb") as console:
            self._nspawn = subprocess.Popen(
                ["sh", "-c", f'{enter} exec "$@"', "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environ,
                start_new_session=True,
            )
        self._wait_until_up()
        self._in_network = ThreadPoolExecutor(32, initializer=_enter_network, initargs=(self._leader,))

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        state = ""
        while state not in ("running", "degraded"):
            assert self._nspawn is not None
            assert self._nspawn.poll() is None, self._console.read_text()
            assert time.monotonic() < deadline, f"not up but {state!r}: {self._console.read_text()}"
            time.sleep(0.05)
            self._leader = self._found_leader()
            if self._leader and Path(f"/proc/{self._leader}/root/run/dbus/system_bus_socket").exists():
                state = self.said("systemctl", "is-system-running").strip()
        failed = self.said("systemctl", "--failed", "--no-legend", "--plain")
        assert state == "running", failed

    def _found_leader(self) -> int:
        """The number, as this machine counts, of the box's process 1; 0 while there is none."""
        assert self._nspawn is not None
        with suppress(FileNotFoundError, ProcessLookupError):
            for children in Path(f"/proc/{self._nspawn.pid}/task").glob("*/children"):
                for child in children.read_text().split():
                    status = Path(f"/proc/{child}/status").read_text()
                    if any(
                        line.split()[-1] == "1" for line in status.splitlines() if line.startswith("NSpid:")
                    ):
                        return int(child)
        return 0

    def power_off(self) -> None:
        """Shut it down in order; its disk stays."""
        self._end(_POWEROFF)

    def _end(self, number: int) -> None:
        assert self._nspawn is not None
        if self._in_network is not None:
            self._in_network.shutdown(wait=False, cancel_futures=True)
            self._in_network = None
        with suppress(ProcessLookupError):
            os.kill(self._leader or self._nspawn.pid, number)
        try:
            self._nspawn.wait(STOP_SECONDS)
        finally:
            if self._nspawn.poll() is None:
                self._nspawn.kill()
                self._nspawn.wait()
            self._nspawn = None
            for group in self._groups:
                for each in sorted(group.rglob("*"), reverse=True):
                    if each.is_dir():
                        with suppress(OSError):
                            each.rmdir()
                with suppress(OSError):
                    group.rmdir()

    # -- what happens in it --------------------------------------------------------------------------

    def run(self, *command: str, stdin: str = "", seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command as the box's root, with an environment as after a login."""
        environ = [f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8"]
        return subprocess.run(
            ["nsenter", "-t", str(self._leader), "-a", "--", "env", "-i", *environ, *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def said(self, *command: str) -> str:
        """What a command prints, however it ends."""
        done = self.run(*command)
        return done.stdout + done.stderr

    def good(self, *command: str, stdin: str = "", seconds: float = 120.0) -> str:
        """What a command prints that has to end well."""
        done = self.run(*command, stdin=stdin, seconds=seconds)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def copy_in(self, file: Path, place: str) -> None:
        """Put a file of this machine onto the box's disk."""
        shutil.copy(file, self.root / place.lstrip("/"))

    def unit(self, name: str, field: str) -> str:
        """One property of a unit."""
        return self.good("systemctl", "show", "--value", "-p", field, name).strip()

    def journal(self, unit: str) -> str:
        """All that a unit has said until now: what lies in the sockets of the journal is read first."""
        self.good("journalctl", "--sync")
        return self.good("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    # -- clients of this machine, in its network -------------------------------------------------------

    def client(self, *command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a program of this machine that sees the box's network and nothing else of it."""
        return subprocess.run(
            [*self.enter_network, *command],
            input=stdin,
            capture_output=True,
            timeout=120,
        )

    @property
    def enter_network(self) -> tuple[str, ...]:
        """What stands before a command of this machine that shall run in the box's network."""
        return ("nsenter", "-t", str(self._leader), "-n", "--")

    def inside(self, function: Callable[[], T]) -> T:
        """Call a function on a thread that lives in the box's network."""
        return self.inside_all([function])[0]

    def inside_all(self, functions: Sequence[Callable[[], T]]) -> list[T]:
        """Call functions at the same time, each on such a thread."""
        assert self._in_network is not None
        return [each.result(120) for each in [self._in_network.submit(one) for one in functions]]

    def in_background(self, function: Callable[[], T]) -> Callable[[], T]:
        """Start a function on such a thread; the result is what waits for its result."""
        assert self._in_network is not None
        future = self._in_network.submit(function)
        return lambda: future.result(120)


def _enter_network(leader: int) -> None:
    """Have this thread live in another network (setns(2)); threads that do so must not be reused outside."""
    with Path(f"/proc/{leader}/ns/net").open() as network:
        if _libc.setns(network.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns in {threading.current_thread().name}")
