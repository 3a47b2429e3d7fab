"""`mailstack settings`: what is set, by whom, and whether it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from mailstack import settings
from mailstack.cli import show
from mailstack.cli.options import Json, admin
from mailstack.errors import BadAddress, BadSetting
from mailstack.mail.address import domain_key, parse_mailbox
from mailstack.settings import KEYS, Reading, Settings
from mailstack.values import TcpAddress, written_duration, written_size

app = typer.Typer(name="settings", help="What is set, by whom, and whether it can be.", no_args_is_help=True)


@app.command("show", epilog="Example: mailstack settings show --json")
def show_(context: typer.Context, json: Json = False) -> None:
    """Show every setting as the service would use it, and where it comes from."""
    reading = admin(context).reading
    found = values(reading)
    if json:
        origins = {name: reading.origins.get(name, "default") for name in found}
        show.as_json({name: {"value": found[name], "origin": origins[name]} for name in found})
        return
    show.table(
        ("setting", "value", "from"),
        ((name, _written(name, found[name]), reading.origins.get(name, "default")) for name in found),
        empty="",
    )


@app.command("check", epilog="Example: mailstack settings check")
def check(context: typer.Context) -> None:
    """Say what would keep the service from starting, but for ports that others hold; starts nothing."""
    from mailstack.checks import judge_service  # with SQLAlchemy, which `settings show` does without
    from mailstack.checks.probes import store

    reading = admin(context).reading
    found = reading.settings
    if problems := [*settings.unreadable(found), *_meaningless(found), *_unreachable(found)]:
        raise BadSetting("\n".join(f"{admin(context).config}: {problem}" for problem in problems))
    with admin(context).database() as database:  # or what its folder, its server or its schema lacks
        told = store.look(database, recount=False)
    if told.problem:
        raise BadSetting(told.problem)
    for finding in judge_service.named_by_settings(found, told):
        show.note(f"note: {finding.subject}: {finding.what}")
    print(f"{admin(context).config}: the settings are right")


def values(reading: Reading) -> dict[str, Any]:
    """Every setting by its dotted name, in plain JSON values; the database's password is left out."""
    found: dict[str, Any] = {}
    for name, key in KEYS.items():
        section = getattr(reading.settings, key.section) if key.section else reading.settings
        found[name] = _plain(getattr(section, key.attribute))
    found["database_url"] = _without_password(reading.settings.url)
    return found


def _without_password(url: str) -> str:
    if url.startswith("sqlite:"):  # a file has none
        return url
    from mailstack.store.url import shown  # with SQLAlchemy, which takes long to import

    return shown(url)


def _plain(value: object) -> Any:
    if isinstance(value, tuple):
        return [str(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _written(name: str, value: object) -> str:
    """A value as it would stand in the file."""
    attribute = KEYS[name].attribute
    match value:
        case list():
            return ", ".join(value) or "none"
        case None:
            return "forever" if attribute.endswith("_seconds") else "none"
        case bool():
            return str(value).lower()
        case int() if attribute.endswith("_seconds"):
            return written_duration(value)
        case int() if "_octets" in attribute:
            return written_size(value)
        case _:
            return str(value)


def _unreachable(found: Settings) -> list[str]:
    """What there is to say of the addresses to listen on and of state_dir."""
    from mailstack.service import roles, sockets

    problems = []
    try:
        addresses = roles.addresses(found, ())
    except BadSetting as error:
        return [str(error)]
    for name, several in addresses.items():
        for each in several:
            if isinstance(each, TcpAddress) and (why := sockets.unknown_host(each)):
                problems.append(f"{name}: cannot listen on {each}: {why}")
    if found.state_dir.exists() and not found.state_dir.is_dir():
        problems.append(f"state_dir: {found.state_dir} is no folder")
    return problems


def _meaningless(found: Settings) -> list[str]:
    problems = []
    try:
        domain_key(found.default_domain or "example.org")
    except BadAddress as error:
        problems.append(f"default_domain: {error}")
    try:
        parse_mailbox(found.postmaster or "postmaster@example.org")
    except BadAddress as error:
        problems.append(f"postmaster: {error}")
    return problems
