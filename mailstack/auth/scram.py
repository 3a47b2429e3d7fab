"""SCRAM-SHA-256's keys and its arithmetic (RFC 5802, RFC 7677), which the scramp library does.

scramp is imported where it is used: with its own dependency that takes a quarter of a second, and a
server whose clients send passwords never needs it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from mailstack.errors import BadPassword, BadResponse

if TYPE_CHECKING:
    from scramp.core import ScramServer

ITERATIONS: Final = 16_384
"""Four times what RFC 7677 §4 asks for; a telephone has to do them at every poll."""

END_POINT: Final = "tls-server-end-point"
"""The only channel binding there is: Python's ssl cannot export what `tls-exporter` needs."""

_SALT_OCTETS: Final = 16


class Keys(NamedTuple):
    """What proves a password without telling it (RFC 5802 §3)."""

    salt: bytes
    stored_key: bytes
    server_key: bytes
    iterations: int

    def __str__(self) -> str:
        """The text that is stored: in the form that PostgreSQL uses, too."""
        salt, stored, server = (base64.b64encode(each).decode("ascii") for each in self[:3])
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"


def load() -> None:
    """Import the library, which takes a quarter of a second."""
    import scramp

    assert scramp.ScramMechanism is not None


def parse(stored: str) -> Keys:
    """The keys of a stored text; raises ValueError for any other text."""
    scheme, parameters, proofs = stored.split("$")
    iterations, salt = parameters.split(":")
    stored_key, server_key = proofs.split(":")
    if scheme != "SCRAM-SHA-256":
        raise ValueError("keys of another scheme")
    try:
        octets = [base64.b64decode(each, validate=True) for each in (salt, stored_key, server_key)]
    except binascii.Error as error:
        raise ValueError("keys are kept in base64") from error
    return Keys(octets[0], octets[1], octets[2], int(iterations))


def keys(secret: str, *, iterations: int = ITERATIONS, salt: bytes | None = None) -> Keys:
    """New keys of a password; raises BadPassword where RFC 4013 refuses it. Takes milliseconds."""
    from scramp import ScramException, ScramMechanism

    try:
        made = ScramMechanism("SCRAM-SHA-256").make_auth_info(
            secret, iteration_count=iterations, salt=salt or secrets.token_bytes(_SALT_OCTETS)
        )
    except ScramException as error:
        raise BadPassword("no SCRAM keys can be made of this password") from error
    return Keys(*made)


def nobodys_keys(name: str, server_secret: bytes, *, iterations: int = ITERATIONS) -> Keys:
    """Keys that no password fits, the same each time for the same name and iterations (RFC 5802 §9).

    With other iterations comes another salt, as it does for those who change their password.
    """
    salt = hmac.digest(server_secret, f"{iterations}\0{name}".encode(), "sha256")[:_SALT_OCTETS]
    return Keys(salt, hashlib.sha256(server_secret).digest(), server_secret, iterations)


def nobodys_number(name: str, server_secret: bytes) -> int:
    """A number of 64 bits, the same each time for the same name; only who has the secret can tell it."""
    return int.from_bytes(hmac.digest(server_secret, f"number\0{name}".encode(), "sha256")[:8])


class First(NamedTuple):
    """The client's first message (RFC 5802 §7), as far as it decides what happens."""

    flag: str  # "n", "y", or "p" with a binding
    header: str  # the gs2-header whole, which the client's `c=` repeats
    acting_as: str
    bare: str
    name: str


def first(message: str) -> First:
    """Take the client's first message apart, or raise BadResponse."""
    flag, comma, rest = message.partition(",")
    authzid, second, bare = rest.partition(",")
    name = bare.partition(",")[0]
    if not comma or not second or not name.startswith("n="):
        raise BadResponse("this is not SCRAM's first message")
    if flag not in ("n", "y") and flag != f"p={END_POINT}":
        raise BadResponse("this channel binding is not known here")
    if authzid and not authzid.startswith("a="):
        raise BadResponse("this is not SCRAM's first message")
    header = f"{flag},{authzid},"
    return First(flag, header, _name(authzid[2:]) if authzid else "", bare, _name(name[2:]))


def _name(escaped: str) -> str:
    """RFC 5802 §5.1: a comma is `=2C`, an equals sign is `=3D`, and there is no other `=`."""
    parts = escaped.split("=")
    if not escaped or any(part[:2] not in ("2C", "3D") for part in parts[1:]):
        raise BadResponse("this is not a name of SCRAM")
    return escaped.replace("=2C", ",").replace("=3D", "=")


class Proof:
    """The server's side of one exchange, after the keys were found."""

    def __init__(self, client: First, keys: Keys, nonce: str, *, end_point: bytes | None) -> None:
        """Raises BadResponse where the first message is wrong beyond its header."""
        from scramp import ScramException, ScramMechanism
        from scramp.core import Gs2Header

        binding = (END_POINT, end_point) if end_point is not None else None
        plus = client.flag.startswith("p")
        mechanism = ScramMechanism("SCRAM-SHA-256-PLUS" if plus else "SCRAM-SHA-256")
        self._server: ScramServer = mechanism.make_server(
            lambda _name: (keys.salt, keys.stored_key, keys.server_key, keys.iterations),
            channel_binding=binding,
            s_nonce=nonce,
        )

        class Header(Gs2Header):  # type: ignore[misc]
            """The gs2-header as it came: scramp knows only such without an authorization identity."""

            def __bytes__(self) -> bytes:
                return client.header.encode("utf-8")

        try:
            self._server.set_client_first(f"{client.flag},,{client.bare}")
            parsed = self._server.gs2_header
            self._server.gs2_header = Header(parsed.gs2_char, parsed.cb_name)
            self.challenge = str(self._server.get_server_first()).encode("utf-8")
        except ScramException as error:
            raise BadResponse("this is not SCRAM's first message") from error

    def verify(self, message: str) -> bytes | None:
        """Our own proof for the client, or None where `c=`, the nonce or its proof do not fit."""
        from scramp import ScramException

        try:
            self._server.set_client_final(message)
            return str(self._server.get_server_final()).encode("utf-8")
        except ScramException:
            return None
