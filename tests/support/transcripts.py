"""What the transcripts of both protocols share: escapes, expected lines, and ways to cut a stream."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Callable, Iterator

Cut = Callable[[bytes], Iterator[bytes]]

_ESCAPE = re.compile(r"\\(n|r|l|\\|x[0-9A-Fa-f]{2})")
_BASE64 = re.compile(r"\\b64\[([^\]]*)\]")
_REPEATED = re.compile(r"\\\{(\d+)([^}]+)\}")
_NAMED = re.compile(rb"<([a-z]+)>$")
_UNIQUE_ID = re.compile(rb"[\x21-\x7e]{1,70}")
_ESCAPED = {"n": b"\r\n", "r": b"\r", "l": b"\n", "\\": b"\\"}


def octets(text: str) -> bytes:
    r"""The text with its escapes replaced.

    `\n` is CRLF, `\r` a bare CR, `\l` a bare LF, `\xHH` any octet, `\{99a}` `a` 99 times,
    `\b64[a]` `a`, its own escapes replaced, in base64.
    """
    text = _BASE64.sub(lambda found: base64.b64encode(octets(found[1])).decode(), text)
    text = _REPEATED.sub(lambda found: int(found[1]) * found[2], text)
    parts = _ESCAPE.split(text)
    plain = (part.encode("utf-8") for part in parts[::2])
    escaped = (_ESCAPED.get(code) or bytes.fromhex(code[1:]) for code in parts[1::2])
    return b"".join(next(plain) if at % 2 == 0 else next(escaped) for at in range(len(parts)))


class Names(dict[bytes, bytes]):
    """What `<name>` at the end of an expected line stands for, once a conversation has shown it."""

    def fit(self, want: bytes, line: bytes) -> bool | None:
        """Whether the line ends with what the name stands for; None where it expects no name.

        A name stands for one unique-id of RFC 1939 §7, and no two names for the same one.
        """
        named = _NAMED.search(want)
        if named is None:
            return None
        name, value = named[1], line[named.start() :]
        if line[: named.start()] != want[: named.start()] or not _UNIQUE_ID.fullmatch(value):
            return False
        if name not in self and value in self.values():
            return False
        return self.setdefault(name, value) == value


def fits(want: bytes, line: bytes, names: Names | None = None) -> bool:
    """Whether a line is the expected one: word for word, but for `...` and `<name>` at its end."""
    if names is not None and (known := names.fit(want, line)) is not None:
        return known
    return line.startswith(want[:-3].rstrip()) if want.endswith(b"...") else line == want


def mismatch(expected: list[bytes], got: bytes, names: Names | None = None) -> str | None:
    """None when `got` is exactly the expected lines, else what differs."""
    lines = got.split(b"\r\n")
    if lines.pop() != b"":
        return f"the answer does not end with CRLF: {got[-80:]!r}"
    for want, line in zip(expected, lines, strict=False):
        if not fits(want, line, names):
            return f"expected {want!r}, got {line!r}"
    if len(lines) != len(expected):
        return f"expected {len(expected)} lines, got {len(lines)}: {lines!r}"
    return None


def whole(stream: bytes) -> Iterator[bytes]:
    """All in one segment."""
    yield stream


_ENDS = 2000
_SIZES = (1, 2, 3, 7, 40, 300)


def octet_by_octet(stream: bytes) -> Iterator[bytes]:
    """A segment an octet; of a long stream only its two ends, for what is between is all alike."""
    middle = range(_ENDS, max(_ENDS, len(stream) - _ENDS))
    if middle:
        yield from octet_by_octet(stream[: middle.start])
        yield stream[middle.start : middle.stop]
        stream = stream[middle.stop :]
    for at in range(len(stream)):
        yield stream[at : at + 1]


def at_random(stream: bytes) -> Iterator[bytes]:
    """Segments of any sizes, the same each time; large ones where a long stream is all alike."""
    chance = random.Random(stream)
    at = 0
    while at < len(stream):
        left = len(stream) - at
        within = at > _ENDS and left > _ENDS
        size = min(chance.choice((300, 5000, 60_000)), left - _ENDS) if within else chance.choice(_SIZES)
        yield stream[at : at + size]
        at += size
