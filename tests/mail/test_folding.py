"""Under which key an address is looked up, and what a host may call itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.errors import BadAddress
from mailstack.mail.address import fold_domain, fold_local_part, is_helo_name

LABEL_63 = "d" * 63
DOMAIN_255 = ".".join([LABEL_63] * 4)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("MRose", "mrose"),
        ("JOSÉ", "jose\u0301"),  # one letter, or a letter and an accent
        ("Straße", "STRASSE"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),  # the final sigma is another letter in lower case only
    ],
)
def test_spellings_of_one_local_part_have_one_key(one: str, other: str) -> None:
    assert fold_local_part(one) == fold_local_part(other)


@given(st.text(max_size=12))
def test_folding_twice_changes_nothing(text: str) -> None:
    once = fold_local_part(text)
    assert fold_local_part(once) == once


@pytest.mark.parametrize(
    ("domain", "key"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example.", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("bücher\u3002example", "xn--bcher-kva.example"),  # UTS 46: the ideographic full stop is a dot
        ("straße.example", "xn--strae-oqa.example"),  # not transitional: not strasse.example
        ("[192.000.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:DB8::0:1]", "[ipv6:2001:db8::1]"),
        (DOMAIN_255, DOMAIN_255),
        (DOMAIN_255.upper() + ".", DOMAIN_255),
    ],
)
def test_spellings_of_one_domain_have_one_key(domain: str, key: str) -> None:
    assert fold_domain(domain) == key
    assert fold_domain(key) == key


@pytest.mark.parametrize(
    "domain",
    ["", ".", "a..b", ".a", "a b", "a@b", "-a", "a-", "[", "[1.2.3.4", "[1.2.3.4]x", "d" * 64, "a\n",
     "\ud800", DOMAIN_255 + "x", "x." + DOMAIN_255, "ü" * 64, "ü" * 300, "\u0301", "ü..a", "ü@a", "ü\x00"],
)  # fmt: skip
def test_what_is_no_domain_has_no_key(domain: str) -> None:
    with pytest.raises(BadAddress):
        fold_domain(domain)


@given(st.text(max_size=20) | st.text(alphabet="aüß.-\u3002\u0301\u200dא1", max_size=12))
def test_a_folded_domain_is_plain_and_stays(domain: str) -> None:
    try:
        key = fold_domain(domain)
    except BadAddress:
        return
    assert key.isascii()
    assert key == key.lower()
    assert fold_domain(key) == key


@pytest.mark.parametrize(
    "name", ["a", "mail.example.com", "WIN_PC-1", "[192.0.2.1]", "[IPv6:::1]", "x" * 63 + ".b"]
)
def test_names_that_hosts_give_themselves(name: str) -> None:  # RFC 5321 §4.1.1.1
    assert is_helo_name(name)
    assert is_helo_name(name, utf8=True)


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a\r", "a\n", "a\x00", "a.", ".a", "a..b", "[192.0.2.1", "[::1]", "192.0.2.1]", "<a>", "a;b",
     "(a)", "x" * 64, "a\x85", "a\ud800"],
)  # fmt: skip
def test_names_that_could_not_stand_in_a_trace_field(name: str) -> None:
    assert not is_helo_name(name)
    assert not is_helo_name(name, utf8=True)


def test_a_helo_name_has_u_labels_only_where_that_was_asked_for() -> None:
    assert not is_helo_name("bücher.example")
    assert is_helo_name("bücher.example", utf8=True)


def test_plain_addresses_never_load_the_tables_of_idna() -> None:

    program = (
        "import sys; from mailstack.mail import address as a;"
        "a.parse_forward_path('<A@B.example>'); a.fold_domain('B.example'); a.fold_local_part('A');"
        "a.parse_mailbox('\"a b\"@' + 'd.' * 60 + 'example');"
        "sys.exit('idna' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
