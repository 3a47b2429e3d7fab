"""Password hashes of other servers: Dovecot's `{SCHEME}` texts and bare `$id$` hashes, in passlib's form.

What is taken here is checked by `passwords.verify`, and replaced at the first login.
"""

from __future__ import annotations

import re
import warnings
from base64 import b64encode
from typing import Any, Final, NamedTuple

from mailstack.auth.passwords import context
from mailstack.errors import BadPassword


class Schemed(NamedTuple):
    """A text taken apart: the scheme in upper case, and what it is of."""

    scheme: str
    text: str


PLAIN: Final = frozenset({"PLAIN", "CLEARTEXT", "CLEAR"})
"""Schemes of what is no hash, but the password itself."""

_BY_ID: Final = frozenset(
    ["CRYPT", "MD5", "MD5-CRYPT", "SHA256-CRYPT", "SHA512-CRYPT", "BLF-CRYPT", "ARGON2I", "ARGON2ID"]
)  # Dovecot, too, goes by the $id$ that follows, whichever of these it says

_DIGESTS: Final = {
    "SHA": "{SHA}",
    "SHA1": "{SHA}",
    "SSHA": "{SSHA}",
    "SSHA256": "{SSHA256}",
    "SSHA512": "{SSHA512}",
    "SMD5": "{SMD5}",
    "LDAP-MD5": "{MD5}",
}
"""Dovecot's name and LDAP's; the digest with its salt follows in base64."""

_KNOWN: Final = (
    PLAIN
    | _BY_ID
    | _DIGESTS.keys()
    | {"PBKDF2", "HMAC-MD5", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SHA256", "SHA512"}
    | {"PLAIN-MD4", "PLAIN-MD5", "PLAIN-TRUNC", "DES-CRYPT", "LANMAN", "NTLM", "OTP", "SKEY", "RPA"}
)
"""All that `doveadm pw -l` tells, and told; what of it can be checked is above, and PBKDF2."""

_UNCHECKED_IDS: Final = ("$y$", "$gy$", "$7$", "$sha1$", "$md5$", "$3$$")
"""What else crypt(5) knows: yescrypt, its Russian kind, scrypt, and old ones."""

# A check that takes minutes would delay every refusal (see throttle.Pace), or take the memory of all: one
# runs on each core. SHA-crypt is plain Python here. Dovecot makes it with 5,000 rounds, argon2id with 64 MiB.
_MOST: Final = {
    "argon2": {"rounds": 6, "memory_cost": 64 * 1024, "parallelism": 8},  # passes, KiB, threads
    "bcrypt": {"rounds": 14},  # the logarithm
    "sha256_crypt": {"rounds": 200_000},
    "sha512_crypt": {"rounds": 200_000},
    "pbkdf2_sha1": {"rounds": 2_000_000},
    "pbkdf2_sha256": {"rounds": 2_000_000},
    "pbkdf2_sha512": {"rounds": 2_000_000},
}

_SCHEMED: Final = re.compile(r"\{([A-Za-z][A-Za-z0-9.-]{0,31})\}(.*)", re.DOTALL)
_WITH_ID: Final = re.compile(r"\$[a-z0-9][a-z0-9-]{0,31}\$.*", re.DOTALL)
_PBKDF2: Final = re.compile(r"\$1\$([^$]+)\$([0-9]{1,9})\$([0-9a-fA-F]{40})")
_NEW_PASSWORD: Final = "put a new password into the column password"


def split(text: str) -> Schemed | None:
    """The scheme that a text says it is of, CRYPT where it says an `$id$`; None: it is of none."""
    if found := _SCHEMED.fullmatch(text):
        return Schemed(found[1].upper(), found[2])
    return Schemed("CRYPT", text) if _WITH_ID.fullmatch(text) else None


def is_hash(text: str) -> bool:
    """Whether it says a scheme that there is; `{Blue}horse-7` and `$ab$horse` are passwords."""
    if not (schemed := split(text)):
        return False
    if text.startswith("{"):
        return schemed.scheme.partition(".")[0] in _KNOWN  # .HEX, .B64: the digest's encoding
    return text.startswith(_UNCHECKED_IDS) or context().identify(text) is not None


def adopted(scheme: str, text: str) -> str:
    """The hash in passlib's form, without its scheme; raises BadPassword with advice, never with the hash."""
    if scheme == "PBKDF2":
        text = _pbkdf2(text)
    elif scheme in _DIGESTS:
        text = _DIGESTS[scheme] + text
    elif scheme not in _BY_ID:
        raise BadPassword(f"a hash of the scheme {scheme} cannot be checked here: {_NEW_PASSWORD}")
    elif text.startswith(("$y$", "$gy$")):
        raise BadPassword(f"yescrypt hashes cannot be checked here: {_NEW_PASSWORD}")
    elif not _WITH_ID.fullmatch(text):
        raise BadPassword(f"a {scheme} hash without an $id$ cannot be checked here: {_NEW_PASSWORD}")
    return _whole(scheme, text)


def _pbkdf2(text: str) -> str:
    """Dovecot's `$1$salt$rounds$digest`, the digest in base 16, by SHA-1."""
    if not (found := _PBKDF2.fullmatch(text)):
        raise BadPassword("this is no whole PBKDF2 hash")
    salt, digest = (
        b64encode(each).decode().rstrip("=").replace("+", ".")
        for each in (found[1].encode(), bytes.fromhex(found[3]))
    )
    return f"$pbkdf2${int(found[2])}${salt}${digest}"


def _whole(scheme: str, text: str) -> str:
    handler: Any = context().identify(text, resolve=True)
    if handler is None:
        raise BadPassword(f"this {scheme} hash is of no kind that can be checked here: {_NEW_PASSWORD}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of unused bits in bcrypt's base64, which it mends
            parsed = handler.from_string(text)
    except (ValueError, TypeError) as error:
        raise BadPassword(f"this is no whole {scheme} hash") from error
    if parsed.checksum is None:
        raise BadPassword(f"this is no whole {scheme} hash")
    if _asks_too_much(parsed):
        raise BadPassword(
            f"this {scheme} hash would take too long, or too much memory, at each login: {_NEW_PASSWORD}"
        )
    return str(parsed.to_string())


def _asks_too_much(parsed: Any) -> bool:
    return any(getattr(parsed, what) > most for what, most in _MOST.get(parsed.name, {}).items())
