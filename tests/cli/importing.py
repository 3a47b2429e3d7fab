"""Maildrops that mail is imported into, and folders that it comes from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tests.cli.conftest import CommandLine

JO, ANN = "jo@example.org", "ann@example.org"
FROM = b"From eve@example.net Thu Jan  1 02:37:27 2026\n"


def entries(run: CommandLine, address: str = JO) -> list[Any]:
    listed: list[Any] = run.good("maildrop", "list", address, "--json").json
    return listed


def uidl(run: CommandLine, address: str = JO) -> list[str]:
    return [each["unique_id"] for each in entries(run, address)]


def octets(run: CommandLine, unique_id: str, folder: Path, address: str = JO) -> bytes:
    """Through files, for what is shown on standard output there is text."""
    shutil.rmtree(folder / "shown", ignore_errors=True)
    run.good("maildrop", "export", address, folder / "shown")
    names = [each["unique_id"] for each in entries(run, address)]
    return sorted((folder / "shown").iterdir())[names.index(unique_id)].read_bytes()


def maildir(folder: Path, files: dict[str, bytes], **lists: str) -> Path:
    for name in ("cur", "new", "tmp"):
        (folder / name).mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (1_700_000_000, 1_700_000_000))
    for name, text in lists.items():
        (folder / name.replace("_", "-")).write_text(text)
    return folder


def imported(run: CommandLine, source: Path, *options: object, address: str = JO) -> Any:
    return run.good("maildrop", "import", address, source, *options, "--json").json
