"""Trace fields of RFC 5321 §4.4, to the letter of the grammar."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.errors import BadAddress
from mailstack.mail.address import Mailbox, parse_reverse_path
from mailstack.mail.trace import Arrival, address_literal, date_time, delivered_to, received, return_path

NOON = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"


def test_return_path_is_the_reverse_path() -> None:
    assert return_path(Mailbox("a", "b.example")) == b"Return-Path: <a@b.example>\r\n"
    assert return_path(Mailbox("a b", "b.example")) == b'Return-Path: <"a b"@b.example>\r\n'
    assert return_path(Mailbox("é", "b.example")) == "Return-Path: <é@b.example>\r\n".encode()


def test_return_path_of_a_bounce_is_null() -> None:  # RFC 5321 §4.5.5
    assert return_path(None) == b"Return-Path: <>\r\n"


def test_delivered_to_is_the_recipient() -> None:  # RFC 9228
    assert delivered_to(Mailbox("joe", "example.com")) == b"Delivered-To: joe@example.com\r\n"


FIELDS = [
    (
        Arrival("mail.example.com", "192.0.2.1", "ESMTPS", TLS),
        Mailbox("joe", "example.org"),
        "Received: from mail.example.com ([192.0.2.1]) by mx.example.org with ESMTPS\r\n"
        "    (TLSv1.3 TLS_AES_256_GCM_SHA384) id 7F1 for <joe@example.org>;\r\n"
        "    Sun, 1 Mar 2026 12:00:05 +0000\r\n",
        "the usual",
    ),
    (
        Arrival("[192.0.2.1]", "192.0.2.1", "SMTP", None),
        None,
        "Received: from [192.0.2.1] ([192.0.2.1]) by mx.example.org with SMTP id 7F1;\r\n"
        "    Sun, 1 Mar 2026 12:00:05 +0000\r\n",
        "a literal, in clear, to several recipients",
    ),
    (
        Arrival("a", "2001:db8::1", "ESMTP", None),
        None,
        "Received: from a ([IPv6:2001:db8::1]) by mx.example.org with ESMTP id 7F1;\r\n"
        "    Sun, 1 Mar 2026 12:00:05 +0000\r\n",
        "IPv6",
    ),
    (
        Arrival("localhost", "", "LMTP", None),
        Mailbox("joe", "example.org"),
        "Received: from localhost by mx.example.org with LMTP id 7F1\r\n"
        "    for <joe@example.org>; Sun, 1 Mar 2026 12:00:05 +0000\r\n",
        "a unix socket has no address",
    ),
    (
        Arrival("[192.0.2.1]", "", "LMTP", None),
        None,
        "Received: from localhost by mx.example.org with LMTP id 7F1;\r\n"
        "    Sun, 1 Mar 2026 12:00:05 +0000\r\n",
        "a literal may not stand without TCP-info",
    ),
    (
        Arrival("0\xad", "", "ESMTP", None),
        None,
        "Received: from localhost by mx.example.org with ESMTP id 7F1;\r\n"
        "    Sun, 1 Mar 2026 12:00:05 +0000\r\n",
        "a name is in ASCII here, or nobody's",
    ),
    (
        Arrival("x\r\nX-Injected: yes", "192.0.2.1", "SMTP", "TLS (a)\r\n\\é"),
        None,
        "Received: from [192.0.2.1] ([192.0.2.1]) by mx.example.org with SMTP (TLS a)\r\n"
        "    id 7F1; Sun, 1 Mar 2026 12:00:05 +0000\r\n",
        "what could make a field of its own never gets in",
    ),
]


@pytest.mark.parametrize(("arrival", "recipient", "field", "reason"), FIELDS)
def test_received_tells_the_last_hop(
    arrival: Arrival, recipient: Mailbox | None, field: str, reason: str
) -> None:
    assert (
        received(arrival, by="mx.example.org", id="7F1", date=date_time(NOON), recipient=recipient)
        == field.encode()
    ), reason


FWS = r"(?:\r\n)?[ ]+"
DOMAIN = r"[\w.-]+"
LITERAL = r"\[(?:IPv6:[0-9a-f:.]+|[0-9.]+)\]"
STAMP = re.compile(
    rf"Received:{FWS}from{FWS}(?:{DOMAIN}|(?:{DOMAIN}|{LITERAL}){FWS}\({LITERAL}\))"
    rf"{FWS}by{FWS}{DOMAIN}{FWS}with{FWS}[A-Z0-9]+(?:{FWS}\([\w. ]+\))?{FWS}id{FWS}\w+"
    rf'(?:{FWS}for{FWS}<(?:"(?:[^"\\]|\\.)*"|[^\s"<>]+)@(?:{DOMAIN}|{LITERAL})>)?;{FWS}'
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}\r\n",
    re.DOTALL,
)
NAMES = st.from_regex(r"([a-z0-9]{1,20}\.){0,8}[a-z]{1,20}", fullmatch=True)


@given(
    helo=NAMES | st.text(max_size=20),
    address=st.ip_addresses().map(str) | st.just(""),
    tls=st.sampled_from([None, TLS]),
    recipient=st.none() | st.builds(Mailbox, st.from_regex(r'[a-z "\\@<>]{1,64}', fullmatch=True), NAMES),
    at=st.datetimes(
        min_value=datetime(1900, 1, 1),  # noqa: DTZ001 - the zone is drawn beside it
        timezones=st.timedeltas(timedelta(hours=-12), timedelta(hours=14)).map(timezone),
    ),
)
def test_received_follows_the_grammar(
    helo: str, address: str, tls: str | None, recipient: Mailbox | None, at: datetime
) -> None:
    arrival = Arrival(helo, address, "ESMTP", tls)
    field = received(arrival, by="mx.example.org", id="7F1", date=date_time(at), recipient=recipient).decode()
    assert STAMP.fullmatch(field)
    for line in field.split("\r\n"):
        one_word = re.fullmatch(rf"Received: from {DOMAIN}| +for <.*>;?", line)
        assert len(line) < 78 or one_word, "only a long domain or path can make a line long"


@pytest.mark.parametrize(
    ("address", "literal"),
    [
        ("192.0.2.1", "[192.0.2.1]"),
        ("2001:db8::1", "[IPv6:2001:db8::1]"),
    ],
)
def test_an_address_becomes_a_literal(address: str, literal: str) -> None:  # RFC 5321 §4.1.3
    assert address_literal(address) == literal


@given(st.ip_addresses().map(str))
def test_every_literal_is_one_to_the_parser(address: str) -> None:
    try:
        mailbox, _ = parse_reverse_path(f"<a@{address_literal(address)}>")
    except BadAddress:
        pytest.fail(address)
    assert mailbox


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (NOON, "Sun, 1 Mar 2026 12:00:05 +0000"),
        (NOON.astimezone(timezone(timedelta(hours=-3, minutes=-30))), "Sun, 1 Mar 2026 08:30:05 -0330"),
        (datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC), "Tue, 31 Dec 2024 23:59:59 +0000"),
        (datetime(1890, 1, 2, tzinfo=timezone(timedelta(seconds=3208))), "Thu, 2 Jan 1890 00:00:00 +0053"),
    ],
)
def test_dates_are_those_of_rfc_5322(at: datetime, text: str) -> None:
    assert date_time(at) == text


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        date_time(NOON.replace(tzinfo=None))
