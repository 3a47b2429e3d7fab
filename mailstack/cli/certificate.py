"""`mailstack certificate`: what clients are shown, and a certificate that they know."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from mailstack.cli import ask, show
from mailstack.cli.admin import become_owner
from mailstack.cli.options import Json, admin
from mailstack.errors import BadSetting, StillInUse
from mailstack.files import write_whole
from mailstack.settings import Settings

app = typer.Typer(name="certificate", help="The certificate of all listeners.", no_args_is_help=True)

_OURS: Final = "obtained"
"""The file beside the certificate that says which one we have obtained, and may so replace."""


@app.command("show", epilog="Example: mailstack certificate show --json")
def show_(context: typer.Context, json: Json = False) -> None:
    """Show whom the certificate is for, who has issued it and how long it is good."""
    from mailstack import certificates

    settings = admin(context).settings
    file = settings.certificate_files[0]
    become_owner(settings.state_dir)
    found = certificates.standing(file)
    trouble = certificates.trouble(found, settings.hostname)
    told: dict[str, Any] = {"file": file, **found._asdict(), "trouble": trouble}
    if json:
        show.as_json(told)
        return
    facts = {
        "file": str(file),
        "names": ", ".join(found.names),
        "issuer": "itself: mail programs ask before they trust it" if found.self_signed else found.issuer,
        "good from": show.moment(found.not_before),
        "until": f"{show.moment(found.not_after)}, {show.counted(found.days_left(datetime.now(UTC)), 'day')}",
    }
    show.facts(facts | ({"WARNING": trouble} if trouble else {}))


@app.command("obtain", epilog="Example: mailstack certificate obtain --email you@example.org")
def obtain(
    context: typer.Context,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="A host name; once for each. Without it, the settings' hostname."),
    ] = None,
    email: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where the authority may write to.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a certificate that somebody else looks after.")
    ] = False,
) -> None:
    """Have a certificate issued by ACME: its terms are agreed to, and port 80 answers while it checks."""
    settings = admin(context).settings
    names = [ask.host_name(each, "--name") for each in name or [settings.hostname]]
    if email is not None:
        email = str(ask.parsed(email))
    _issue(settings, names, email, force=force)


@app.command("renew", epilog="Example: mailstack certificate renew")
def renew(
    context: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Even if it is good for long enough.")] = False,
) -> None:
    """Have it issued anew where two thirds of its time are over; for a timer. Not ours: nothing is done."""
    from mailstack import certificates

    settings = admin(context).settings
    file = settings.certificate_files[0]
    if not _is_ours(file):
        print(f"{file} was not obtained by mailstack certificate obtain; nothing is done")
        return
    found = certificates.standing(file)
    whole, left = found.not_after - found.not_before, found.not_after - datetime.now(UTC)
    if left > whole / 3 and not force:
        print(f"{file} is good until {show.moment(found.not_after)}; nothing is done")
        return
    _issue(settings, found.names, None, force=False)


def _issue(settings: Settings, names: Sequence[str], email: str | None, *, force: bool) -> None:
    from mailstack.acme.order import issue
    from mailstack.service.tls import replace

    certificate, private_key = settings.certificate_files
    bound = _sockets(settings)  # port 80 is root's, so this comes before we are somebody else
    become_owner(settings.state_dir)
    if not force:
        _refuse_foreign(certificate)
    folder = settings.state_dir / "tls"
    folder.mkdir(mode=0o700, exist_ok=True)
    show.note(f"asking {settings.acme.directory} for a certificate for {', '.join(names)}")
    directory = settings.acme.directory
    try:
        issued = issue(names, directory_url=directory, email=email, folder=folder, sockets=bound)
    finally:
        for each in bound:
            each.close()
    replace(certificate, private_key, issued.chain, issued.private_key)
    _mark(certificate)
    print(f"{certificate} is for {', '.join(names)}; the running service takes it within seconds")


def _sockets(settings: Settings) -> list[socket.socket]:
    from mailstack.service import sockets

    inherited = sockets.inherited(os.environ).get("acme")
    return list(inherited or sockets.bind({"acme": settings.acme.listen})["acme"])


def _refuse_foreign(certificate: Path) -> None:
    from mailstack import certificates

    try:
        found = certificates.standing(certificate)
    except BadSetting:  # there is none, or it is of no use
        return
    if not found.self_signed and not _is_ours(certificate):
        raise StillInUse(
            f"{certificate} was issued by {found.issuer}, and not by way of this command: whoever looks"
            " after it would replace ours again; --force takes its place"
        )


def _is_ours(certificate: Path) -> bool:
    try:
        return (certificate.parent / _OURS).read_text().strip() == _digest(certificate)
    except FileNotFoundError:
        return False


def _mark(certificate: Path) -> None:
    write_whole(certificate.parent / _OURS, f"{_digest(certificate)}\n".encode(), mode=0o600)


def _digest(certificate: Path) -> str:
    return hashlib.sha256(certificate.read_bytes()).hexdigest()
