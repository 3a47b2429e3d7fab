"""One line a record, whatever strangers put into a value."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack import log


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    root, before, level = logging.getLogger(), logging.getLogger().handlers[:], logging.getLogger().level
    stream = io.StringIO()
    log.configure("info", stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)


def test_an_event_is_one_line_of_pairs_in_the_order_given(stream: io.StringIO) -> None:
    log.event("pop3.session", session="abc", octets=12, tls=True, user=None)
    assert re.fullmatch(
        r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
        r" level=info event=pop3\.session session=abc octets=12 tls=true\n",
        stream.getvalue(),
    )


def test_the_journal_stamps_lines_itself_and_takes_their_severity_from_them(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    log.configure("info", stream)
    log.event("ready")
    log.event("late", level=logging.WARNING)
    log.failure("broken", RuntimeError("x"))
    first, second, third = stream.getvalue().splitlines()
    assert first == "<6>level=info event=ready"
    assert second == "<4>level=warning event=late"
    assert third.startswith("<3>level=error event=broken ")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("mail.example.org", "mail.example.org"),
        ("<jo@example.org>", "<jo@example.org>"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("line\r\nlevel=error", r'"line\r\nlevel=error"'),
        ("\x1b[2J", r'"\x1b[2J"'),
        ("\u202egro", r'"\u202egro"'),
        ("grün", '"grün"'),
    ],
)
def test_values_are_quoted_only_where_needed(value: str, written: str) -> None:
    assert log.line("x", "info", {"v": value}) == f"level=info event=x v={written}"


def test_a_megabyte_of_input_is_no_megabyte_of_log() -> None:
    assert len(log.line("x", "info", {"v": "a" * 1_000_000})) < 1100


@given(st.text(), st.text())
def test_no_value_can_end_its_line_or_leave_its_quotes(one: str, two: str) -> None:
    written = log.line("x", "info", {"one": one, "two": two})
    assert written.isprintable()
    assert re.fullmatch(
        r'level=info event=x one=([^\s"=]+|"([^"\\]|\\.)*") two=([^\s"=]+|"([^"\\]|\\.)*")', written
    )


def test_below_the_level_nothing_is_written(stream: io.StringIO) -> None:
    log.event("detail", level=logging.DEBUG)
    assert stream.getvalue() == ""


def test_an_unexpected_error_is_one_line_with_its_trace(stream: io.StringIO) -> None:
    try:
        raise ValueError("no\nway") from OSError("disk")
    except ValueError as error:
        log.failure("smtp.failed", error, session="abc")
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert r'session=abc error="ValueError: no\nway" cause="OSError: disk" trace=test_log.py:' in written


def test_other_libraries_lines_have_the_same_shape(stream: io.StringIO) -> None:
    logging.getLogger("asyncio").warning("slow\ncallback %d", 7)
    assert stream.getvalue().endswith(
        r'level=warning event=log logger=asyncio message="slow\ncallback 7"' + "\n"
    )


class Counted(io.StringIO):
    """A stream that counts how often it is written to."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def configured() -> Counted:
    """From now on, and alone: pytest listens, too, from the moment when a test's fixtures are made."""
    counted = Counted()
    log.configure("info", counted)
    return counted


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (looks from outside)
            await asyncio.sleep(0.001)


async def test_lines_of_a_moment_are_written_together_and_in_order(stream: io.StringIO) -> None:
    counted = configured()
    for number in range(100):
        log.event("many", number=number)
    await asyncio.to_thread(log.event, "from a thread", number=100)
    await until(lambda: "number=100" in counted.getvalue())
    assert re.findall(r"number=(\d+)", counted.getvalue()) == [str(number) for number in range(101)]
    assert counted.writes == 1, "the thread leaves it to the loop"
    log.event("later")
    await until(lambda: counted.getvalue().endswith("event=later\n"))


async def test_a_warning_waits_for_nothing_and_comes_after_what_was_before_it(stream: io.StringIO) -> None:
    counted = configured()
    log.event("first")
    log.event("second", level=logging.WARNING)
    log.event("third")
    assert re.findall(r"event=(\w+)", counted.getvalue()) == ["first", "second"]
    log.configure("info", io.StringIO())  # as a reload does
    assert re.findall(r"event=(\w+)", counted.getvalue()) == ["first", "second", "third"]


async def test_lines_are_not_lost_when_a_loop_ends_before_their_moment(stream: io.StringIO) -> None:
    counted = configured()

    def short_loop() -> None:
        asyncio.run(say("one"))
        asyncio.run(say("two"))

    async def say(what: str) -> None:
        log.event(what)

    await asyncio.to_thread(short_loop)
    logging.getLogger().handlers[0].flush()  # as at the end of the program
    assert re.findall(r"event=(\w+)", counted.getvalue()) == ["one", "two"]


async def test_a_stream_that_takes_nothing_stops_nobody(stream: io.StringIO) -> None:
    closed = io.StringIO()
    log.configure("info", closed)
    closed.close()
    log.event("unheard")
    log.event("unheard, too", level=logging.ERROR)


def test_session_ids_are_short_and_differ() -> None:
    ids = {log.new_session_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("[a-z2-7]{8}", each) for each in ids)


def test_session_ids_of_forked_processes_differ() -> None:
    heard, told = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(told, log.new_session_id().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    with os.fdopen(heard) as output, os.fdopen(told):
        assert output.read(8) != log.new_session_id()
