"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from mailstack.cli.admin import Admin

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
Address = Annotated[str, typer.Argument(metavar="NAME@DOMAIN", show_default=False)]


def admin(context: typer.Context) -> Admin:
    """What the options before the command have said."""
    assert isinstance(context.obj, Admin)
    return context.obj
