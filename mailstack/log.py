"""One line of `key=value` for every finished transaction, on standard error.

Callers pass what may be read by anyone who reads logs: no content and no secret ever comes here.
What strangers send (a HELO name, an address) may be in a value, so a value can never end its line,
imitate another field or carry a terminal's escape sequences.

Lines of a busy moment are written together: each write wakes whoever reads them, journald say, and
on a small machine that costs as much as the session that the line tells of.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import re
import sys
import time
import traceback
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, TextIO

Value = str | int | float | bool | None
"""What a field may hold; None leaves the field out."""

_LONGEST: Final = 1000  # characters of one value: a stranger's input may be a megabyte
_PLAIN: Final = re.compile(rf"[\w.,:;@/+*<>()\[\]{{}}!?$%&^~|#'-]{{1,{_LONGEST}}}", re.ASCII)
_GATHER_SECONDS: Final = 0.01  # a line waits no longer, and so much a killed process does not tell
_random: Final = random.Random()  # which asks the system for its seed, once
os.register_at_fork(after_in_child=_random.seed)  # or two workers would number sessions alike
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS: Final = [first + second for first in _BASE32 for second in _BASE32]
_logger: Final = logging.getLogger("mailstack")


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send every line of at least `level`, our own and the libraries', to `stream` (standard error)."""
    # The journal stamps each line itself, and takes its severity from the line (sd-daemon(3)).
    handler = _Lines(stream or sys.stderr, stamped="JOURNAL_STREAM" not in os.environ)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # aiosmtpd tells about each command; one line a transaction is enough.
    logging.getLogger("mail.log").setLevel(logging.WARNING)


def event(name: str, *, level: int = logging.INFO, **fields: Value) -> None:
    """Write one line: `level=info event=NAME key=value ...`, in the order given."""
    if not _logger.isEnabledFor(level):
        return
    match logging.root.handlers:
        case [_Lines() as lines]:  # nobody else listens, so no record has to be made
            lines.take(level, name, fields, time.time())
        case _:
            _logger.log(level, name, extra={"fields": fields})


def failure(name: str, error: BaseException, **fields: Value) -> None:
    """Write one line about an error that nobody expected, with where it came from."""
    _logger.error(name, exc_info=error, extra={"fields": fields})


class Seldom:
    """Says of what goes on happening when it is news again: at once, then so many seconds later."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = -math.inf

    def is_due(self) -> bool:
        """Whether it may be told now; it counts as told."""
        now = time.monotonic()
        due = now >= self._next
        if due:
            self._next = now + self._seconds
        return due


def new_session_id() -> str:
    """A short name for one connection: 8 characters, 40 random bits; no secret."""
    bits = _random.getrandbits(40)
    return f"{_PAIRS[bits >> 30]}{_PAIRS[bits >> 20 & 1023]}{_PAIRS[bits >> 10 & 1023]}{_PAIRS[bits & 1023]}"


def line(name: str, level: str, fields: dict[str, Value]) -> str:
    """One record as text, without its time and without a line end."""
    written = f"level={level} event={_written(name)}"
    for key, value in fields.items():
        if type(value) is int or (type(value) is str and _PLAIN.fullmatch(value)):
            written += f" {key}={value}"
        elif value is not None:
            written += f" {key}={_written(value)}"
    return written


def _written(value: Value) -> str:
    """Any value, in quotes where it needs them."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}... ({len(text)} characters)"
    if _PLAIN.fullmatch(text):
        return text
    text = text.replace("\\", r"\\").replace('"', r"\"")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return f'"{text}"'


class _Lines(logging.Handler):
    """Our events and other libraries' messages in the same shape, on one stream."""

    def __init__(self, stream: TextIO, *, stamped: bool) -> None:
        super().__init__()
        self._stream = stream
        self._stamped = stamped
        self._held: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # which is going to flush
        self._stamp = (0, "")  # of that second

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of the logging module."""
        fields: dict[str, Value] = getattr(record, "fields", {})
        name = record.getMessage()
        if record.name != _logger.name:
            name, fields = "log", {"logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            fields = {**fields, **_trace(record.exc_info[1], record.exc_info[2])}
        self.take(record.levelno, name, fields, record.created)

    def take(self, level: int, name: str, fields: dict[str, Value], at: float) -> None:
        """Have a line written: in a moment, or now where it is a warning or no event loop runs."""
        written = line(name, _LEVELS.get(level) or logging.getLevelName(level).lower(), fields)
        if self._stamped:
            written = f"time={self._stamped_at(at)} {written}\n"
        else:
            written = f"<{_severity(level)}>{written}\n"
        with self.lock or nullcontext():
            self._held.append(written)
            if level >= logging.WARNING or not self._will_flush():
                self.flush()

    def _stamped_at(self, at: float) -> str:
        """The time as RFC 3339 writes it; most lines are of the same second as the one before."""
        of, stamp = self._stamp
        second = int(at)
        if second != of:
            stamp = datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")
            self._stamp = second, stamp
        return f"{stamp}.{int((at - second) * 1000):03}Z"

    def flush(self) -> None:
        """Write what waits; where that cannot be done there is nobody to tell it to."""
        with self.lock or nullcontext():
            held, self._held = self._held, []
            if held:
                with suppress(OSError, ValueError):
                    self._stream.write("".join(held))
                    self._stream.flush()

    def close(self) -> None:
        """Another handler takes over."""
        self.flush()
        super().close()

    def _will_flush(self) -> bool:
        """Whether an event loop has been asked to."""
        if self._loop is None or self._loop.is_closed():
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                return False
            self._loop.call_later(_GATHER_SECONDS, self._flush_in_time)
        return True

    def _flush_in_time(self) -> None:
        self._loop = None
        self.flush()


def _severity(level: int) -> int:
    """Of syslog (RFC 5424 §6.2.1)."""
    return next((severity for least, severity in _SEVERITIES.items() if level >= least), 7)


_LEVELS: Final = {logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}
_SEVERITIES: Final = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}


def _trace(error: BaseException, where: TracebackType | None) -> dict[str, Value]:
    frames = [f"{os.path.basename(f.filename)}:{f.lineno}({f.name})" for f in traceback.extract_tb(where)]
    cause = error.__cause__
    return {
        "error": f"{type(error).__name__}: {error}",
        "cause": f"{type(cause).__name__}: {cause}" if cause else None,
        "trace": " > ".join(frames[-15:]),
    }
