"""SCRAM against scramp's own client, and against everything that is not quite SCRAM."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient

from mailstack.auth import prepare, sasl, scram
from mailstack.auth.mechanisms import MECHANISMS
from mailstack.auth.sasl import Channel, Enter, FindKeys, Found, Judge
from mailstack.errors import BadPassword, BadResponse
from tests.auth.exchange import run

ITERATIONS = 4096
CLEAR = Channel(plaintext=False)
NONCE = "3rfcNHYJY1ZVvWVs7j"


@pytest.fixture(scope="module")
def found() -> Found:
    return Found(scram.keys("pencil", iterations=ITERATIONS), NONCE, whose="jo")


class Client:
    """A client's half: its responses are made of the server's challenges."""

    def __init__(self, mechanism: str, secret: str, *, name: str = "jo", end_point: bytes | None = None):
        binding = None if end_point is None else (scram.END_POINT, end_point)
        self.mechanism = mechanism
        self._client = ScramClient([mechanism], name, secret, channel_binding=binding)
        self.first = self._client.get_client_first().encode()

    def run(self, found: Found, channel: Channel = CLEAR):
        def responses():
            yield self.first
            self._client.set_server_first(self.yielded[-1].octets.decode())
            yield self._client.get_client_final().encode()
            self._client.set_server_final(self.yielded[-1].octets.decode())
            yield b""

        self.yielded: list[Any] = []
        return converse(self.mechanism, responses(), self.yielded, found, channel)


def converse(mechanism, responses, yielded, found, channel):
    """As `exchange.run`, for responses that depend on what was yielded."""
    exchange = MECHANISMS[mechanism].begin(None, channel)
    answer = None
    try:
        while True:
            step = exchange.send(answer)
            yielded.append(step)
            match step:
                case sasl.Challenge():
                    answer = next(responses)
                case FindKeys():
                    answer = found
                case Judge(_, proven):
                    if not proven:
                        return "refused"
                    answer = None
                case Enter():
                    answer = "in"
    except StopIteration as end:
        return end.value


def test_another_client_logs_in(found: Found) -> None:
    assert Client("SCRAM-SHA-256", "pencil").run(found) == "in"
    assert Client("SCRAM-SHA-256", "pencil2").run(found) == "refused"


def test_another_client_logs_in_bound_to_the_certificate(found: Found) -> None:  # RFC 5802 §6
    here = Channel(plaintext=True, end_point=b"certificate")
    assert Client("SCRAM-SHA-256-PLUS", "pencil", end_point=b"certificate").run(found, here) == "in"
    assert Client("SCRAM-SHA-256-PLUS", "pencil", end_point=b"another").run(found, here) == "refused"


def test_names_are_escaped(found: Found) -> None:  # RFC 5802 §5.1
    client = Client("SCRAM-SHA-256", "pencil", name="a,b=c")
    assert client.run(found) == "in"
    assert client.yielded[1] == FindKeys("a,b=c")


@pytest.mark.parametrize("acting_as", ["jo", "a=2Cb"])
def test_an_authorization_identity_is_part_of_the_proof(found: Found, acting_as: str) -> None:
    """scramp refuses any: this holds the way round that."""
    header = f"n,a={acting_as},"
    client = scram.first(f"{header}n=jo,r=abc")
    assert (client.acting_as, client.header) == (acting_as.replace("=2C", ","), header)
    proof = scram.Proof(client, found.keys, NONCE, end_point=None)
    channel = base64.b64encode(header.encode()).decode()
    for c, fits in ((channel, True), ("biws", False)):
        final = f"c={c},r=abc{NONCE}"
        message = ",".join((client.bare, proof.challenge.decode(), final)).encode()
        proof = scram.Proof(client, found.keys, NONCE, end_point=None)
        answer = proof.verify(f"{final},p={clients_proof('pencil', found.keys, message)}")
        assert (answer is not None) is fits


def clients_proof(secret: str, keys: scram.Keys, message: bytes) -> str:
    """RFC 5802 §3, in the RFC's words."""
    salted = hashlib.pbkdf2_hmac("sha256", secret.encode(), keys.salt, keys.iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    return base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()


@pytest.mark.parametrize(
    "message", ["", "n", "n,,", "n,,r=x,n=jo", "x,,n=jo,r=x", "n,,n=j=o,r=x", "p=,,n=jo,r=x"]
)
def test_what_is_no_first_message_is_refused(message: str) -> None:
    with pytest.raises(BadResponse):
        scram.first(message)


@given(st.text(max_size=60))
def test_any_first_message_is_understood_or_refused(text: str) -> None:
    try:
        client = scram.first(text)
    except BadResponse:
        return
    assert text == client.header + client.bare


@given(final=st.text("cr=p,biwsabAB+/%é", max_size=60))
def test_no_final_message_but_the_right_one_proves_anything(final: str) -> None:
    keys = scram.nobodys_keys("jo", b"secret")
    proof = scram.Proof(scram.first("n,,n=jo,r=abc"), keys, NONCE, end_point=None)
    assert proof.verify(final) is None


def test_more_than_one_exchange_says_is_refused(found: Found) -> None:
    with pytest.raises(BadResponse):
        run("SCRAM-SHA-256", [b"n,,n=jo"], found=found)
    with pytest.raises(BadResponse):
        run("SCRAM-SHA-256", [b"n,,n=jo,r=\x01"], found=found)


def test_keys_are_kept_as_text() -> None:
    keys = scram.keys("pencil", iterations=ITERATIONS)
    assert scram.parse(str(keys)) == keys
    assert len(keys.salt) == 16
    assert scram.keys("pencil", iterations=ITERATIONS).salt != keys.salt
    for wrong in ("", "SCRAM-SHA-1$1:AA==$AA==:AA==", "SCRAM-SHA-256$1:A$AA==:AA=="):
        with pytest.raises(ValueError):  # noqa: PT011 (any of them)
            scram.parse(wrong)


def test_a_strangers_salt_depends_on_name_secret_and_iterations_alone() -> None:  # RFC 5802 §9
    salt = scram.nobodys_keys("jo@example.org", b"one").salt
    assert salt == scram.nobodys_keys("jo@example.org", b"one").salt
    assert salt != scram.nobodys_keys("al@example.org", b"one").salt
    assert salt != scram.nobodys_keys("jo@example.org", b"two").salt
    assert salt != scram.nobodys_keys("jo@example.org", b"one", iterations=ITERATIONS).salt
    assert len(salt) == len(scram.keys("pencil", iterations=ITERATIONS).salt)


@pytest.mark.parametrize(
    ("typed", "prepared"),
    [
        ("pencil with  spaces ", "pencil with  spaces "),
        ("I\N{SOFT HYPHEN}X", "IX"),  # RFC 4013 §3, as are the next three
        ("\N{FEMININE ORDINAL INDICATOR}", "a"),
        ("\N{ROMAN NUMERAL NINE}", "IX"),
        ("u\N{COMBINING DIAERESIS}", "ü"),
        ("a\N{NO-BREAK SPACE}b", "a b"),
    ],
)
def test_passwords_have_one_spelling(typed: str, prepared: str) -> None:
    assert prepare.password(typed) == prepared
    salt = b"0123456789abcdef"
    assert scram.keys(typed, iterations=4096, salt=salt) == scram.keys(prepared, iterations=4096, salt=salt)


@pytest.mark.parametrize("secret", ["\x07", "a\N{BELL}", "\N{ARABIC LETTER ALEF}1", "\N{GRINNING FACE}"])
def test_a_password_that_is_not_sent_alike_is_refused(secret: str) -> None:
    with pytest.raises(BadPassword):
        prepare.password(secret)
    with pytest.raises(BadPassword):
        scram.keys(secret, iterations=4096)


def test_a_name_is_looked_for_as_it_was_given_first() -> None:
    assert prepare.spellings("jo") == ("jo",)
    assert prepare.spellings("\N{ROMAN NUMERAL NINE}") == ("\N{ROMAN NUMERAL NINE}", "IX")
    assert prepare.spellings("\N{GRINNING FACE}") == ("\N{GRINNING FACE}",)
