"""The addresses of a header field, whole or broken, the same under every Python."""

from __future__ import annotations

import pytest

from mailstack.mail.address_list import parse


def decoded(word: str) -> str:
    return {"=?x?q?o?=": "ö", "=?x?q?line?=": "a\r\nb"}.get(word, word)


def read(value: str) -> list[object]:
    """The mailboxes, as (name, local-part, domain); a group as (name, its mailboxes)."""
    return [
        (group.name, [tuple(each) for each in group.members]) if group.name else tuple(*group.members)
        for group in parse(value, decoded)
    ]


@pytest.mark.parametrize(
    ("value", "mailboxes"),
    [
        ("jo@b", [("", "jo", "b")]),
        ("Jo Doe <jo@b>, k@c", [("Jo Doe", "jo", "b"), ("", "k", "c")]),
        ('"Doe, \\"J\\"" <"a b"@b>', [('Doe, "J"', "a b", "b")]),
        ("J. <jo@b> (of (the) \\) office)", [("J.", "jo", "b")]),
        ("jo@[192.0.2.1], jo@[IPv6:::1]", [("", "jo", "[192.0.2.1]"), ("", "jo", "[IPv6:::1]")]),
        ("=?x?q?o?= =?x?q?o?= x <jo@b>", [("öö x", "jo", "b")]),
        ('"=?x?q?o?=" <jo@b>', [("=?x?q?o?=", "jo", "b")]),
        ("=?x?q?line?= <jo@b>", [("a b", "jo", "b")]),
        ("g:;", [("g", [])]),
        ("g: jo@b, K <k@c>;, l@d", [("g", [("", "jo", "b"), ("K", "k", "c")]), ("", "l", "d")]),
    ],
)
def test_the_grammar_is_understood(value: str, mailboxes: list[object]) -> None:  # RFC 5322 §3.4
    assert read(value) == mailboxes


@pytest.mark.parametrize(
    ("value", "mailboxes"),
    [
        (",jo@b,,k@c,", [("", "jo", "b"), ("", "k", "c")]),
        ("jo @ b , k. l <k@c>", [("", "jo", "b"), ("k. l", "k", "c")]),
        ("<@one,@two:jo@three>, k@c", [("", "jo", "three"), ("", "k", "c")]),
        ("jo(comment)@b", [("", "jo", "b")]),
    ],
)
def test_so_are_its_obsolete_forms(value: str, mailboxes: list[object]) -> None:  # RFC 5322 §4.4
    assert read(value) == mailboxes


@pytest.mark.parametrize(
    ("value", "mailboxes"),
    [
        ("", []),
        ("<>, ;", []),
        ("(jo@b", []),
        ("Jo <", [("Jo", "", "")]),
        ("Jo <>", [("Jo", "", "")]),
        ("Jo <jo@b, k@c", [("Jo", "jo", "b"), ("", "k", "c")]),
        ("jo@b <jo@b>", [("jo@b", "jo", "b")]),
        ("jo@b Jo Doe", [("Jo Doe", "jo", "b")]),
        ("Jo Doe", [("Jo Doe", "", "")]),
        ('"Jo <jo@b>', [("Jo <jo@b>", "", "")]),
        ("<jo@b> Jo", [("Jo", "jo", "b")]),
        (":jo@b", [("", ":jo", "b")]),
        ("g: jo@b", [("g", [("", "jo", "b")])]),
        ("jo@b; k@c", [("", "jo", "b"), ("", "k", "c")]),
        ("jo@@b", [("", "jo@", "b")]),
    ],
)
def test_of_what_is_broken_no_text_is_lost(value: str, mailboxes: list[object]) -> None:
    assert read(value) == mailboxes
