"""systemd's units: where they lie in this installation, where they go, and how they are started.

The Debian package brings them along. Whoever installed mailstack in another way gets them written
by `install`, fitted to where the program is.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from mailstack.errors import BadSetting, NotRunning
from mailstack.files import write_whole

PROGRAM: Final = "/usr/bin/mailstack"
"""Where the units say that the program is; `install` writes another path where it is elsewhere."""

TARGET: Final = "mailstack.target"
"""Enabling it enables all that an ordinary server needs; stopping it stops everything."""

_SERVICES: Final = ("mailstack@.service.d", "mailstack-.service.d")
"""Drop-ins here are for every service of ours: the template's instances, and all with the prefix."""

_PROGRAM_DROP_IN: Final = "20-program.conf"
"""Beside the sandbox's: for a program that the sandbox would hide or not let run."""

_DROP_INS: Final = {
    "sandbox.conf": tuple(f"{folder}/10-sandbox.conf" for folder in _SERVICES),
    "pop3.conf": ("mailstack@pop3.service.d/20-pop3.conf",),
    "network.conf": (
        "mailstack-doctor.service.d/20-network.conf",
        "mailstack-acme.service.d/20-network.conf",
    ),
    "doctor.conf": ("mailstack-doctor.service.d/30-doctor.conf",),
}
"""Each drop-in, and where it goes below the folder of units."""

_KINDS: Final = (".service", ".socket", ".target", ".timer")

_HOMES: Final = ("/home", "/root", "/run/user")
"""What ProtectHome= hides."""

_BACKUPS: Final = Path("/var/backups/mailstack")
"""The folder that the unit of the backup may write to as it comes."""

_BACKUPS_DROP_IN: Final = "mailstack-backup.service.d/30-folder.conf"
_BACKUPS_ELSEWHERE: Final = """\
# Written by mailstack setup: backups go to the folder of [backup] in the settings.
[Unit]
RequiresMountsFor={folder}

[Service]
ReadWritePaths={folder}
"""
_ELSEWHERE: Final = """\
# The program is not where a package would have put it.
[Service]
ExecPaths={folders}
"""
_IN_A_HOME: Final = """\
# All of the home that holds the program stays hidden but the program itself.
ProtectHome=tmpfs
BindReadOnlyPaths={folders}
"""


class Places(NamedTuple):
    """The folders that systemd reads, below some root."""

    units: Path
    sysusers: Path
    tmpfiles: Path

    @classmethod
    def of_package(cls, root: Path) -> Places:
        """Where a package puts its files."""
        lib = root / "usr/lib"
        return cls(lib / "systemd/system", lib / "sysusers.d", lib / "tmpfiles.d")

    @classmethod
    def of_administrator(cls, root: Path) -> Places:
        """Where the files go that no package owns."""
        etc = root / "etc"
        return cls(etc / "systemd/system", etc / "sysusers.d", etc / "tmpfiles.d")


def source() -> Path:
    """The folder of unit files: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).parents[1]
    for place in (package / "_systemd", package.parent / "systemd"):
        if (place / TARGET).is_file():
            return place
    raise BadSetting(f"this installation lacks its units (looked in {package}); install mailstack again")


def packaged(root: Path = Path("/")) -> bool:
    """Whether a package has brought the units already."""
    return (Places.of_package(root).units / TARGET).exists()


def leftovers(root: Path = Path("/")) -> list[Path]:
    """What an installation without the package has left that hides the package's units and command."""
    if not packaged(root):
        return []
    places = Places.of_administrator(root)
    units = {*unit_files(), *(f"{each}/{_PROGRAM_DROP_IN}" for each in _SERVICES)}
    ours = [*(places.units / name for name in sorted(units)), root / "usr/local/bin/mailstack"]
    ours += [places.sysusers / "mailstack.conf", places.tmpfiles / "mailstack.conf"]
    return [each for each in ours if each.is_file()]  # which a link to /dev/null is not: that masks


def write(places: Places, program: Path = Path(PROGRAM)) -> list[Path]:
    """Write every unit, drop-in, the system user and the folders; return the files that changed.

    What is there under the same name is replaced; drop-ins of the administrator's have other names.
    """
    texts = {places.units / name: text for name, text in unit_files(program).items()}
    texts[places.sysusers / "mailstack.conf"] = (source() / "sysusers.conf").read_text()
    texts[places.tmpfiles / "mailstack.conf"] = (source() / "tmpfiles.conf").read_text()
    changed = [path for path in sorted(texts) if not path.is_file() or path.read_text() != texts[path]]
    for path in changed:
        _place(path, texts[path])
    return changed


def unit_files(program: Path = Path(PROGRAM)) -> dict[str, str]:
    """The files below systemd's folder of units by their names, for a program at this place."""
    folder = source()
    files = {each.name: each.read_text() for each in folder.iterdir() if each.suffix in _KINDS}
    for name, targets in _DROP_INS.items():
        files |= dict.fromkeys(targets, (folder / name).read_text())
    if program != Path(PROGRAM):
        files = {name: text.replace(PROGRAM, str(program)) for name, text in files.items()}
        if text := _elsewhere():
            files |= {f"{each}/{_PROGRAM_DROP_IN}": text for each in _SERVICES}
    return files


def admit_backups(places: Places, folder: Path) -> list[Path]:
    """Let the nightly backup write to this folder; return the drop-in if it was written or removed."""
    path = places.units / _BACKUPS_DROP_IN
    if folder.is_relative_to(_BACKUPS):
        if not path.exists():
            return []
        path.unlink()
        return [path]
    text = _BACKUPS_ELSEWHERE.format(folder=_as_word(folder))
    if path.is_file() and path.read_text() == text:
        return []
    _place(path, text)
    return [path]


def _place(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode(), mode=0o644)


def _as_word(path: Path) -> str:
    """A path as one word of a unit file (systemd.syntax(7)), in which % begins a specifier."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def install(backups: Path, program: Path | None = None) -> list[Path]:
    """Have systemd know the units, the user and the folders; return the files that had to be written.

    For root. Where a package has brought the units, only what lets the backup into its folder is written.
    """
    places = Places.of_administrator(Path("/"))
    written = [] if packaged() else write(places, program or this_program())
    written += admit_backups(places, backups)
    _told("systemd-sysusers", "mailstack.conf")
    _told("systemd-tmpfiles", "--create", "mailstack.conf")
    if is_systemd_running():
        _told("systemctl", "daemon-reload")
    return written


def start() -> None:
    """Start all that is enabled, now and at every boot; raises NotRunning where that fails."""
    # Enabling the target anew would bring back each part that somebody has switched off.
    if subprocess.run(["systemctl", "is-enabled", "--quiet", TARGET], check=False).returncode != 0:
        _told("systemctl", "enable", "--quiet", TARGET)
    _told("systemctl", "start", TARGET)


def is_systemd_running() -> bool:
    """Whether systemd looks after this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def this_program() -> Path:
    """The command of this installation, as a unit can name it."""
    return Path(sys.prefix) / "bin/mailstack"


def _elsewhere() -> str:
    """The drop-in for a program whose folders the sandbox would hide or not let run."""
    prefixes = dict.fromkeys((Path(sys.prefix), Path(sys.base_prefix)))
    outside = [each for each in prefixes if each != Path("/usr") and not each.is_relative_to("/usr/lib")]
    if not outside:
        return ""
    text = _ELSEWHERE.format(folders=" ".join(map(str, outside)))
    hidden = [each for each in outside if any(each.is_relative_to(home) for home in _HOMES)]
    return text + (_IN_A_HOME.format(folders=" ".join(map(str, hidden))) if hidden else "")


def _told(*command: str) -> None:
    """Run one of systemd's programs; raises NotRunning with what it complains of."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NotRunning(f"this machine has no {command[0]}: it is not run by systemd") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise NotRunning(f"{' '.join(command)} failed: {said}")
