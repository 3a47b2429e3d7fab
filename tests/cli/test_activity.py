"""How log lines look to a person who watches."""

from __future__ import annotations

import pytest

from mailstack import log
from mailstack.cli import activity

_STAMP = "time=2026-01-02T03:04:05.678Z "


@pytest.mark.parametrize(
    "value", ["plain", "two words", 'with "quotes"', "back\\slash", 'both \\" at once', "", "a=b", "[red]"]
)
def test_fields_are_those_that_the_log_was_given(value: str) -> None:
    line = _STAMP + log.line("mail", "info", {"before": "x", "outcome": value, "after": "y"})
    read = activity.fields(line)
    assert read["outcome"] == value
    assert (read["event"], read["before"], read["after"]) == ("mail", "x", "y")


def test_known_event_becomes_a_sentence() -> None:
    fields: dict[str, log.Value] = {
        "session": "abc", "reverse_path": "a@b.example", "forward_path": "c@d.example", "octets": 2048,
        "outcome": "delivered as message 7",
    }  # fmt: skip
    told = activity.told(_STAMP + log.line("mail", "info", fields)).plain
    assert told.endswith("mail               a@b.example -> c@d.example, 2.0 KiB: delivered as message 7")


def test_event_without_the_fields_of_its_sentence_shows_what_it_has() -> None:
    told = activity.told(_STAMP + log.line("mail", "info", {"session": "abc", "outcome": "lost"})).plain
    assert told.endswith(" outcome lost")
    assert "abc" not in told


def test_line_that_is_no_event_is_shown_as_it_is() -> None:
    assert activity.told("Segmentation fault, level=0").plain == "Segmentation fault, level=0"


@pytest.mark.parametrize(
    ("refused", "sentence"),
    [(None, "192.0.2.7: nobody logged in, quit"), (2, "192.0.2.7: nobody logged in, 2 refused, quit")],
)
def test_a_session_without_login_says_who_it_was_and_why_it_ended(refused: int | None, sentence: str) -> None:
    fields: dict[str, log.Value] = {
        "address": "192.0.2.7",
        "refused": refused,
        "retrieved": 0,
        "ended": "quit",
    }
    told = activity.told(_STAMP + log.line("pop3.session", "info", fields)).plain
    assert told.endswith(f"pop3.session       {sentence}")
