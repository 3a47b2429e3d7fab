"""The admin's command line: one file a subject, and the errors of all in one plain sentence.

`serve` stays in memory for months, so it is looked for before Typer and Rich are imported; they
would cost a resident process 18 MiB.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mailstack.cli import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Obey one command line; return its exit code, one of sysexits(3)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if (plain := serve.understood(given)) is not None:
        return serve.run(plain)
    from mailstack.cli import app

    return app.run(given)
