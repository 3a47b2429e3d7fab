"""What a server's processes have used: CPU by the kernel's own accounts, memory by PSS."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

_CGROUPS = Path("/sys/fs/cgroup")
_TICKS = os.sysconf("SC_CLK_TCK")
_REST_SECONDS = 0.25
_RESTING = 0.05
"""Of a core."""


class Used(NamedTuple):
    """CPU seconds and a moment, to be subtracted from later ones."""

    cpu: float
    at: float


class Account:
    """The processes of one server: those in its control group, or else those below its first one.

    A control group also counts children that have ended, whoever waited for them. Without one (no
    root, say) it is the sum over the tree of processes, in ticks of 10 ms; a server that waits for
    its children, as all of these do, loses none of them.
    """

    def __init__(self, name: str, *, owes: Callable[[], bool] = lambda: False) -> None:
        """`owes`: whether the server itself says that it has put off something that it has to do."""
        self._owes = owes
        self._roots: list[int] = []
        v2 = (_CGROUPS / "cgroup.controllers").exists()
        base = _CGROUPS if v2 else _CGROUPS / "cpuacct"
        self._usage = "cpu.stat" if v2 else "cpuacct.usage"
        self._group: Path | None = base / f"mailstack-bench-{os.getpid()}-{name}"
        try:
            self._group.mkdir()
            (self._group / self._usage).read_text()
        except OSError:
            self._group = None

    def command(self, command: Sequence[str]) -> list[str]:
        """The same command, to be started within the account."""
        if self._group is None:
            return list(command)
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self._group / "cgroup.procs"), *command]

    def watch(self, pid: int) -> None:
        """This process and all below it belong to the server."""
        self._roots.append(pid)

    def used(self) -> Used:
        """CPU seconds so far."""
        return Used(self._seconds(), time.monotonic())

    def settle(self, most_seconds: float = 90) -> None:
        """Wait until the server rests and owes nothing: what it has put off is done, and counted.

        Raises RuntimeError where that does not come.
        """
        until = time.monotonic() + most_seconds
        before = self._seconds()
        while time.monotonic() < until:
            time.sleep(_REST_SECONDS)
            now = self._seconds()
            if now - before < _REST_SECONDS * _RESTING and not self._owes():
                return
            before = now
        raise RuntimeError("the server does not come to rest")

    def _seconds(self) -> float:
        if self._group is None:
            return sum(sum(map(int, _stat(pid)[11:15])) for pid in self.pids()) / _TICKS
        text = (self._group / self._usage).read_text()
        if self._usage == "cpu.stat":
            return int(text.split()[1]) / 1e6  # usage_usec
        return int(text) / 1e9

    def pids(self) -> set[int]:
        """The processes there are now."""
        children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and (fields := _stat(int(name))):
                children.setdefault(int(fields[1]), []).append(int(name))
        found: set[int] = set()
        ahead = list(self._roots)
        while ahead:
            pid = ahead.pop()
            if pid not in found:
                found.add(pid)
                ahead += children.get(pid, [])
        return found

    def pss_kib(self) -> int:
        """Memory of all processes, pages that several share shared out among them."""
        total = 0
        for pid in self.pids():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total

    def close(self) -> None:
        """Give the control group back, once nobody is in it."""
        for _ in range(50):
            try:
                if self._group is not None:
                    self._group.rmdir()
                return
            except OSError:
                time.sleep(0.1)


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()
