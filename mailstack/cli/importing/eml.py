"""Messages in files of their own as a source: one file, or a folder of files that end in `.eml`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from mailstack.cli.importing.source import Found, Uidl, file_chunks, modified, moment, shown
from mailstack.errors import BadData

SUFFIX: Final = ".eml"
_EXPORTED: Final = re.compile(r"[0-9]{8,}-(.+)\.eml")


class Eml:
    """A file, or the files of a folder in the order of their names."""

    def __init__(self, path: Path, uidl: Uidl) -> None:
        if uidl in (Uidl.dovecot, Uidl.courier):
            raise BadData(f"{path}: --uidl {uidl} is for a Maildir or an mbox, and these are single files")
        self.kind = "a message" if path.is_file() else "a folder of .eml files"
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._path = path
        self._uidl = uidl

    def close(self) -> None:
        """Nothing is kept open."""

    def find(self) -> Iterator[Found]:
        """The files in the order of their names, which in an export of ours is that of the maildrop."""
        names = [self._path.name] if self._path.is_file() else self._names()
        folder = self._path.parent if self._path.is_file() else self._path
        unique_ids = self._unique_ids(names)
        for name, unique_id in zip(names, unique_ids, strict=True):
            seconds = modified(folder / name, name, self.problems)
            if seconds is None:
                continue
            saved = moment(seconds)
            # An export of ours has set the time; any other file may as well have been saved today.
            at = saved if _EXPORTED.fullmatch(name) else None
            yield Found(shown(name), folder / name, unique_id, at=at, at_latest=saved)

    def chunks(self, found: Found) -> Iterator[bytes]:
        """The file."""
        return file_chunks(found.key)

    def _names(self) -> list[str]:
        everything = sorted(each.name for each in self._path.iterdir() if not each.name.startswith("."))
        names = [name for name in everything if name.lower().endswith(SUFFIX)]
        if others := len(everything) - len(names):
            self.notes.append(f"{others} of {len(everything)} names in {self._path} do not end in {SUFFIX}")
        return names

    def _unique_ids(self, names: list[str]) -> list[str | None]:
        if self._uidl is Uidl.names:
            return [name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name for name in names]
        exported = [found and unquote(found[1]) for found in map(_EXPORTED.fullmatch, names)]
        if self._uidl is Uidl.auto and all(exported) and len(set(exported)) == len(names):
            return exported
        return [None] * len(names)
