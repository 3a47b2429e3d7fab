"""Judgements about the box: memory, disks, clock, name, ports, what it may open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from mailstack.checks.facts import Disk, Facts, Port, Process
from mailstack.checks.finding import Finding, advice, fine, unknown, warning, wrong
from mailstack.settings import Settings, share

_MEBIBYTE: Final = 1 << 20
LEAST_MEMORY_OCTETS: Final = 256 * _MEBIBYTE
"""What a server with its workers may need at a busy moment."""

ROOM_OCTETS: Final = 1 << 30
_FULL_SHARE: Final = 0.1
_OLDEST_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""No machine that runs this program can be earlier than that."""

_PRIVATE_ENDINGS: Final = (".local", ".localdomain", ".lan", ".home", ".internal", ".home.arpa", ".localhost")
_STOPS: Final = {
    "master": "postfix", "exim4": "exim4", "exim": "exim4", "sendmail-mta": "sendmail", "smtpd": "opensmtpd",
    "dovecot": "dovecot", "couriertcpd": "courier", "chasquid": "chasquid", "maddy": "maddy",
}  # fmt: skip
"""What a mail server's process is called, and its service in Debian."""

_SPARE_DESCRIPTORS: Final = 512
"""For the store, for the log, and for large messages, of which each has a file until it is stored."""


def memory(facts: Facts) -> Iterator[Finding]:
    """Whether there is enough of it."""
    seen = facts.machine.memory if facts.machine else None
    if seen is None:
        yield unknown("memory", "the memory could not be measured")
    elif seen.available < LEAST_MEMORY_OCTETS:
        yield warning(
            "memory",
            f"only {_size(seen.available)} of {_size(seen.total)} memory are left for programs",
            "A machine that runs out of memory ends programs, and mail waits on the sender's side meanwhile.",
            "Stop what is not needed, add swap, or give the machine 1 GiB:"
            " fallocate -l 1G /swap && chmod 600 /swap && mkswap /swap && swapon /swap",
        )
    else:
        yield fine("memory", f"{_size(seen.available)} of {_size(seen.total)} are free")


def disk(facts: Facts) -> Iterator[Finding]:
    """Whether mail has room."""
    seen = facts.machine.state_disk if facts.machine else None
    if seen is None:
        yield unknown("disk", f"the disk of {facts.settings.state_dir} could not be measured")
        return
    reserve = facts.settings.store.reserve_octets
    if seen.free < reserve:
        yield wrong(
            "disk",
            f"{_size(seen.free)} are free on the disk of {seen.path}; the reserve is {_size(reserve)}",
            "No mail is taken any more; senders are asked to come back later and give up after some days.",
            "Make room or enlarge the disk; mailstack account list shows who holds how much",
        )
    elif seen.free < ROOM_OCTETS or seen.free < seen.total * _FULL_SHARE:
        yield warning(
            "disk",
            f"only {_size(seen.free)} of {_size(seen.total)} are free on the disk of {seen.path}",
            "When less than the reserve is left, no mail is taken any more.",
            "Make room or enlarge the disk; mailstack account list shows who holds how much",
        )
    elif seen.inodes and seen.free_inodes < seen.inodes // 50:
        yield warning(
            "disk",
            f"the file system of {seen.path} has room for {seen.free_inodes} more files only",
            "Without room for another file nothing can be written, however many octets are free.",
            f"Find the folder with many files: du --inodes -x {seen.path} | sort -n | tail",
        )
    else:
        yield fine("disk", f"{_size(seen.free)} of {_size(seen.total)} are free for {seen.path}")


def clock(facts: Facts) -> Iterator[Finding]:
    """Whether it is right, as far as can be told without asking another clock."""
    synchronised = facts.machine.clock_is_synchronised if facts.machine else None
    if facts.now < _OLDEST_NOW:
        yield wrong(
            "clock",
            f"the clock says {facts.now:%Y-%m-%d %H:%M} UTC, which is long past",
            "Certificates are refused as not yet valid, and mail gets wrong dates.",
            "timedatectl set-ntp true",
        )
    elif synchronised is None:
        yield unknown(
            "clock", f"the clock says {facts.now:%Y-%m-%d %H:%M} UTC; nobody tells whether it is kept right"
        )
    elif not synchronised:
        yield warning(
            "clock",
            f"the clock says {facts.now:%Y-%m-%d %H:%M} UTC and is not synchronised",
            "A clock that drifts gives mail wrong dates and one day finds good certificates invalid.",
            "apt install systemd-timesyncd && timedatectl set-ntp true",
        )
    else:
        yield fine("clock", f"{facts.now:%Y-%m-%d %H:%M} UTC, synchronised")


def hostname(facts: Facts) -> Iterator[Finding]:
    """Whether the server's name is one that other servers can look up."""
    name, machine = facts.host, facts.machine.name.lower() if facts.machine else ""
    if not is_public_name(name):
        yield wrong(
            "hostname",
            f"{name} is no name in the public DNS",
            "The MX record, the certificate and the greeting need a name that the whole world can look up.",
            "Set hostname in the settings to a name like mail.example.org; and hostnamectl set-hostname NAME",
        )
    elif machine and machine != name:
        yield advice(
            "hostname",
            f"the server calls itself {name}, and the machine {machine}",
            "That is no fault; but other programs of this machine tell their peers the other name.",
            f"hostnamectl set-hostname {name}",
        )
    else:
        yield fine("hostname", name)


def is_public_name(name: str) -> bool:
    """Whether a name can be one of the public DNS."""
    return "." in name and not name.lower().endswith(_PRIVATE_ENDINGS)


def free_ports(facts: Facts) -> Iterator[Finding]:
    """Whether we can have the ports: before the first start, or again."""
    for port in facts.ports or ():
        if not port.held:
            yield fine(f"port {port.address}", "free")
        elif port.ours or (port.ours is None and _is_handed_over(facts)):
            yield fine(f"port {port.address}", "held by mailstack")
        else:
            yield _taken(port)


def _is_handed_over(facts: Facts) -> bool:
    """Whether systemd, which holds a port, holds it for us."""
    seen = facts.service.units if facts.service else None
    return any(unit.name.endswith(".socket") and unit.active == "active" for unit in seen or ())


def _taken(port: Port) -> Finding:
    name = port.holder.partition(" ")[0]
    service = _STOPS.get(name)
    by = f"held by {port.holder}" if port.holder else "held by another program"
    stop = f"systemctl disable --now {service}" if service else "Find it: ss -ltnp; then stop it"
    return wrong(
        f"port {port.address}",
        f"{port.role} needs {port.address}, which is {by}",
        "Only one program can have a port; mailstack starts as soon as that one has gone.",
        f"{stop}; then run mailstack setup again" if service else stop,
    )


def listeners(facts: Facts) -> Iterator[Finding]:
    """Whether each address of the settings answers."""
    for port in facts.ports or ():
        subject = f"{port.role} {port.address}"
        if port.answers:
            yield fine(subject, "answers")
        elif port.held and port.ours is False:
            yield _taken(port)._replace(subject=subject)
        else:
            yield wrong(
                subject,
                f"nobody answers on {port.address}"
                if not port.held
                else f"{port.address} does not answer {port.role}",
                "Mail is neither received nor fetched there.",
                "systemctl status 'mailstack*' tells why; or start it: mailstack serve",
            )


def open_files(facts: Facts) -> Iterator[Finding]:
    """Whether processes may open as many files as the settings allow them connections."""
    workers: dict[tuple[str, ...], list[Process]] = {}
    for process in (facts.service.processes if facts.service else None) or ():
        workers.setdefault(process.sockets, []).append(process)
    for alike in workers.values():
        yield _of_workers(facts.settings, alike)


def _of_workers(settings: Settings, workers: Sequence[Process]) -> Finding:
    """What the one of them may open that may open the fewest; they serve the same, and share its limits."""
    served = ", ".join(workers[0].sockets) or "housekeeping"
    subject = f"open files for {served}"  # and no process's number: after a restart it is another one
    known = [(each.max_open_files, each.pid) for each in workers if each.max_open_files is not None]
    if not known:
        return unknown(subject, "the limit of the process could not be read")
    limit, pid = min(known)
    part = share(settings, len(workers))
    smtp, pop3 = part.smtp.max_connections, part.pop3.max_connections
    most = {"smtp": smtp, "lmtp": smtp, "pop3": pop3, "pop3s": pop3}
    connections = sum(most.get(name, 0) for name in workers[0].sockets)
    needed = connections + _SPARE_DESCRIPTORS
    if limit >= needed:
        return fine(subject, f"process {pid} may open {limit}")
    return warning(
        subject,
        f"process {pid} may open {limit} files, and max_connections allows it {connections} connections",
        "At that limit no connection is taken any more.",
        f"systemctl edit the unit, and say LimitNOFILE={needed}",
    )


def backup_disk(facts: Facts) -> Iterator[Finding]:
    """Whether backups lie where a broken disk leaves them alone."""
    mail = facts.machine.state_disk if facts.machine else None
    copies = facts.machine.backup_disk if facts.machine else None
    if mail is None or copies is None:
        return
    if _is_same(mail, copies):
        yield advice(
            "backup disk",
            f"backups go to {copies.path}, on the same disk as the mail",
            "They help against mistakes, and not against a broken disk or a stolen machine.",
            "Set folder of [backup] to a place on another disk (docs/backup.md: how the nightly one may write"
            " there), or copy the folder elsewhere every night",
        )
    else:
        yield fine("backup disk", f"{copies.path} is on a disk of its own")


def _is_same(one: Disk, other: Disk) -> bool:
    return one.device == other.device


def _size(octets: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if octets >= size:
            return f"{octets / size:.1f} {unit}"
    return f"{octets >> 10} KiB"
