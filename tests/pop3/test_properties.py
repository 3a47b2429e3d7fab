"""Whatever comes, in whatever pieces: nothing raises, nothing is answered twice or out of order."""

from __future__ import annotations

import base64
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailstack.pop3.asks import LogIn
from mailstack.pop3.lines import ENDLESS_OCTETS, LONGEST_OCTETS, LineReader
from mailstack.pop3.session import MAX_BAD_COMMANDS
from mailstack.pop3.stuffing import Transfer
from tests.pop3.pure import Maildrops, PureServer
from tests.pop3.transcript import NAME, SECRET, sized

VERBS = b"STAT LIST RETR DELE NOOP RSET TOP UIDL USER PASS CAPA list XYZ".split()
WORDS = st.sampled_from([*VERBS, b"0", b"1", b"2", b"3", b"-1", b"99999999999", b"\0", b"\xff", b""])
LINES = st.lists(WORDS, max_size=4).map(b" ".join)
CONTENTS = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"a", b"Subject: x", b"\0"]), max_size=8).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


def pieces(octets: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(octets)) for cut in cuts} | {0, len(octets)})
    return [octets[a:b] for a, b in pairwise(places)]


@given(octets=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2000), max_size=20))
@settings(max_examples=300, deadline=None)
def test_any_octets_never_raise_and_do_not_depend_on_their_packets(octets, cuts):
    whole = PureServer(Maildrops.of(sized(50)))
    cut = PureServer(Maildrops.of(sized(50)))
    expected = whole.feed(octets)
    assert b"".join(map(cut.feed, pieces(octets, cuts))) == expected
    assert expected.count(b"\r\n") == whole.replies
    assert all(line.startswith((b"+OK", b"-ERR")) for line in expected.splitlines())


@given(
    lines=st.lists(LINES, max_size=25),
    contents=st.lists(CONTENTS, max_size=4),
    cuts=st.lists(st.integers(0, 600), max_size=20),
)
@settings(max_examples=300, deadline=None)
def test_each_command_after_login_has_one_answer_in_its_order(lines, contents, cuts):
    login = f"USER {NAME}\r\nPASS {SECRET}\r\n".encode()
    lockstep = PureServer(Maildrops.of(*contents))
    pipelined = PureServer(Maildrops.of(*contents))
    lockstep.feed(login)
    pipelined.feed(login)
    answers = [lockstep.feed(line + b"\r\n") for line in lines]
    for line, answer in zip(lines, answers, strict=True):
        assert_is_one_answer(line, answer, ended=lockstep.closed)
    octets = b"".join(line + b"\r\n" for line in lines)
    assert b"".join(map(pipelined.feed, pieces(octets, cuts))) == b"".join(answers)
    assert len(lockstep.maildrops.messages) == len(contents)  # there was no QUIT


RIGHT = base64.b64encode(f"\0{NAME}\0{SECRET}".encode())
SASL_LINES = st.sampled_from(
    [
        *(b"AUTH PLAIN", b"AUTH LOGIN", b"AUTH SCRAM-SHA-256", b"AUTH PLAIN =", b"AUTH X", b"NOOP", b"STAT"),
        *(
            b"auth plain " + RIGHT[:-4],
            RIGHT,
            b"*",
            b"=",
            b"",
            b"A",
            b"x" * 300,
            b"x" * 13_000,
            b"\0",
            b"\xff",
        ),
        *(base64.b64encode(text.encode()) for text in (NAME, SECRET, "n,,n=user,r=x", "c=biws,r=x,p=AA==")),
    ]
)


@given(lines=st.lists(SASL_LINES, max_size=19), cuts=st.lists(st.integers(0, 2000), max_size=20))
@settings(max_examples=200, deadline=None)
def test_each_line_of_an_exchange_has_one_answer_in_its_order(lines, cuts):
    lockstep, pipelined = PureServer(Maildrops.of(sized(50))), PureServer(Maildrops.of(sized(50)))
    answers = [lockstep.feed(line + b"\r\n") for line in lines]
    octets = b"".join(line + b"\r\n" for line in lines)
    assert b"".join(map(pipelined.feed, pieces(octets, cuts))) == b"".join(answers)
    for answer in answers:
        assert answer.count(b"\r\n") == 1
        assert answer.startswith((b"+OK", b"-ERR ", b"+ "))
        assert len(answer) <= 512
    asked = [ask for ask in lockstep.maildrops.asked if isinstance(ask, LogIn)]
    assert lockstep.session.logged_in is (LogIn(NAME, SECRET) in asked)


def assert_is_one_answer(line: bytes, answer: bytes, *, ended: bool) -> None:
    if ended and not answer:
        return
    first, _, rest = answer.partition(b"\r\n")
    verb, _, argument = line.upper().rstrip().partition(b" ")  # blanks at the end are forgiven
    several = verb in {b"CAPA", b"RETR", b"TOP"} or (verb in {b"LIST", b"UIDL"} and not argument)
    if first.startswith(b"+OK") and several:
        assert rest == b".\r\n" or rest.endswith(b"\r\n.\r\n")
        assert (b"\r\n" + rest).count(b"\r\n.\r\n") == 1
    else:
        assert first.startswith((b"+OK", b"-ERR"))
        assert rest == b""
        assert len(first) <= 510


@given(
    commands=st.lists(
        st.tuples(st.sampled_from(["DELE", "RETR", "LIST", "UIDL", "RSET", "STAT"]), st.integers(1, 6)),
        max_size=30,
    ),
    sizes=st.lists(st.integers(20, 60), max_size=5),
    deliveries=st.sets(st.integers(0, 29)),
)
@settings(max_examples=200, deadline=None)
def test_a_session_agrees_with_an_obvious_model(commands, sizes, deliveries):
    """RFC 1939 §5: numbers stay, deleted messages are gone, new mail is not there yet."""
    server = PureServer(Maildrops.of(*map(sized, sizes)))
    server.feed(f"USER {NAME}\r\nPASS {SECRET}\r\n".encode())
    model = dict(enumerate(sizes, 1))
    arrived = 0
    for at, (verb, number) in enumerate(commands):
        if at in deliveries:
            server.maildrops.deliver(sized(33))
            arrived += 1
        plain = verb in {"RSET", "STAT"}
        answer = server.feed((verb if plain else f"{verb} {number}").encode() + b"\r\n")
        if verb == "STAT":
            assert answer == f"+OK {len(model)} {sum(model.values())}\r\n".encode()
        elif verb == "RSET":
            model = dict(enumerate(sizes, 1))
        elif number not in model:
            assert answer.startswith(b"-ERR")
        elif verb == "DELE":
            assert answer.startswith(b"+OK")
            del model[number]
        elif verb == "LIST":
            assert answer == f"+OK {number} {model[number]}\r\n".encode()
        elif verb == "UIDL":
            assert answer == f"+OK {number} 77.{number}\r\n".encode()
        else:
            assert answer.partition(b"\r\n")[2] == sized(model[number]) + b".\r\n"
    assert server.feed(b"QUIT\r\n").startswith(b"+OK")
    assert len(server.maildrops.messages) == len(model) + arrived


# -- stuffing and TOP against slow and obvious references ----------------------------------------


def reference(content: bytes, lines: int | None) -> bytes:
    """RFC 1939 §3 and §7, line by line."""
    kept = content.split(b"\r\n")
    last = kept.pop()
    kept = [line + b"\r\n" for line in kept] + ([last + b"\r\n"] if last else [])
    if lines is not None:
        header = next((at for at, line in enumerate(kept) if line == b"\r\n"), len(kept)) + 1
        kept = kept[: header + lines]
    return b"".join(b"." + line if line.startswith(b".") else line for line in kept) + b".\r\n"


@given(
    content=st.one_of(CONTENTS, CONTENTS.map(lambda content: content + b".x")),
    lines=st.one_of(st.none(), st.integers(0, 9)),
    cuts=st.lists(st.integers(0, 60), max_size=12),
)
@settings(max_examples=500, deadline=None)
def test_transfer_is_the_reference_however_the_parts_are_cut(content, lines, cuts):
    transfer = Transfer(dotted=True, lines=lines)
    sent = b"".join(map(transfer.feed, pieces(content, cuts))) + transfer.finish()
    assert sent == reference(content, lines)


@given(content=CONTENTS.filter(lambda content: b"\n." not in b"\n" + content), lines=st.integers(0, 9))
def test_undotted_content_needs_no_stuffing(content, lines):
    for limit in (None, lines):
        transfer = Transfer(dotted=False, lines=limit)
        assert transfer.feed(content) + transfer.finish() == reference(content, limit)


def test_top_wants_no_more_parts_when_it_has_its_lines():
    transfer = Transfer(dotted=False, lines=1)
    assert transfer.feed(b"A: b\r\n\r\none\r\ntwo\r\n") == b"A: b\r\n\r\none\r\n"
    assert transfer.done
    assert transfer.feed(b"three\r\n") == b""


@pytest.mark.parametrize("between", [b"NOOP", b"LIST", b"RETR 9", b"UIDL 9", b"TOP 1 0"])
def test_bad_commands_count_only_in_a_row(between):
    """A command that is understood is one, even where it is refused."""
    server = PureServer(Maildrops.of(sized(50)))
    server.feed(f"USER {NAME}\r\nPASS {SECRET}\r\n".encode())
    bad = b"FOO\r\n" * (MAX_BAD_COMMANDS - 1)
    server.feed(bad + between + b"\r\n" + bad)
    assert not server.closed
    assert server.feed(b"FOO\r\n") == b"-ERR too many bad commands\r\n"
    assert server.closed


# -- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 300, 5000])
def test_an_endless_line_is_cut_long_before_a_megabyte(size):
    reader = LineReader()
    fed = 0
    lines = []
    while not reader.endless:
        reader.feed(b"a" * size)
        fed += size
        line = reader.take()
        lines += [line] if line else []
        assert len(reader) <= LONGEST_OCTETS + size
        assert fed < ENDLESS_OCTETS + LONGEST_OCTETS + 2 * size
    assert [len(line) for line in lines] == [LONGEST_OCTETS + 1]
    reader.feed(b"\r\nNOOP\r\n")
    assert reader.take() is None


@given(st.lists(st.binary(max_size=600).map(lambda line: line.replace(b"\n", b"")), max_size=20))
def test_lines_come_out_as_they_went_in(lines):
    reader = LineReader()
    reader.feed(b"".join(line + b"\r\n" for line in lines))
    taken = list(iter(reader.take, None))
    assert len(taken) == len(lines)
    for line, got in zip(lines, taken, strict=True):
        if len(line) <= LONGEST_OCTETS:
            assert got == line
        else:
            assert len(got) > LONGEST_OCTETS
            assert line.startswith(got[: LONGEST_OCTETS + 1])
    assert len(reader) == 0
