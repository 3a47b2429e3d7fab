"""Writes docs/smtp-conformance.md from the headers of the transcripts: `python -m tests.smtp.conformance`."""

from __future__ import annotations

from pathlib import Path

from tests.smtp.transcript import Transcript, read_all
from tests.support.conformance import table

PAGE = Path(__file__).parents[2] / "docs" / "smtp-conformance.md"

_INTRODUCTION = """\
# SMTP and LMTP: what is shown to conform

Each row is a conversation in `tests/smtp/transcripts/` that the test suite holds with the server, over
a socket and with the real store: in one segment, octet by octet and cut at random, in plain text and
again under TLS where it is not about the connection before that. This page is generated from them by
`python -m tests.smtp.conformance`; a test checks that it is up to date.

What no transcript can show is in the other tests of `tests/smtp/`: peers that leave while a reply is owed,
limits of time, speed, memory, space and connections, SMTP smuggling (every combination of line ends around a
dot, split at every octet, by DATA and by BDAT), the trace fields, and any octets at all on the command loop.

How Postfix holds the same conversations is in [SMTP beside Postfix](smtp-beside-postfix.md);
what the limits are worth under attack in [figures](smtp-bounds.md).

Deliberate deviations:

- In content a bare CR or LF is not refused, unless `[smtp] bare_newlines = "reject"`: a bare LF becomes CRLF,
  a bare CR a space, so that nobody who reads it can see a line end that we did not (RFC 5321 §2.3.8).
- Content that begins with no header field has the empty line that ends a header put before it (RFC 5322
  §2.1), and the line that an mbox has before a message becomes the field `X-Mailbox-Line:`, as Postfix does
  it. Nothing else in content is changed, but for line ends and the sender's own `Return-Path:`.
- Blanks between `FROM:` or `TO:` and the path are borne with, and so are underscores in domains: living
  senders have them.
- Scanners and printers that nobody can change are borne with, too: a mailbox without blanks may lack its
  angle brackets, its domain may end in a dot, and EHLO may name anything that can be printed. `Received:` has
  the address that was seen where the name is no domain.
- A sender's local-part may have dots anywhere, as some providers gave them out. `Return-Path:` quotes it.
- VRFY answers 252 for everybody, and EXPN 502 (RFC 5321 §7.3).
- DSN, BINARYMIME and REQUIRETLS are not offered, and their parameters are refused with 555 or 501.

"""


def page(transcripts: list[Transcript]) -> str:
    """The page as text."""
    return _INTRODUCTION + table(transcripts)


if __name__ == "__main__":
    PAGE.write_text(page(read_all()), encoding="utf-8")
