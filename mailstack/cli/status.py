"""`mailstack status`: is it up, and how much is in it?"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from typing import Any, NamedTuple

import typer

from mailstack import __version__
from mailstack.checks import judge_service
from mailstack.checks.facts import Store
from mailstack.checks.probes import ports, store
from mailstack.cli import show
from mailstack.cli.control import ask_all
from mailstack.cli.options import Json, admin
from mailstack.errors import BadSetting, NotRunning
from mailstack.settings import Settings
from mailstack.store import clock, domains, facts, logins, schema, url
from mailstack.store.totals import totals

EXAMPLE = "Example: mailstack status --json"


class Listener(NamedTuple):
    """An address of the settings, and whether somebody answers there."""

    role: str
    address: str
    answers: bool


def status(context: typer.Context, json: Json = False) -> None:
    """Show whether the service answers and what it holds; the exit code is 69 where it does not."""
    found = admin(context).settings
    listeners = [Listener(each.role, each.address, each.answers) for each in ports.look(found)]
    with admin(context).database() as database:
        with database.reading() as connection:
            revision = schema.revision(connection)
            backed_up = _time(facts.get(connection, facts.LAST_BACKUP))
            verified = _time(facts.get(connection, facts.LAST_VERIFIED))
            held = totals(connection)
            keyless = logins.lacking_keys(connection)
            ours = [each for each in domains.list_domains(connection) if each.renamed_to is None]
        seen = store.look(database, recount=False)
    trouble = seen.problem or None
    processes = _processes(found)
    told: dict[str, Any] = {
        "version": __version__,
        "settings": admin(context).config,
        "database": url.shown(found.url),
        "revision": revision,
        "database_trouble": trouble,
        "settings_trouble": None if trouble else _of_settings(found, seen),
        "domains": len(ours),
        "accounts": held["accounts"],
        "accounts_without_scram_keys": keyless,
        "messages": held["messages"],
        "octets": held["octets"],
        "free_octets": shutil.disk_usage(found.state_dir).free,
        "last_backup_at": backed_up,
        "last_verified_backup_at": verified,
        "certificate": _certificate(found),
    }
    if json:
        listening = [each._asdict() for each in listeners]
        show.as_json(told | {"listeners": listening, "processes": processes})
    else:
        told.pop("accounts_without_scram_keys")
        for name in ("database_trouble", "settings_trouble"):
            if said := told.pop(name):
                print(f"WARNING: {said}")
        people = {
            "SCRAM": _scram(keyless),
            "size": show.octets(told.pop("octets")),
            "free on disk": show.octets(told.pop("free_octets")),
            "last backup": show.age(told.pop("last_backup_at")),
            "last verified backup": show.age(told.pop("last_verified_backup_at")),
            "certificate": _certified(told.pop("certificate")),
        }
        show.facts({name: str(value) for name, value in told.items()} | people)
        for each in listeners:
            print(f"{each.role} {each.address}: {'answers' if each.answers else 'does not answer'}")
        for process in processes:
            began = show.moment(datetime.fromtimestamp(process["since"], UTC))
            sessions = show.counted(process["pop3_sessions"], "POP3 session")
            print(
                f"process {process['pid']}: serves {', '.join(process['sockets'])} since {began}, {sessions}"
            )
        if not processes and any(each.answers for each in listeners):
            print("no process of this server runs: what answers there is another one")
    if trouble or not (processes and all(each.answers for each in listeners)):
        raise typer.Exit(os.EX_UNAVAILABLE)


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
