"""The language of `transcripts/*.txt`: what a client says, what the server has to answer, and why.

A file holds transcripts, each of them:

    == RFC 1939 §5 | what the server does, in one sentence
    message: Subject: one\\n\\nbody\\n        (options, see Transcript; `#` begins a comment line)
    utf8 message: Subject: \\xc3\\xbc\\n\\n     (one that came with SMTPUTF8)

    C: STAT                                 the client sends a line
    C; NOO                                  the client sends octets without a line end
    S: +OK 1 ...                            the server answers; `...` at the end is any rest
    S: 1 <first>                            a unique-id, everywhere the same one, and no other's
    * half-close                            something happens, see Event

For the escapes see tests/support/transcripts.py.
Everything from one `*` to the next may go out in one packet or octet by octet: the answers have to
be the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from tests.support.transcripts import octets

FOLDER = Path(__file__).parent / "transcripts"

NAME = "mrose@example.org"
SECRET = "tanstaaf red"


class Event(Enum):
    """What may happen between two exchanges."""

    LOG_IN = "log in"  # USER and PASS, both accepted
    TLS = "tls handshake"
    HALF_CLOSE = "half-close"
    DROP = "drop"  # the connection is reset
    CLOSED = "closed"  # expectation: the server has ended the connection
    DELIVERY = "delivery"  # one more message arrives
    LOCKED = "another session logs in"
    UNLOCKED = "the other session ends"
    EXPUNGE_FAILS = "the store fails to expunge"
    STORE_FAILS = "the store fails"
    DAMAGED = "the messages are damaged"
    SILENCE = "silence"  # until the server has ended the connection, without a word
    AGAIN = "connect again"
    LEFT = "left"  # expectation: so many messages are in the maildrop
    READ = "read"  # expectation: so many of them count as downloaded, now that the session is over


class Utf8(bytes):
    """The content of a message that was accepted with SMTPUTF8."""


@dataclass
class Step:
    """Octets to send and lines to expect, up to and including an event."""

    sent: bytes = b""
    expected: list[bytes] = field(default_factory=list)
    event: Event | None = None
    value: int = 0


@dataclass
class Transcript:
    """One behaviour, shown.

    `channel` is clear (no login without TLS), loopback, tls or bound (tls with channel binding);
    `scram: no` takes away the keys of some account, and `login-delay: 60` lets nobody log in twice in
    a minute.
    `keep-days: 30` is a retention of 30 days for everybody, `keep-messages: 5000` one by number;
    with `others-keep-days: 5`, some other account's is another.
    `runs` says where it can be shown: everywhere, `pure` (the store's failures are literal),
    `whole` (it matters that the octets come in one packet), `sockets` (it takes time to pass).
    """

    section: str
    behaviour: str
    file: str
    line: int
    messages: list[bytes] = field(default_factory=list)
    channel: str = "loopback"
    login_delay_seconds: int = 0
    keep_days: int | None = None
    keep_messages: int | None = None
    others_keep_days: int | None = None
    scram: bool = True
    runs: str = "everywhere"
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def dotted(octets: int) -> bytes:
    line = b".a line that begins with a dot\r\n"
    return b"Subject: x\r\n\r\n" + line * (octets // len(line))


def sized(count: int) -> bytes:
    """Some message of so many octets."""
    head = b"Subject: x\r\n\r\n"
    return head + b"x" * (count - len(head) - 2) + b"\r\n"


def read_all() -> list[Transcript]:
    """Every transcript of the folder, in the order of the files."""
    return [transcript for path in sorted(FOLDER.glob("*.txt")) for transcript in read(path)]


def read(path: Path) -> Iterator[Transcript]:
    """The transcripts of one file; raises ValueError for a line that is none of the language."""
    current: Transcript | None = None
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = raw.rstrip("\n")
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("== "):
            if current is not None:
                yield _finished(current)
            section, _, behaviour = line[3:].partition(" | ")
            current = Transcript(section, behaviour, path.name, number)
        elif current is None or not _add(current, line):
            raise ValueError(f"{path.name}:{number}: not understood: {line}")
    if current is not None:
        yield _finished(current)


def _finished(transcript: Transcript) -> Transcript:
    if not transcript.messages:
        transcript.messages = [sized(120), sized(200)]  # as in the examples of RFC 1939
    if transcript.messages == [b""]:
        transcript.messages = []
    return transcript


def _add(transcript: Transcript, line: str) -> bool:
    if not transcript.steps or transcript.steps[-1].event is not None:
        transcript.steps.append(Step())
    step = transcript.steps[-1]
    mark, _, rest = line.partition(" ")
    if mark == "utf8":
        mark, _, rest = rest.partition(" ")
        transcript.messages.append(Utf8(octets(rest)))
        return mark == "message:"
    match mark:
        case "C:":
            step.sent += octets(rest) + b"\r\n"
        case "C;":
            step.sent += octets(rest)
        case "S:":
            step.expected.append(octets(rest))
        case "*":
            _add_event(step, rest)
        case "message:":
            number = re.fullmatch(r"@(\d+)", rest)
            transcript.messages.append(sized(int(number[1])) if number else octets(rest))
        case "maildrop:":
            transcript.messages = [b""]
        case _:
            return _set(transcript, mark, rest)
    return True


def _set(transcript: Transcript, option: str, value: str) -> bool:
    match option:
        case "channel:":
            transcript.channel = value
        case "scram:":
            transcript.scram = value == "yes"
        case "login-delay:":
            transcript.login_delay_seconds = int(value)
        case "keep-days:":
            transcript.keep_days = int(value)
        case "keep-messages:":
            transcript.keep_messages = int(value)
        case "others-keep-days:":
            transcript.others_keep_days = int(value)
        case "runs:":
            transcript.runs = value
        case _:
            return False
    return True


def _add_event(step: Step, text: str) -> None:
    if counted := re.fullmatch(r"(left|read) (\d+)", text):
        step.event, step.value = Event(counted[1]), int(counted[2])
        return
    step.event = Event(text)
    if step.event is Event.LOG_IN:
        step.sent += f"USER {NAME}\r\nPASS {SECRET}\r\n".encode()
        step.expected += [b"+OK ...", b"+OK ..."]
