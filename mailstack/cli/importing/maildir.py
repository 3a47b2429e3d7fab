"""A Maildir as a source, with the lists that Dovecot and Courier keep in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from mailstack.cli.importing.source import Found, Uidl, file_chunks, modified, moment, read_text, shown
from mailstack.errors import BadData
from mailstack.mail import courier, dovecot, maildir
from mailstack.mail.courier import SizeList
from mailstack.mail.dovecot import Format, UidList
from mailstack.mail.maildir import Name

DOVECOT_LIST: Final = "dovecot-uidlist"
COURIER_LIST: Final = "courierpop3dsizelist"
_FOLDERS: Final = ("new", "cur")  # a server moves mail from the first to the second, and may run

List = TypeVar("List", UidList, SizeList)


class _File(NamedTuple):
    place: str  # below the Maildir
    name: Name
    modified: float

    @property
    def arrived(self) -> float:
        """A copy of the folder may have lost its times; the names still have theirs."""
        seconds = self.name.seconds
        return self.modified if seconds is None else min(self.modified, seconds)


class Maildir:
    """A folder with `cur` and `new` in it."""

    def __init__(self, path: Path, uidl: Uidl, uidl_format: Format) -> None:
        self.kind = "a Maildir"
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._path = path
        self._format = uidl_format
        self._uidl = self._known_by() if uidl is Uidl.auto else uidl

    def close(self) -> None:
        """Nothing is kept open."""

    def find(self) -> Iterator[Found]:
        """The messages as the server sorted them."""
        self._tell_subfolders()
        files = self._files()
        if self._uidl is Uidl.dovecot or (self._uidl is Uidl.x_uidl and self._has(DOVECOT_LIST)):
            yield from self._as_dovecot(files)
        elif self._uidl is Uidl.courier:
            yield from self._as_courier(files)
        elif self._uidl is Uidl.names:
            for file in sorted(files, key=lambda file: (file.modified, file.name.base)):
                yield self._found(file, file.name.base)
        else:
            for file in sorted(files, key=lambda file: file.name.order):
                yield self._found(file, None)

    def chunks(self, found: Found) -> Iterator[bytes]:
        """The file, wherever its server has moved it meanwhile."""
        try:
            yield from file_chunks(self._path / found.key)
        except FileNotFoundError:
            yield from file_chunks(self._moved(found.key))

    def _known_by(self) -> Uidl:
        there = [name for name in (DOVECOT_LIST, COURIER_LIST) if self._has(name)]
        if len(there) == 2:
            self.notes.append(
                f"{DOVECOT_LIST} and {COURIER_LIST} are both there: unique-ids are taken from the first;"
                " --uidl courier takes the other"
            )
        if not there:
            self.notes.append(
                f"there is no {DOVECOT_LIST} and no {COURIER_LIST} here: unique-ids are file names, as"
                " qmail's server gives them; if the server was another one, its mail may be downloaded again"
            )
            return Uidl.names
        return Uidl.dovecot if there[0] == DOVECOT_LIST else Uidl.courier

    def _has(self, name: str) -> bool:
        return (self._path / name).exists()

    def _as_dovecot(self, files: list[_File]) -> Iterator[Found]:
        listed = self._list(DOVECOT_LIST, dovecot.parse_uidlist)
        place: list[tuple[tuple[bool, int], Found]] = []
        next_uid = listed.next_uid
        for file in sorted(files, key=lambda file: file.name.order):
            base = file.name.base
            one = listed.messages.get(base)
            uid = next_uid if one is None else one.uid
            next_uid += one is None
            order = None if one is None else one.order
            saved = None if one is None else one.unique_id
            guid = None if one is None else one.guid
            made = self._format.unique_id(uid=uid, uid_validity=listed.uid_validity, base=base, guid=guid)
            key = (order is None, uid if order is None else order)
            found = self._found(file, made if saved is None else saved, certain=one is not None)
            place.append((key, found._replace(from_format=saved is None)))
        for _, found in sorted(place, key=lambda each: each[0]):
            yield found

    def _as_courier(self, files: list[_File]) -> Iterator[Found]:
        listed = self._list(COURIER_LIST, courier.parse_sizelist)
        number = listed.next_number
        for file in sorted(files, key=lambda file: file.name.order):
            unique_id = listed.messages.get(file.name.base)
            certain = unique_id is not None
            if unique_id is None:
                unique_id = courier.unique_id(number, listed.uid_validity, file.name.base)
                number += 1
            yield self._found(file, unique_id, certain=certain)

    def _list(self, name: str, parse: Callable[[str], List]) -> List:
        try:
            listed = parse(read_text(self._path / name))
        except BadData as error:
            raise BadData(
                f"{self._path / name}: {error}; without this list clients would download all mail again:"
                " find a whole one, or say --uidl new if that is what you want"
            ) from error
        self.problems += [f"{name}: {problem}" for problem in listed.problems]
        return listed

    def _found(self, file: _File, unique_id: str | None, *, certain: bool = True) -> Found:
        return Found(shown(file.place), file.place, unique_id, certain, at=moment(file.arrived))

    def _files(self) -> list[_File]:
        files: dict[str, _File] = {}
        for folder in _FOLDERS:
            for entry in self._entries(folder):
                name, place = maildir.parse(entry.name), f"{folder}/{entry.name}"
                seconds = modified(entry, place, self.problems)
                if seconds is None:
                    continue
                file = _File(place, name, seconds)
                before = files.get(name.base)
                # Where it is there no longer, the server has moved it just now.
                if before is not None and (self._path / before.place).exists():
                    told = "another file has this name, and only that is imported"
                    self.problems.append(f"{shown(place)}: {told}")
                    continue
                files[name.base] = file
        return list(files.values())

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self._path / folder) as entries:
                yield from (each for each in entries if not (each.is_dir() or each.name.startswith(".")))
        except FileNotFoundError:
            self.notes.append(f"there is no folder {folder} in {self._path}")

    def _moved(self, place: str) -> Path:
        base = maildir.parse(place.rpartition("/")[2]).base
        for folder in _FOLDERS:
            for entry in self._entries(folder):
                if maildir.parse(entry.name).base == base:
                    return Path(entry.path)
        raise FileNotFoundError(2, "it was deleted while the import ran", place)

    def _tell_subfolders(self) -> None:
        with os.scandir(self._path) as entries:
            folders = [each for each in entries if each.is_dir() and each.name not in _FOLDERS]
        names = sorted(each.name for each in folders if (Path(each.path) / "cur").is_dir())
        if names:
            self.notes.append(
                f"folders are not imported, for a maildrop has none: {', '.join(map(shown, names))};"
                " to import one, name it as the source"
            )
