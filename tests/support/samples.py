"""Content that is hard to carry: real messages where a corpus lies about, and some of our own making."""

from __future__ import annotations

import os
import random
from functools import cache
from pathlib import Path
from typing import NamedTuple

_HEADER = b"From: Eve <eve@example.net>\r\nTo: anna@example.test\r\nSubject: hard\r\n"
_ROOT = Path(__file__).parents[2]


class Sample(NamedTuple):
    """One message, as octets that a sender is asked to send."""

    name: str
    content: bytes

    @property
    def has_bare_newlines(self) -> bool:
        """Whether a CR or LF stands alone: few programs send such a thing as it is."""
        rest = self.content.replace(b"\r\n", b"")
        return b"\r" in rest or b"\n" in rest


def corpus_folder() -> Path | None:
    """Where a corpus of real messages lies: MAILSTACK_CORPUS, or beside the checkout."""
    named = os.environ.get("MAILSTACK_CORPUS")
    folder = Path(named) if named else _ROOT.parent / "shared" / "corpus"
    return folder if folder.is_dir() else None


@cache
def corpus() -> tuple[Sample, ...]:
    """The messages of the corpus as their files have them; nothing where there is none."""
    folder = corpus_folder()
    if folder is None:
        return ()
    return tuple(
        Sample(str(path.relative_to(folder)), path.read_bytes()) for path in sorted(folder.glob("*/*.eml"))
    )


@cache
def hard() -> tuple[Sample, ...]:
    """Messages that are hard on purpose."""
    rng = random.Random(5321)
    lines = b"".join(rng.randbytes(45).hex().encode() + b"\r\n" for _ in range(60_000))
    every_octet = bytes(range(128, 256))
    controls = bytes(n for n in range(32) if n not in b"\r\n")
    mbox = b"From eve Mon Jan  1 00:00:00 2024\r\n"
    return_path = b"return-PATH :\r\n <z@y>\r\n"
    made = {
        "bare CR": _HEADER + b"\r\none\rtwo\r\r\nthree\r\n",
        "bare CR in a header field": b"Subject: one\rX-Forged: yes\r\n\r\nbody\r\n",
        "bare LF": _HEADER + b"\r\none\ntwo\n\nthree\r\n",
        "bare LF around a dot": _HEADER + b"\r\none\n.\ntwo\n.\r\nthree\r\n",
        "bare CR around a dot": _HEADER + b"\r\none\r.\rtwo\r\n",
        "LF only": _HEADER.replace(b"\r\n", b"\n") + b"\nbody\n",
        "CR at the end": _HEADER + b"\r\nbody\r",
        "first octet a dot": b".a message without a header\r\n",
        "lone dots": _HEADER + b"\r\n.\r\n..\r\n.\r\n...\r\n\r\n.\r\n",
        "a dot alone": b".\r\n",
        "dots at the cut of a part": _HEADER + b"\r\n" + b".\r\n" * 100_000,
        "no final CRLF": _HEADER + b"\r\nbody",
        "empty": b"",
        "one line end": b"\r\n",
        "one octet": b"x",
        "no header": b"\r\njust a body\r\n",
        "no header and no blank line": b"just a body, without a colon\r\nand more\r\n",
        "header only": _HEADER,
        "no blank line": _HEADER + b"just a body, without a colon\r\nX: y\r\n",
        "header and blank line": _HEADER + b"\r\n",
        "own Return-Path": b"Return-Path: <x@y>\r\n" + _HEADER + return_path + b"\r\nReturn-Path: <k>\r\n",
        "8-bit in header and body": b"Subject: gr\xfc\xdfe \xe2\x82\xac\r\n\r\n" + every_octet + b"\r\n",
        "NUL": _HEADER + b"\r\nbefore\0after\r\n\0\r\n",
        "control characters": _HEADER + b"\r\n" + controls + b"\x7f\r\n",
        "From at the start of lines": mbox + _HEADER + b"\r\nFrom here\r\n>From there\r\n",
        "1 MB line": _HEADER + b"\r\n" + b"x" * 1_000_000 + b"\r\nend\r\n",
        "header line nearly as long as may be": _HEADER + b"X-Long: " + b"y" * 250_000 + b"\r\n\r\nbody\r\n",
        "5 MB": _HEADER + b"\r\n" + lines,
    }  # fmt: skip
    return tuple(Sample(name, content) for name, content in made.items())


def everything() -> tuple[Sample, ...]:
    """The corpus, and what is hard on purpose."""
    return (*corpus(), *hard())
