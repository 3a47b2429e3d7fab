r"""The language of `transcripts/*.txt`: what a peer says, what the server has to answer, and why.

A file holds transcripts, each of them:

    == RFC 5321 §4.1.1.2 | what the server does, in one sentence
    runs: plain                             (options, see Transcript; `#` begins a comment line)
    settings: idle_seconds=0.3

    C: MAIL FROM:<eve@example.net>          the peer sends a line
    C; RSET                                 the peer sends octets without a line end
    B: text                                 the peer sends BDAT with their number, then the octets
    L: text                                 the same, with LAST
    S: 250 2.1.0 ...                        the server answers; `...` at the end is any rest
    S; 50 550 5.1.1 ...                     the server answers so 50 times
    S: (hello)                              the server answers EHLO, in as many lines as it likes
    * half-close                            something happens, see Event
    * removed mrose                         the account of mrose is removed
    * mail jones                            jones has a new message; its lines follow
    M: Return-Path: <eve@example.net>

For the escapes see tests/support/transcripts.py. What is sent from one `*` to the next may go out
in one segment or octet by octet: the answers have to be the same. The greeting has been read.
`* trio` sends EHLO, MAIL from eve and RCPT to jones, and expects that all of it is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from tests.support.transcripts import octets

FOLDER = Path(__file__).parent / "transcripts"

EHLO = b"EHLO client.example"
HELLO = b"(hello)"
TRIO = b"MAIL FROM:<eve@example.net>\r\nRCPT TO:<jones@example.org>\r\n"


_PAIR = re.compile(r"(\w+)=([\d.]+)")


class Event(Enum):
    """What may happen between two exchanges."""

    TRIO = "trio"  # EHLO (or LHLO), MAIL and RCPT, all accepted
    TLS = "tls handshake"
    HALF_CLOSE = "half-close"  # the peer has said all it will say
    DROP = "drop"  # the connection is reset
    CLOSED = "closed"  # expectation: the server has ended the connection
    STORE_FAILS = "the store fails"
    STORE_BREAKS = "the store breaks"  # in a way that nobody foresaw
    STORE_HEALS = "the store heals"
    AGAIN = "connect again"
    REMOVED = "removed"  # this account, by the administrator
    MAIL = "mail"  # expectation: this account's newest message
    MAILS = "mails"  # expectation: this account has so many messages


@dataclass
class Step:
    """Octets to send and lines to expect, up to and including an event."""

    sent: bytes = b""
    expected: list[bytes] = field(default_factory=list)
    event: Event | None = None
    account: str = ""
    count: int = 0
    message: list[bytes] = field(default_factory=list)


@dataclass
class Transcript:
    """One behaviour, shown.

    `listener` is smtp or lmtp; `accounts: none` leaves the domains without any. `runs` says where it
    can be shown, if not everywhere: `plain` (it is about the connection before TLS), `whole` (it
    matters that the octets come in one segment). `settings` are those of `[smtp]` that it needs.
    """

    section: str
    behaviour: str
    file: str
    line: int
    listener: str = "smtp"
    accounts: bool = True
    runs: frozenset[str] = frozenset()
    settings: dict[str, float] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def _number(text: str) -> float:
    return float(text) if "." in text else int(text)


def read_all() -> list[Transcript]:
    """Every transcript of the folder, in the order of the files."""
    return [transcript for path in sorted(FOLDER.glob("*.txt")) for transcript in read(path)]


def read(path: Path) -> Iterator[Transcript]:
    """The transcripts of one file; raises ValueError for a line that is none of the language."""
    current: Transcript | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("== "):
            if current is not None:
                yield current
            section, _, behaviour = line[3:].partition(" | ")
            current = Transcript(section, behaviour, path.name, number)
        elif current is None or not _add(current, line):
            raise ValueError(f"{path.name}:{number}: not understood: {line}")
    if current is not None:
        yield current


def _add(transcript: Transcript, line: str) -> bool:
    mark, _, rest = line.partition(" ")
    if mark == "M:":
        transcript.steps[-1].message.append(octets(rest))
        return True
    if not transcript.steps or transcript.steps[-1].event is not None:
        transcript.steps.append(Step())
    step = transcript.steps[-1]
    match mark:
        case "C:":
            step.sent += octets(rest) + b"\r\n"
        case "C;":
            step.sent += octets(rest)
        case "B:" | "L:":
            chunk = octets(rest)
            step.sent += b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if mark == "L:" else b"") + chunk
        case "S:":
            step.expected.append(octets(rest))
        case "S;":
            count, _, line = rest.partition(" ")
            step.expected += [octets(line)] * int(count)
        case "*":
            _add_event(transcript, step, rest)
        case _:
            return _add_option(transcript, mark, rest)
    return True


def _add_option(transcript: Transcript, mark: str, rest: str) -> bool:
    match mark:
        case "listener:":
            transcript.listener = rest
        case "accounts:":
            transcript.accounts = rest != "none"
        case "runs:":
            transcript.runs = frozenset(rest.split(" "))
        case "settings:":
            transcript.settings |= {name: _number(value) for name, value in _PAIR.findall(rest)}
        case _:
            return False
    return True


def _add_event(transcript: Transcript, step: Step, text: str) -> None:
    word, *values = text.split(" ")
    if word == "mail" and values:
        step.event, step.account = Event.MAIL, octets(values[0]).decode()
    elif word == "removed":
        step.event, step.account = Event.REMOVED, values[0]
    elif word == "mails":
        step.event, step.account, step.count = Event.MAILS, values[0], int(values[1])
    else:
        step.event = Event(text)
        if step.event is Event.TRIO:
            hello = EHLO if transcript.listener == "smtp" else EHLO.replace(b"E", b"L", 1)
            step.sent += hello + b"\r\n" + TRIO
            step.expected.append(HELLO)
            step.expected += [b"250 2.1.0 ...", b"250 2.1.5 ..."]
