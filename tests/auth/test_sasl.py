"""The mechanisms as conversations, without a socket and without a store."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.auth import sasl, scram
from mailstack.auth.mechanisms import MECHANISMS, offered
from mailstack.auth.sasl import Challenge, Channel, Found, LogIn
from mailstack.errors import BadResponse
from tests.auth.exchange import run

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


def strict_base64(text: bytes) -> bytes | None:
    """RFC 4648 §4 by the book: every character, every bit."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = text.rstrip(b"=")
    padding = len(text) - len(body)
    if len(text) % 4 or padding > 2 or any(octet not in alphabet for octet in body):
        return None
    bits = "".join(f"{alphabet.index(octet):06b}" for octet in body)
    whole = len(bits) - len(bits) % 8
    if "1" in bits[whole:] or padding != -len(body) % 4:
        return None
    return bytes(int(bits[at : at + 8], 2) for at in range(0, whole, 8))


@given(st.one_of(st.binary(max_size=60), st.text("AQgw9+/= \n!", max_size=12).map(str.encode)))
def test_base64_is_taken_exactly_where_the_rfc_takes_it(text: bytes) -> None:
    expected = strict_base64(text)
    if expected is None:
        with pytest.raises(BadResponse):
            sasl.decoded(text)
    else:
        assert sasl.decoded(text) == expected


@given(st.binary(max_size=100))
def test_what_we_encode_we_decode(octets: bytes) -> None:
    assert sasl.decoded(sasl.encoded(octets)) == octets
    assert strict_base64(base64.b64encode(octets)) == octets


def test_an_equals_sign_is_empty_as_an_initial_response_only() -> None:  # RFC 5034 §4
    assert sasl.initial_response(None) is None
    assert sasl.initial_response(b"=") == b""
    with pytest.raises(BadResponse):
        sasl.decoded(b"=")


@given(acting_as=st.one_of(st.just(""), NAMES), name=NAMES, secret=NAMES)
def test_plain_tells_its_three_parts_apart(acting_as: str, name: str, secret: str) -> None:
    message = "\0".join((acting_as, name, secret)).encode()
    entered, (asked,) = run("PLAIN", [], initial=message)
    assert (entered, asked) == ("in", LogIn(name, secret, acting_as))
    assert run("PLAIN", [message]) == ("in", [Challenge(b""), LogIn(name, secret, acting_as)])


@given(st.binary(max_size=80), st.sampled_from(["PLAIN", "SCRAM-SHA-256", "LOGIN"]))
def test_octets_of_any_kind_are_a_login_or_a_bad_response(octets: bytes, mechanism: str) -> None:
    found = Found(scram.nobodys_keys("jo", b"secret"), "nonce")
    try:
        entered, asked = run(mechanism, [octets, octets], found=found)
    except BadResponse:
        return
    assert entered in (None, "in")
    assert asked


def test_login_asks_for_both() -> None:
    entered, asked = run("LOGIN", [b"jo", b"s\xc3\xa9cret word"])
    assert asked == [Challenge(b"Username:"), Challenge(b"Password:"), LogIn("jo", "sécret word")]
    assert entered == "in"
    assert run("LOGIN", [b"s\xc3\xa9cret word"], initial=b"jo") == (entered, asked[1:])
    assert run("LOGIN", [b"jo", b"s\xc3\xa9cret word"], initial=b"") == (entered, asked)


def test_the_secret_of_an_ask_is_not_shown() -> None:
    assert "tanstaaf" not in repr(LogIn("jo", "tanstaaf"))


@pytest.mark.parametrize(
    ("channel", "keys", "names"),
    [
        (Channel(plaintext=True), True, "SCRAM-SHA-256 PLAIN LOGIN"),
        (Channel(plaintext=True), False, "PLAIN LOGIN"),
        (Channel(plaintext=False), True, "SCRAM-SHA-256"),
        (Channel(plaintext=False), False, ""),
        (Channel(plaintext=True, end_point=b"x"), True, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN"),
        (Channel(plaintext=True, end_point=b"x"), False, "PLAIN LOGIN"),
    ],
)
def test_only_what_works_is_offered(channel: Channel, keys: bool, names: str) -> None:
    assert " ".join(offered(channel, keys=keys)) == names
    assert "EXTERNAL" not in MECHANISMS
