"""Settings that only root may read: a file for each, handed over by systemd (systemd.exec(5), Credentials).

A service finds them in $CREDENTIALS_DIRECTORY. Root's command line finds them where systemd does, in
the folder `credentials` beside the settings, and has them before it turns into the mail's owner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

NAME: Final = "mailstack"
"""The name of the folder's credential in our units; systemd puts it before the name of each file."""

_FILES: Final = frozenset({"tls.certificate", "tls.private_key"})
"""Settings that name a file: here they are one."""


class Credential(NamedTuple):
    """One setting: the name of its key, its value, and the file it comes from."""

    key: str
    value: str
    file: Path


def found(
    settings_folder: Path | None, environ: Mapping[str, str], known: Sequence[Credential] = ()
) -> tuple[Credential, ...]:
    """Every credential there is; those known before where nobody may look any more.

    Raises OSError where a file cannot be read.
    """
    try:
        if passed := environ.get("CREDENTIALS_DIRECTORY"):
            return tuple(_in(Path(passed), f"{NAME}_"))
        return () if settings_folder is None else tuple(_in(settings_folder / "credentials", ""))
    except _Hidden:
        # Who never could look does without, as the owner of the mail does outside the service. Root did
        # look, before it turned into the owner: without them the store would be another one.
        return tuple(known)


class _Hidden(Exception):
    """The folder is somebody else's."""


def _in(folder: Path, prefix: str) -> Iterator[Credential]:
    try:
        files = sorted(each for each in folder.iterdir() if each.name.startswith(prefix) and each.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError as error:
        raise _Hidden from error
    for file in files:
        key = file.name.removeprefix(prefix)
        if not key.startswith("."):
            yield Credential(key, str(file) if key in _FILES else file.read_text("utf-8").strip(), file)
