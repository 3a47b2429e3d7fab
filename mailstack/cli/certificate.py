"""`mailstack certificate`: what clients are shown, and a certificate that they know."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from mailstack.cli import ask, show
from mailstack.cli.admin import become_owner
from mailstack.cli.exits import myself
from mailstack.cli.options import Json, admin
from mailstack.errors import BadSetting, StillInUse
from mailstack.files import require_replaceable, write_whole
from mailstack.settings import Reading, Settings

app = typer.Typer(name="certificate", help="The certificate of all listeners.", no_args_is_help=True)

_OURS: Final = "obtained"
"""The file beside the certificate with the digests of those that we have obtained, and may so replace."""

_UNASKED: Final = "no authority was asked"


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
    _issue(admin(context).reading, names, email, force=force)


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
    _issue(admin(context).reading, found.names, None, force=False)


def _issue(reading: Reading, names: Sequence[str], email: str | None, *, force: bool) -> None:
    from mailstack.acme.order import issue
    from mailstack.service.tls import replace

    settings = reading.settings
    certificate, private_key = settings.certificate_files
    with ExitStack() as closing:
        # Port 80 is root's, so this comes before we are somebody else.
        bound = [closing.enter_context(each) for each in _sockets(settings)]
        become_owner(settings.state_dir)
        folder = settings.state_dir / "tls"
        folder.mkdir(mode=0o700, exist_ok=True)
        _require_place(reading)
        if not force:
            _refuse_foreign(certificate)
        directory = settings.acme.directory
        show.note(f"asking {directory} for a certificate for {', '.join(names)}")
        issued = issue(names, directory_url=directory, email=email, folder=folder, sockets=bound)
    _claim(certificate, issued.chain)
    replace(certificate, private_key, issued.chain, issued.private_key)
    print(f"{certificate} is for {', '.join(names)}; the running service takes it within seconds")


def _sockets(settings: Settings) -> list[socket.socket]:
    from mailstack.service import sockets

    inherited = sockets.inherited(os.environ).get("acme")
    return list(inherited or sockets.bind({"acme": settings.acme.listen})["acme"])


def _require_place(reading: Reading) -> None:
    """Raise BadSetting where both files could not be put in place: an authority counts what it has issued."""
    settings = reading.settings
    if len(set(settings.certificate_files)) < 2:
        raise BadSetting("tls.private_key: a file of its own is needed, not the certificate's; " + _UNASKED)
    for name, file in zip(("certificate", "private_key"), settings.certificate_files, strict=True):
        try:
            require_replaceable(file)
        except OSError as error:
            refused = f"{file} cannot be replaced by the user {myself()}: {error.strerror}; {_UNASKED}"
            origin = reading.origins.get(f"tls.{name}")
            if origin is None:
                raise BadSetting(f"{refused}. {file.parent} has to be that user's") from error
            raise BadSetting(
                f"{origin}: tls.{name}: {refused}. Where neither tls.certificate nor tls.private_key is set,"
                f" both are in {settings.state_dir / 'tls'}, which is that user's: take them out and restart"
                " the service"
            ) from error


def _refuse_foreign(certificate: Path) -> None:
    from mailstack import certificates

    try:
        found = certificates.standing(certificate)
    except BadSetting as error:
        if isinstance(error.__cause__, PermissionError):
            raise StillInUse(
                f"{certificate} is somebody else's, and the user {myself()} may not even read it;"
                " --force takes its place"
            ) from error
        return  # there is none, or it is of no use
    if not found.self_signed and not _is_ours(certificate):
        raise StillInUse(
            f"{certificate} was issued by {found.issuer}, and not by way of this command: whoever looks"
            " after it would replace ours again; --force takes its place"
        )


def _is_ours(certificate: Path) -> bool:
    try:
        return _digest(certificate.read_bytes()) in (certificate.parent / _OURS).read_text().split()
    except FileNotFoundError:
        return False


def _claim(certificate: Path, chain: bytes) -> None:
    """Have the new certificate known as ours before it is there, and the old one for as long as it is.

    Whoever is killed in between leaves one of the two, and either can be renewed.
    """
    ours = [chain]
    with suppress(OSError):  # of what cannot be read nobody knows that it is ours
        if _is_ours(certificate):
            ours.append(certificate.read_bytes())
    lines = "".join(f"{_digest(each)}\n" for each in ours)
    write_whole(certificate.parent / _OURS, lines.encode(), mode=0o600)


def _digest(chain: bytes) -> str:
    return hashlib.sha256(chain).hexdigest()
