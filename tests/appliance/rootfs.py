"""A small Debian to boot, made once by mmdebstrap and kept in `build`; boxes lay their changes over it."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "appliance"

PACKAGES = "systemd,systemd-sysv,dbus,libnss-systemd,python3,iproute2,procps"
"""What a minimal server has, but for a kernel; python3 is the one dependency of the package."""

# Every box gets an identity of its own, and a journal that outlives a reboot.
CUSTOMISE = (
    'rm -f "$1/etc/machine-id" "$1/etc/hostname"; : > "$1/etc/machine-id";'
    ' echo mail > "$1/etc/hostname"; mkdir -p "$1/var/log/journal"'
)


class CannotBuild(Exception):
    """Why there is no Debian to boot, in a sentence."""


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Let one process at a time make what is kept."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def rootfs(suite: str, *more: str) -> Path:
    """The folder of a suite's root file system, with more packages if need be; raises CannotBuild."""
    name = "-".join((suite, *more))
    made = CACHE / name
    with alone(name):
        if not made.exists():
            draft = CACHE / f"{name}.new"
            shutil.rmtree(draft, ignore_errors=True)
            _build(suite, draft, more)
            draft.rename(made)
    return made


def _build(suite: str, target: Path, more: tuple[str, ...]) -> None:
    lines = [f"deb {mirror} {name} main" for mirror, name in _mirrors(suite)]
    done = subprocess.run(
        [
            *(
                "mmdebstrap",
                "--quiet",
                "--mode=root",
                "--variant=minbase",
                f"--include={','.join((PACKAGES, *more))}",
            ),
            *(f"--customize-hook={CUSTOMISE}", suite, str(target), *lines),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise CannotBuild(f"mmdebstrap could not make a Debian {suite}: {said[-1]}")


def _mirrors(suite: str) -> Iterator[tuple[str, str]]:
    """The mirrors that this machine's own apt uses, and the suites on them."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = sorted({line.rstrip("/") for line in listed.stdout.split()})
    for mirror in found:
        if mirror.endswith("/debian"):
            yield mirror, suite
        elif mirror.endswith("/debian-security"):
            yield mirror, f"{suite}-security"
    if not any(mirror.endswith("/debian") for mirror in found):
        raise CannotBuild("apt on this machine has no mirror of Debian (apt-get update makes its list)")
