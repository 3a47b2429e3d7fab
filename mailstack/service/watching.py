"""Certificate files that somebody replaces are used without being asked, and no session is dropped.

The files are looked at by a timer: two stat(2) in some seconds cost nothing, follow the links that
certbot moves, and work where a container mounts the folder anew; inotify does neither.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mailstack import log
from mailstack.errors import BadSetting
from mailstack.service.contexts import TlsContext

LOOK_SECONDS: Final = 2.0

_Signature = tuple[tuple[int, int, int, int] | None, ...]


class CertificateWatch:
    """A timer on the running loop, which makes the contexts anew when the files have changed and rest."""

    def __init__(
        self, files: tuple[Path, Path], contexts: Sequence[TlsContext], *, seconds: float = LOOK_SECONDS
    ) -> None:
        self._files = files
        self._contexts = contexts
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._seen = self._signature()
        self._changing = False
        self._timer = self._loop.call_later(seconds, self._look)

    def reload(self) -> None:
        """Read the files now. Where they do not fit together, the old context stays and the log says why."""
        self._seen = self._signature()
        self._changing = False
        try:
            self.follow(self._files)
        except BadSetting as error:
            log.event("certificate not reloaded", level=logging.ERROR, why=str(error))

    def follow(self, files: tuple[Path, Path]) -> None:
        """Use these files, read now, from now on; raises BadSetting and keeps to the old ones."""
        TlsContext.reload(self._contexts, *files)
        self._files = files
        self._seen = self._signature()
        self._changing = False
        log.event("certificate reloaded", certificate=str(files[0]))

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._signature()
        if now != self._seen:
            # Whoever replaces one file is about to replace the other: wait for a quiet moment.
            self._seen, self._changing = now, True
        elif self._changing:
            self.reload()
        self._timer = self._loop.call_later(self._seconds, self._look)

    def _signature(self) -> _Signature:
        return tuple(_signature(file) for file in self._files)


def _signature(file: Path) -> tuple[int, int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
