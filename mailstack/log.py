"""One line of `key=value` for every finished transaction, on standard error.

Callers pass what may be read by anyone who reads logs: no content and no secret ever comes here.
What strangers send (a HELO name, an address) may be in a value, so a value can never end its line,
imitate another field or carry a terminal's escape sequences.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, TextIO

Value = str | int | float | bool | None
"""What a field may hold; None leaves the field out."""

_PLAIN: Final = re.compile(r"[\w.,:;@/+*<>()\[\]{}!?$%&^~|#'-]+", re.ASCII)
_UNSAFE: Final = re.compile(r'["\\]')
_LONGEST: Final = 1000  # characters of one value: a stranger's input may be a megabyte
_logger: Final = logging.getLogger("mailstack")


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send every line of at least `level`, our own and the libraries', to `stream` (standard error)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    # The journal stamps each line itself, and takes its severity from the line (sd-daemon(3)).
    handler.setFormatter(_Formatter(stamped="JOURNAL_STREAM" not in os.environ))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # aiosmtpd tells about each command; one line a transaction is enough.
    logging.getLogger("mail.log").setLevel(logging.WARNING)


def event(name: str, *, level: int = logging.INFO, **fields: Value) -> None:
    """Write one line: `level=info event=NAME key=value ...`, in the order given."""
    if _logger.isEnabledFor(level):
        _logger.log(level, name, extra={"fields": fields})


def failure(name: str, error: BaseException, **fields: Value) -> None:
    """Write one line about an error that nobody expected, with where it came from."""
    _logger.error(name, exc_info=error, extra={"fields": fields})


def new_session_id() -> str:
    """A short name for one connection: 8 characters, 40 random bits."""
    return base64.b32encode(os.urandom(5)).decode("ascii").lower()


def line(name: str, level: str, fields: dict[str, Value]) -> str:
    """One record as text, without its time and without a line end."""
    pairs = [f"{key}={_written(value)}" for key, value in fields.items() if value is not None]
    return " ".join([f"level={level}", f"event={_written(name)}", *pairs])


def _written(value: Value) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if _PLAIN.fullmatch(text) and len(text) <= _LONGEST:
        return text
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}... ({len(text)} characters)"
    text = _UNSAFE.sub(r"\\\g<0>", text)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return f'"{text}"'


class _Formatter(logging.Formatter):
    """Our events and other libraries' messages in the same shape."""

    def __init__(self, *, stamped: bool) -> None:
        super().__init__()
        self._stamped = stamped

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Value] = getattr(record, "fields", {})
        name = record.getMessage()
        if record.name != _logger.name:
            name, fields = "log", {"logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            fields = {**fields, **_trace(record.exc_info[1], record.exc_info[2])}
        written = line(name, record.levelname.lower(), fields)
        if not self._stamped:
            return f"<{_severity(record.levelno)}>{written}"
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return f"time={at.replace('+00:00', 'Z')} {written}"


def _severity(level: int) -> int:
    """Of syslog (RFC 5424 §6.2.1)."""
    return next((severity for least, severity in _SEVERITIES.items() if level >= least), 7)


_SEVERITIES: Final = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}


def _trace(error: BaseException, where: TracebackType | None) -> dict[str, Value]:
    frames = [f"{os.path.basename(f.filename)}:{f.lineno}({f.name})" for f in traceback.extract_tb(where)]
    cause = error.__cause__
    return {
        "error": f"{type(error).__name__}: {error}",
        "cause": f"{type(cause).__name__}: {cause}" if cause else None,
        "trace": " > ".join(frames[-15:]),
    }
