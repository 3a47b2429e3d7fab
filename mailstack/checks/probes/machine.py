"""Looks at the box: memory, disks, clock, its own addresses."""

from __future__ import annotations

import ctypes
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mailstack.checks.facts import Backups, Disk, Machine, Memory
from mailstack.errors import MailstackError
from mailstack.store.backups.folder import Folder

_FAR_AWAY: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses for documentation (RFC 5737, RFC 3849): a route is looked up, and nothing is sent."""

_SYNCHRONISED: Final = Path("/run/systemd/timesync/synchronized")
_UNSYNCHRONISED: Final = 0x40  # STA_UNSYNC of adjtimex(2)
_TIME_ERROR: Final = 5


def look(state_dir: Path, backup_folder: Path) -> Machine:
    """All of it, within milliseconds."""
    return Machine(
        name=own_name(),
        memory=memory(Path("/proc/meminfo")),
        state_disk=disk(state_dir),
        backup_disk=disk(backup_folder),
        clock_is_synchronised=clock_is_synchronised(),
        addresses=tuple(_addresses()),
        backups=backups(backup_folder),
    )


def own_name() -> str:
    """What the machine is called, with its domain where it knows one."""
    return full_name(socket.gethostname(), Path("/etc/hosts"))


def full_name(name: str, hosts: Path) -> str:
    """The machine's name with its domain, as Debian keeps it in /etc/hosts; asks no resolver."""
    if "." in name:
        return name
    try:
        lines = hosts.read_text(errors="replace").splitlines()
    except OSError:
        return name
    for words in (line.partition("#")[0].split()[1:] for line in lines):
        if name in words and (full := next((each for each in words if each.startswith(f"{name}.")), "")):
            return full
    return name


def memory(file: Path) -> Memory | None:
    """What the kernel says; None where it is hidden."""
    try:
        found = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", file.read_text(), re.MULTILINE))
        return Memory(int(found["MemTotal"]) * 1024, int(found["MemAvailable"]) * 1024)
    except (OSError, KeyError):
        return None


def disk(path: Path) -> Disk | None:
    """The file system on which a folder is or will be; None where not even that can be seen."""
    existing = next((each for each in (path, *path.parents) if each.exists()), None)
    if existing is None:
        return None
    try:
        found, device = os.statvfs(existing), existing.stat().st_dev
    except OSError:
        return None
    return Disk(
        path,
        device,
        total=found.f_blocks * found.f_frsize,
        free=found.f_bavail * found.f_frsize,
        inodes=found.f_files,
        free_inodes=found.f_favail,
    )


def backups(path: Path) -> Backups:
    """The newest finished backup in a folder."""
    folder = Folder(path)
    try:
        if not path.exists() or not any(path.iterdir()):
            return Backups()
        store, made = folder.open(), folder.backups()
    except MailstackError as error:
        return Backups(problem=str(error))
    except OSError as error:
        return Backups(problem=f"{path} cannot be read: {error.strerror}")
    return Backups(made[-1].facts.made_at if made else None, store)


class _Timex(ctypes.Structure):
    """The head of `struct timex`, and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def clock_is_synchronised() -> bool | None:
    """What the kernel has been told by whoever keeps its clock; None where it does not say."""
    asked = _Timex()
    try:
        state: int = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(asked))
    except (OSError, AttributeError):
        state = -1
    if state < 0:  # a sandbox forbids the question; systemd-timesyncd leaves a mark for everybody
        return True if _SYNCHRONISED.exists() else None
    return state != _TIME_ERROR and not asked.status & _UNSYNCHRONISED


def _addresses() -> Iterator[str]:
    for family, far in _FAR_AWAY:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((far, 9))
                yield probe.getsockname()[0]
        except OSError:
            continue
