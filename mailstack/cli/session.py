"""`mailstack session`: who is fetching mail right now, and an end to that."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mailstack.cli import show
from mailstack.cli.control import ask_all
from mailstack.cli.options import Json, admin
from mailstack.errors import NotFound
from mailstack.values import written_duration

app = typer.Typer(name="session", help="POP3 sessions that are open now.", no_args_is_help=True)


@app.command("list", epilog="Example: mailstack session list --json")
def list_(context: typer.Context, json: Json = False) -> None:
    """Show every POP3 session of all serving processes on this host."""
    answers = ask_all(admin(context).settings, "sessions")
    found: list[dict[str, Any]] = sorted(
        ({**session, "pid": answer["pid"]} for answer in answers for session in answer["sessions"]),
        key=lambda session: session["since"],
    )
    for session in found:
        session["since"] = datetime.fromtimestamp(session["since"], UTC)
        session["idle_seconds"] = round(session["idle_seconds"], 1)
    if json:
        show.as_json(found)
        return
    show.table(
        ("session", "account", "from", "since", "silent for", "fetched", "tls"),
        (
            (
                session["session"],
                session["account"] or "(not logged in)",
                session["address"],
                show.moment(session["since"]),
                written_duration(int(session["idle_seconds"])),
                show.octets(session["retrieved_octets"]),
                session["tls"] or "none",
            )
            for session in found
        ),
        empty="no session is open",
        numbers=("fetched",),
    )


@app.command("kick", epilog="Example: mailstack session kick mrose@example.org")
def kick(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", show_default=False, help="An account, or a session as listed."),
    ],
    json: Json = False,
) -> None:
    """End sessions at once; their maildrops are free when this returns, and nothing is deleted.

    The exit code is 67 where there is no such session.
    """
    found = admin(context).settings
    names = [name] if "@" in name or not found.default_domain else [name, f"{name}@{found.default_domain}"]
    kicked = sum(answer["kicked"] for answer in ask_all(found, "kick", names=names))
    if not kicked:
        raise NotFound(f"{name} has no session open")
    if json:
        show.as_json({"kicked": kicked})
    else:
        print(f"{show.counted(kicked, 'session')} ended")
