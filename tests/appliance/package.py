"""The Debian package of this checkout, built once for all tests."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.appliance.rootfs import CACHE, ROOT, alone

_INGREDIENTS = ("mailstack", "migrations", "systemd", "debian", "docs", "requirements", "pyproject.toml")

OLDER = "0.0.1"
"""A version before every other one."""


def package() -> Path:
    """The file."""
    folder = CACHE / f"deb-{_digest()}"
    with alone("deb"):
        if not list(folder.glob("mailstack_*.deb")):
            for earlier in CACHE.glob("deb-*"):
                for each in earlier.iterdir():
                    each.unlink()
                earlier.rmdir()
            _run(sys.executable, "-m", "debian.build", folder, "--compression", "none")
    return next(folder.glob("mailstack_*.deb"))


def older_package(folder: Path) -> Path:
    """The same program under an older version's name."""
    root = folder / "older"
    _run("dpkg-deb", "--raw-extract", package(), root)
    control = root / "DEBIAN/control"
    lines = control.read_text().splitlines()
    control.write_text(
        "".join(f"Version: {OLDER}\n" if x.startswith("Version:") else f"{x}\n" for x in lines)
    )
    made = folder / f"mailstack_{OLDER}_amd64.deb"
    _run("dpkg-deb", "--root-owner-group", "-Znone", "--build", root, made)
    return made


def _digest() -> str:
    """A name for all that the package is made of."""
    found = hashlib.sha256()
    for name in _INGREDIENTS:
        top = ROOT / name
        for each in [top] if top.is_file() else sorted(top.rglob("*")):
            if each.is_file() and "__pycache__" not in each.parts:
                found.update(str(each.relative_to(ROOT)).encode() + b"\0" + each.read_bytes())
    return found.hexdigest()[:16]


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
