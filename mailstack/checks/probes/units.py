"""Asks systemd about the units of mailstack."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mailstack.checks.facts import Unit

_BOOTED: Final = Path("/run/systemd/system")
"""Where it exists, systemd runs the machine (sd_booted(3))."""

_PATTERN: Final = "mailstack*"
_PROPERTIES: Final = ("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "Result")
_PATIENCE_SECONDS: Final = 20


def look() -> tuple[Unit, ...] | None:
    """Every unit of ours that is installed or loaded; None where there is no systemd, or it does not tell."""
    if not _BOOTED.is_dir():
        return None
    files = _systemctl("list-unit-files", "--no-legend", "--plain", _PATTERN)
    loaded = _systemctl("list-units", "--all", "--no-legend", "--plain", _PATTERN)
    if files is None or loaded is None:
        return None
    # A template has no state, only its instances do.
    names = {line.split()[0] for line in (*files.splitlines(), *loaded.splitlines()) if line.strip()}
    names = {name for name in names if "@." not in name}
    if not names:
        return ()
    shown = _systemctl("show", f"--property={','.join(_PROPERTIES)}", *sorted(names))
    return None if shown is None else read(shown)


def read(shown: str) -> tuple[Unit, ...]:
    """What `systemctl show` prints: a block of lines a unit, in any order."""
    blocks = [
        dict(line.partition("=")[::2] for line in block.splitlines()) for block in shown.strip().split("\n\n")
    ]
    told: list[Sequence[str]] = [
        [block.get(name, "") for name in _PROPERTIES] for block in blocks if "Id" in block
    ]
    return tuple(Unit(*each) for each in told)


def _systemctl(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["systemctl", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
