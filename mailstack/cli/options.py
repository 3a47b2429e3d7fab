"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mailstack.cli.admin import Admin

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
Address = Annotated[str, typer.Argument(metavar="NAME@DOMAIN", show_default=False)]
BackupFolder = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FOLDER]", help="The folder of backups; else the one in the settings.", show_default=False
    ),
]
BackupName = Annotated[
    str | None, typer.Option("--at", metavar="NAME", help="Of backup list; else the newest one.")
]


def admin(context: typer.Context) -> Admin:
    """What the options before the command have said."""
    assert isinstance(context.obj, Admin)
    return context.obj
