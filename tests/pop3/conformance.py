"""Writes docs/pop3-conformance.md from the headers of the transcripts: `python -m tests.pop3.conformance`."""

from __future__ import annotations

from pathlib import Path

from tests.pop3.transcript import Transcript, read_all
from tests.support.conformance import table

PAGE = Path(__file__).parents[2] / "docs" / "pop3-conformance.md"

_INTRODUCTION = """\
# POP3: what is shown to conform

Each row is a conversation in `tests/pop3/transcripts/` that the test suite holds with the server:
whole, octet by octet and cut at random with the pure session, then over sockets with the real
store, in the clear and under TLS. This page is generated from them by
`python -m tests.pop3.conformance`; a test checks that it is up to date.

Deliberate deviation: the autologout of RFC 1939 §3 is at least 10 minutes after login (`[pop3] idle`),
but shorter before it (`[pop3] login_idle`), so that strangers cannot hold connections for long.

What the same conversations are like with Dovecot is on [a page of its own](pop3-beside-dovecot.md).

"""


def page(transcripts: list[Transcript]) -> str:
    """The page as text."""
    return _INTRODUCTION + table(transcripts)


if __name__ == "__main__":
    PAGE.write_text(page(read_all()), encoding="utf-8")
