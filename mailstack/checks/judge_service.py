"""Judgements about the store and what runs on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from mailstack.checks.facts import Backups, Facts, Store, Unit, Unseen
from mailstack.checks.finding import Finding, advice, fine, unknown, unseen, warning, wrong
from mailstack.errors import BadAddress
from mailstack.mail.address import fold_domain, fold_local_part, parse_mailbox
from mailstack.settings import LISTENING, Settings
from mailstack.store import schema

_BACKUP_AGE: Final = timedelta(hours=30)
"""A night and some: a nightly backup that takes longer than the night before's is still in time."""

_VERIFIED_AGE: Final = timedelta(days=35)
_HOUSEKEEPING_AGES: Final = 8
"""So many times its interval housekeeping may be late."""

_LEAST_HOUSEKEEPING_AGE: Final = timedelta(days=1)
_EXPECTED: Final = {
    "mailstack.target",
    "mailstack-smtp.socket",
    "mailstack-pop3s.socket",
    "mailstack-backup.timer",
    "mailstack-housekeeping.timer",
    "mailstack-doctor.timer",
}
"""What every server needs; another unit that is off is so because somebody wants it."""

_PORTS: Final = ("smtp", "pop3", "pop3s")
"""What the server listens on unless its settings name no address for it, by the sockets' names."""

_BACK_UP: Final = "mailstack database backup; journalctl -u mailstack-backup.service tells of the nightly one"
_TOLD_FINDINGS: Final = 5
"""So many are told in words: a table that is lost takes the counters of all accounts with it."""

_HELD: Final = timedelta(hours=12)
_IDLE_SECONDS: Final = 60.0


def database(facts: Facts) -> Iterator[Finding]:
    """Whether it opens, has this program's schema and adds up."""
    store = facts.store
    if store is None:
        return
    if isinstance(store.problem, Unseen):
        yield unseen("database", store.problem)
        return
    if store.problem:
        yield wrong(
            "database",
            store.problem,
            "Mail does not come in, and perhaps not out.",
            "Mend what it says; if it can still be read, mailstack database backup FOLDER on another disk"
            " first, and no restart before that: docs/durability.md",
            stage=store.problem,
        )
        return
    if store.revision is not None and store.revision > schema.HEAD:
        yield wrong(
            "database",
            f"its schema is {store.revision}, newer than this program's {schema.HEAD}",
            "The service does not start on another schema.",
            "Install the newer mailstack again: docs/install.md",
        )
        return
    if store.revision != schema.HEAD:
        yield wrong(
            "database",
            f"its schema is {store.revision or 'none'}, and this program needs {schema.HEAD}",
            "The service does not start on another schema.",
            "mailstack database upgrade",
        )
        return
    if store.findings:
        yield wrong(
            "database",
            _first(store.findings),
            "What cannot be read nobody gets, and wrong sizes and counts confuse mail programs and quotas.",
            "mailstack database check --repair; docs/durability.md tells of what that cannot mend",
            stage=hashlib.sha256(ascii(store.findings).encode()).hexdigest(),
        )
        return
    yield fine("database", f"schema {store.revision}" + (", and it adds up" if store.checked else ""))


def _first(findings: Sequence[str]) -> str:
    """Some of what does not add up, and how much more there is."""
    more = len(findings) - _TOLD_FINDINGS
    return "; ".join(findings[:_TOLD_FINDINGS]) + (f"; and {more} more" if more > 0 else "")


def _usable(facts: Facts) -> Store | None:
    """The store, where it opens and is of this program's schema; `database` tells of any other."""
    store = facts.store
    return None if store is None or store.problem or store.revision != schema.HEAD else store


def accounts(facts: Facts) -> Iterator[Finding]:
    """Whether anybody can get mail."""
    if (store := _usable(facts)) is None:
        return
    if not store.domains:
        yield wrong(
            "accounts", "there is no domain", "All mail is refused.", "mailstack domain add example.org"
        )
    elif not store.accounts:
        domain = store.domains[0]
        yield wrong(
            "accounts", "there is no account", "All mail is refused.", f"mailstack account add you@{domain}"
        )
    else:
        yield fine("accounts", f"{store.accounts} in {', '.join(store.domains[:5])}")
        yield from named_by_settings(facts.settings, store)


def quotas(facts: Facts) -> Iterator[Finding]:
    """Whether mail is refused because a maildrop is full."""
    if (store := _usable(facts)) is None:
        return
    for each in store.full:
        if each.groups:
            name, groups = str(each.mailbox), ", ".join(each.groups)
            yield warning(
                name,
                f"it is {each.percentage} % full",
                f"Mail to it is refused, and mail to {groups} to all who are there.",
                f"mailstack account quota {name} SIZE gives it room, as deleting its mail does;"
                f" mailstack account disable {name} lets the others have theirs",
                stage=groups,
            )
    if alone := ", ".join(str(each.mailbox) for each in store.full if not each.groups):
        yield advice(
            "quotas",
            f"full: {alone}",
            "Mail to them is refused.",
            "Their owners delete mail, or: mailstack account quota ADDRESS SIZE",
            stage=alone,
        )
    if store.accounts and not store.full:
        yield fine("quotas", "no maildrop is full")


def named_by_settings(settings: Settings, store: Store) -> Iterator[Finding]:
    """Whether the domain and the postmaster of the settings are there."""
    default, postmaster = settings.default_domain, settings.postmaster
    if default is not None and store.domains and fold_domain(default) not in store.names:
        yield wrong(
            "default_domain",
            f"{default} is none of our domains",
            "Nobody can log in with a name without its domain.",
            f'Write default_domain = "{store.domains[0]}" into the settings',
        )
    if postmaster is not None and not _reached(postmaster, store):
        yield warning(
            "postmaster",
            f"there is no account or alias {postmaster}",
            "Mail for postmaster and abuse goes to the first account that was added.",
            "Let postmaster in the settings name an account, or leave it out",
        )


def _reached(address: str, store: Store) -> bool:
    try:
        mailbox = parse_mailbox(address)
    except BadAddress:
        return False
    local_part, domain = fold_local_part(mailbox.local_part), fold_domain(mailbox.domain)
    return not {f"{local_part}@{domain}", f"{local_part.partition('+')[0]}@{domain}"}.isdisjoint(
        store.addresses
    )


def backup(facts: Facts) -> Iterator[Finding]:
    """Whether the newest backup in the folder is of last night, and whether anybody looked into one."""
    store = _usable(facts)
    if store is None or facts.machine is None:
        return
    problem = _lack_of_backups(facts, facts.machine.backups, store)
    if problem:
        yield warning("backup", problem, "If the disk breaks, all mail is lost.", _BACK_UP)
        return
    newest = facts.machine.backups.newest
    assert newest is not None
    if facts.now - newest > _BACKUP_AGE:
        yield warning(
            "backup",
            f"the newest in {facts.settings.backup.folder} is of {_ago(facts.now, newest)}",
            "What is lost since then is lost for good.",
            _BACK_UP,
            stage=str((facts.now - newest).days // 7),
        )
    else:
        yield fine("backup", _ago(facts.now, newest))
    if store.last_verified is None or facts.now - store.last_verified > _VERIFIED_AGE:
        when = "yet" if store.last_verified is None else f"since {store.last_verified:%Y-%m-%d}"
        yield advice(
            "backup's verification",
            f"nobody has read a backup {when}",
            "A backup that cannot be read is found out at the wrong moment.",
            "mailstack backup verify",
        )
    else:
        yield fine("backup's verification", _ago(facts.now, store.last_verified))


def _lack_of_backups(facts: Facts, found: Backups, store: Store) -> str:
    """Why the folder of the settings has no backup of this store; empty: it has."""
    folder = facts.settings.backup.folder
    if found.problem:
        return found.problem
    if found.newest is None:
        elsewhere = store.last_backup and f"; one was made elsewhere, {_ago(facts.now, store.last_backup)}"
        return f"there is no backup in {folder}{elsewhere or ''}"
    if found.store != store.identity:
        return f"{folder} holds backups of another store"
    return ""


def housekeeping(facts: Facts) -> Iterator[Finding]:
    """Whether old mail goes and space comes back."""
    store = facts.store
    if store is None or store.problem or store.last_housekeeping is None:
        return
    late = timedelta(seconds=facts.settings.housekeeping.every_seconds) * _HOUSEKEEPING_AGES
    if facts.now - store.last_housekeeping > max(late, _LEAST_HOUSEKEEPING_AGE):
        yield warning(
            "housekeeping",
            f"nobody has kept house since {_ago(facts.now, store.last_housekeeping)}",
            "Mail that should be gone by now is still there, and space does not come back.",
            "mailstack housekeeping run; and see whether its timer or role runs",
        )
    else:
        yield fine("housekeeping", _ago(facts.now, store.last_housekeeping))


def locks(facts: Facts) -> Iterator[Finding]:
    """Whether somebody holds a maildrop for so long that its owner is surely locked out."""
    if facts.service is None or not facts.service.processes:
        return
    stuck = [
        each
        for each in facts.service.sessions
        if facts.now - each.since > _HELD and each.idle_seconds > _IDLE_SECONDS
    ]
    for each in stuck:
        yield warning(
            f"maildrop of {each.account}",
            f"a session from {each.address} holds it since {_ago(facts.now, each.since)}",
            "While it lasts, nobody else can fetch this mail: the owner hears [IN-USE].",
            f"mailstack session kick {each.session}",
        )
    if not stuck:
        yield fine("maildrops", f"{len(facts.service.sessions)} open, none for too long")


def units(facts: Facts) -> Iterator[Finding]:
    """Whether systemd has all of ours up, and will again after a reboot."""
    found = facts.service.units if facts.service else None
    if found is None:
        return
    unused = {f"mailstack-{name}.socket": name for name in _PORTS if not facts.settings.listening[name]}
    for unit in found:
        yield _of_unused(unit, unused[unit.name]) if unit.name in unused else _of_unit(unit)
    if not found:
        yield advice(
            "units",
            "systemd has no unit of mailstack",
            "After a reboot nobody starts the server.",
            "mailstack setup you@example.org writes them",
        )


def _of_unused(unit: Unit, name: str) -> Finding:
    """Of a port that the settings do without."""
    if unit.active != "active" and unit.enabled != "enabled":
        return fine(unit.name, "off")
    return warning(
        unit.name,
        f"it is {unit.enabled} and {unit.active}, and {LISTENING[name]} names no address",
        "A port is open, or will be after a reboot, that the settings do without.",
        f"systemctl disable --now {unit.name}; or name its address in the settings",
    )


def _of_unit(unit: Unit) -> Finding:
    started_by_others = unit.name.endswith(".service")
    if unit.active == "failed" or unit.load in ("error", "bad-setting"):
        return wrong(
            unit.name,
            f"it has failed ({unit.result or unit.load})",
            "Its part of the work is not done.",
            f"journalctl -u {unit.name} -e tells why; then systemctl restart {unit.name}",
        )
    if unit.load == "masked":
        return warning(unit.name, "it is masked", "It cannot start.", f"systemctl unmask {unit.name}")
    # A static one is started by whoever needs it: port 80 for as long as a certificate is ordered.
    off = unit.enabled in ("disabled", "static") and unit.active == "inactive"
    if off and unit.name not in _EXPECTED:
        return fine(unit.name, "off")
    if not started_by_others and unit.enabled == "disabled":
        return warning(
            unit.name,
            "it is not enabled",
            "It does not come back after a reboot.",
            _enable(unit.name),
        )
    if not started_by_others and unit.active != "active":
        return warning(
            unit.name,
            f"it is {unit.active}",
            "Nothing waits there for mail or for the hour.",
            f"systemctl restart {unit.name}",
        )
    return fine(unit.name, f"{unit.active}, {unit.sub}")


def _enable(name: str) -> str:
    # systemd opens no port for a service that runs already, as for its other port; a restart ends that first.
    if name.endswith(".socket"):
        return f"systemctl enable {name}; systemctl restart {name}"
    return f"systemctl enable --now {name}"


def processes(facts: Facts) -> Iterator[Finding]:
    """Whether a serving process tells of itself."""
    if facts.service is None:
        return
    if facts.service.processes is None:
        tell = unseen if isinstance(facts.service.problem, Unseen) else unknown
        yield tell("service", f"its processes could not be asked: {facts.service.problem}")
    elif not facts.service.processes:
        yield wrong(
            "service",
            "no process of the service runs",
            "Mail is neither received nor fetched.",
            "systemctl start mailstack.target; or mailstack serve",
        )
    else:
        told = ", ".join(f"{each.pid} ({' '.join(each.sockets)})" for each in facts.service.processes)
        yield fine("service", f"process {told}")


def _ago(now: datetime, then: datetime) -> str:
    hours = int((now - then).total_seconds()) // 3600
    when = f"{hours // 24} days" if hours >= 48 else f"{hours} hours"
    return f"{then:%Y-%m-%d %H:%M} UTC, {when} ago"
