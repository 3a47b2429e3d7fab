"""Sizes, durations and addresses as people write them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack import values
from mailstack.values import TcpAddress, UnixAddress


@pytest.mark.parametrize(
    ("written", "octets"),
    [
        ("50MiB", 52428800),
        ("2 GiB", 2 << 30),
        ("1.5KiB", 1536),
        ("50MB", 50_000_000),
        ("10kb", 10_000),
        ("1tib", 1 << 40),
        ("3B", 3),
        ("7", 7),
        (7, 7),
        ("0", 0),
    ],
)
def test_sizes(written: object, octets: int) -> None:
    assert values.size(written) == octets


@pytest.mark.parametrize(
    ("parse", "written"),
    [
        (values.size, "9999999TiB"),
        (values.count, str(1 << 63)),
        (values.duration, "36501d"),
        (values.duration, str(1 << 63)),
    ],
)
def test_what_no_database_can_count_is_refused(parse: Callable[[object], int], written: str) -> None:
    with pytest.raises(ValueError, match=r"is too (much|long): .* is the most"):
        parse(written)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("10M", 600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("30d", 2592000),
        ("2w", 1209600),
        ("45", 45),
        (45, 45),
    ],
)
def test_durations(written: object, seconds: int) -> None:
    assert values.duration(written) == seconds


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("127.0.0.1:2525", TcpAddress("127.0.0.1", 2525)),
        ("[::]:25", TcpAddress("::", 25)),
        ("[fe80::1%eth0]:25", TcpAddress("fe80::1%eth0", 25)),
        ("localhost:110", TcpAddress("localhost", 110)),
        ("unix:/run/mailstack/lmtp", UnixAddress(Path("/run/mailstack/lmtp"))),
    ],
)
def test_addresses_to_listen_on_read_back_as_written(written: str, address: values.Listen) -> None:
    assert values.listen(written) == address
    assert str(address) == written


def test_what_is_thrown_away_and_what_fits_is_said_with_a_unit() -> None:
    assert [values.age(each) for each in ("0s", "1h", "90d")] == [0, 3600, 90 * 86400]
    assert [values.quota(each) for each in (0, "5B", "1KiB", 1 << 20)] == [0, 5, 1024, 1 << 20]


@pytest.mark.parametrize(
    ("parse", "wrong", "reason"),
    [
        (values.size, "5 apples", '"5 apples" is not a size; write it like'),
        (values.size, "-1", "is not a size"),
        (values.size, True, "true is not a size"),
        (values.size, "", "is not a size"),
        (values.size, "1e9", "is not a size"),
        (values.duration, "ten minutes", "is not a duration"),
        (values.duration, "10m5", "is not a duration"),
        (values.duration, -5, "is not a duration"),
        (values.duration, 1.5, "is not a duration"),
        (values.lifetime, 90, '90 has no unit; write it like "90d" or "12h"'),
        (values.lifetime, "0", "has no unit"),
        (values.age, "86400", "has no unit"),
        (values.age, "6m", '"6m" is less than an hour'),
        (values.quota, "5", '"5" means 5 octets; write it with a unit, like "5GiB"'),
        (values.quota, 5000, "write it with a unit"),
        (values.count, "٣", "is not a whole number"),
        (values.count, -1, "is not a whole number"),
        (values.flag, "yes", '"yes" is neither true nor false'),
        (values.flag, 1, "is neither true nor false"),
        (values.listen, "::1:25", "is no address to listen on"),
        (values.listen, "25", "is no address to listen on"),
        (values.listen, "127.0.0.1:99999", "a port is at most 65535"),
        (values.listen, 25, "is no address to listen on"),
        (values.listen, "unix:lmtp", "has to begin with /"),
        (values.listen, "unix:/" + "a" * 107, "at most 107 octets"),
        (values.listeners, 25, "is not a list"),
        (values.listeners, ["[::]:25", "[::]:25"], "twice"),
        (values.text, "", "printable"),
        (values.text, "a\x00b", "printable"),
        (values.text, 7, "printable"),
        (values.host_name, "mail_.example.org", "is no host name"),
        (values.host_name, "-mail.example.org", "is no host name"),
        (values.host_name, "a" * 64 + ".org", "is no host name"),
        (values.domain, "jo@example.org", "is no domain"),
        (values.address, "example.org", "is no address"),
        (values.address, "@example.org", "is no address"),
        (values.database_url, "mysql://localhost/mail", "has to begin with"),
        (values.one_of("a", "b"), "c", '"c" is none of "a", "b"'),
        (values.at_least(600, values.duration, "RFC 1939"), "5m", '"5m" is too little: RFC 1939'),
    ],
)
def test_an_impossible_value_is_refused_with_its_reason(
    parse: Callable[[object], object], wrong: object, reason: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse(wrong)


@given(st.integers(min_value=0, max_value=1 << 60))
def test_a_written_size_means_the_same_octets(octets: int) -> None:
    assert values.size(values.written_size(octets)) == octets


@given(st.integers(min_value=0, max_value=10**9 - 1))
def test_a_written_duration_means_the_same_seconds(seconds: int) -> None:
    assert values.duration(values.written_duration(seconds)) == seconds


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text())))
def test_no_parser_fails_in_another_way(value: object) -> None:
    parsers = (values.size, values.duration, values.count, values.flag, values.text, values.path)
    more = (values.host_name, values.domain, values.address, values.database_url, values.listen)
    for parse in (*parsers, *more, values.listeners):
        # Whatever else it raised would be a traceback in front of an admin.
        with contextlib.suppress(ValueError):
            assert parse(value) is not None


@pytest.mark.parametrize(
    ("host", "is_loopback", "from_here"),
    [
        ("127.0.0.1", True, "127.0.0.1"),
        ("127.9.9.9", True, "127.9.9.9"),
        ("::1", True, "::1"),
        ("localhost", True, "localhost"),
        ("0.0.0.0", False, "127.0.0.1"),
        ("::", False, "127.0.0.1"),
        ("192.0.2.1", False, "192.0.2.1"),
        ("127.example.org", False, "127.example.org"),
    ],
)
def test_an_address_knows_who_reaches_it(host: str, is_loopback: bool, from_here: str) -> None:
    address = TcpAddress(host, 25)
    assert address.is_loopback is is_loopback
    assert address.from_here == (from_here, 25)
