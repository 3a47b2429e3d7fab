"""`mailstack status`: is it up, and how much is in it?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import typer

from mailstack import __version__
from mailstack.checks import judge_service
from mailstack.checks.facts import Store
from mailstack.checks.probes import ports, store
from mailstack.cli import exits, show
from mailstack.cli.admin import Admin, become_owner
from mailstack.cli.control import ask_all
from mailstack.cli.options import Json, admin
from mailstack.errors import BadSetting, MailstackError, NotRunning
from mailstack.settings import Settings
from mailstack.store import clock, domains, facts, logins, schema, url
from mailstack.store.totals import totals

EXAMPLE = "Example: mailstack status --json"


_UNKNOWN: Final = "unknown"


class Listener(NamedTuple):
    """An address of the settings, and whether somebody answers there."""

    role: str
    address: str
    answers: bool


class Held(NamedTuple):
    """What the database tells; without numbers it could not be asked, and `trouble` says why."""

    revision: str | None
    trouble: str | None
    exit_code: int = os.EX_OK
    settings_trouble: str | None = None
    domains: int | None = None
    accounts: int | None = None
    keyless: int | None = None
    messages: int | None = None
    octets: int | None = None
    last_backup_at: datetime | None = None
    last_verified_at: datetime | None = None


def status(context: typer.Context, json: Json = False) -> None:
    """Show whether the service answers and what it holds; the exit code is 69 where it does not."""
    found = admin(context).settings
    listeners = [Listener(each.role, each.address, each.answers) for each in ports.look(found)]
    become_owner(found.state_dir)
    held = _held(admin(context))
    processes = _processes(found)
    told: dict[str, Any] = {
        "version": __version__,
        "settings": admin(context).config,
        "database": url.shown(found.url),
        "revision": held.revision,
        "database_trouble": held.trouble,
        "settings_trouble": held.settings_trouble,
        "domains": held.domains,
        "accounts": held.accounts,
        "accounts_without_scram_keys": held.keyless,
        "messages": held.messages,
        "octets": held.octets,
        "free_octets": shutil.disk_usage(found.state_dir).free,
        "last_backup_at": held.last_backup_at,
        "last_verified_backup_at": held.last_verified_at,
        "certificate": _certificate(found),
    }
    if json:
        listening = [each._asdict() for each in listeners]
        show.as_json(told | {"listeners": listening, "processes": processes})
    else:
        _print(told, listeners, processes)
    if held.exit_code or not (processes and all(each.answers for each in listeners)):
        raise typer.Exit(held.exit_code or os.EX_UNAVAILABLE)


def _held(admin: Admin) -> Held:
    """Ask the database; where it refuses, who serves is still to be told, and then most of all."""
    revision = None
    try:
        with admin.database(any_schema=True) as database:
            with database.reading() as connection:
                revision = schema.revision(connection)
                schema.check(connection)
                counted = totals(connection)
                keyless = logins.lacking_keys(connection)
                ours = [each for each in domains.list_domains(connection) if each.renamed_to is None]
                backed_up = _time(facts.get(connection, facts.LAST_BACKUP))
                verified = _time(facts.get(connection, facts.LAST_VERIFIED))
            seen = store.look(database, recount=False)
    except MailstackError as error:
        return Held(revision, str(error), exits.exit_code(error))
    return Held(
        revision,
        seen.problem or None,
        os.EX_UNAVAILABLE if seen.problem else os.EX_OK,
        settings_trouble=None if seen.problem else _of_settings(admin.settings, seen),
        domains=len(ours),
        accounts=counted["accounts"],
        keyless=keyless,
        messages=counted["messages"],
        octets=counted["octets"],
        last_backup_at=backed_up,
        last_verified_at=verified,
    )


def _print(
    told: dict[str, Any], listeners: Sequence[Listener], processes: Sequence[Mapping[str, Any]]
) -> None:
    """The same for people."""
    is_heard = told["accounts"] is not None

    def heard(name: str, words: Callable[[Any], str]) -> str:
        value = told.pop(name)
        return words(value) if is_heard else _UNKNOWN

    for name in ("database_trouble", "settings_trouble"):
        if said := told.pop(name):
            print(f"WARNING: {said}")
    people = {
        "SCRAM": heard("accounts_without_scram_keys", _scram),
        "size": heard("octets", show.octets),
        "free on disk": show.octets(told.pop("free_octets")),
        "last backup": heard("last_backup_at", show.age),
        "last verified backup": heard("last_verified_backup_at", show.age),
        "certificate": _certified(told.pop("certificate")),
    }
    show.facts({name: _UNKNOWN if value is None else str(value) for name, value in told.items()} | people)
    for each in listeners:
        print(f"{each.role} {each.address}: {'answers' if each.answers else 'does not answer'}")
    for process in processes:
        began = show.moment(datetime.fromtimestamp(process["since"], UTC))
        sessions = show.counted(process["pop3_sessions"], "POP3 session")
        print(f"process {process['pid']}: serves {', '.join(process['sockets'])} since {began}, {sessions}")
    if not processes and any(each.answers for each in listeners):
        print("no process of this server runs: what answers there is another one")


def _of_settings(found: Settings, seen: Store) -> str | None:
    """What they name and the store does not have."""
    missing = judge_service.named_by_settings(found, seen)
    return "; ".join(f"{each.subject}: {each.what}" for each in missing) or None


def _processes(found: Settings) -> list[dict[str, Any]]:
    """What each process of the service on this host tells of itself."""
    try:
        return [dict(answer) for answer in ask_all(found, "status")]
    except NotRunning:
        return []


def _certificate(found: Settings) -> dict[str, Any]:
    """What clients are shown, and what is wrong with it."""
    from mailstack import certificates

    file = found.certificate_files[0]
    try:
        standing = certificates.standing(file)
    except BadSetting as error:
        return {"file": file, "trouble": str(error)}
    told = {
        "names": standing.names,
        "ends_at": standing.not_after,
        "self_signed": standing.self_signed,
        "trouble": certificates.trouble(standing, found.hostname),
    }
    return {"file": file} | told


def _certified(told: dict[str, Any]) -> str:
    if told["trouble"]:
        return f"WARNING: {told['trouble']}"
    until = f"good until {show.moment(told['ends_at'])}"
    if told["self_signed"]:
        return f"self-signed, {until}: mail programs ask before they trust it"
    return until


def _scram(keyless: int) -> str:
    if not keyless:
        return "offered: every account has keys"
    wanting = show.counted(keyless, "account lacks", "accounts lack")
    return f"not offered: {wanting} keys, which a login with the password makes"


def _time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else clock.moment(microseconds)
