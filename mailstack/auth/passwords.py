"""Password hashes: made by argon2id, older schemes still checked, on a few threads of their own.

Each library is imported for the first hash that needs it: passlib, which takes 3 MiB of a process, never
where all hashes are of our own kind.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import secrets
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from mailstack.auth import prepare, scram
from mailstack.errors import BadPassword

if TYPE_CHECKING:
    from passlib.context import CryptContext

_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
"""No letters that look alike in print: a generated password is read aloud or typed from paper."""


# The OWASP password storage advice for argon2id: 19 MiB, two passes, one lane.
_MEMORY_KIB: Final = 19 * 1024
_PASSES: Final = 2
_SALT_OCTETS: Final = 16
_DIGEST_OCTETS: Final = 32

_OURS: Final = re.compile(
    rf"\$argon2id\$v=19\$m={_MEMORY_KIB},t={_PASSES},p=1\$([A-Za-z0-9+/]{{22}})\$([A-Za-z0-9+/]{{43}})"
)
"""A hash as new ones are made; base64 of salt and digest without its padding."""


class Stored(NamedTuple):
    """What is kept of a password: a hash, and SCRAM keys where RFC 4013 allows to make them."""

    password_hash: str
    scram_keys: str | None


@cache
def context() -> CryptContext:
    """The schemes that hashes may be of: ours first, those of other servers after it."""
    from passlib.context import CryptContext

    return CryptContext(
        schemes=[
            "argon2",
            "bcrypt",
            "sha512_crypt",
            "sha256_crypt",
            "md5_crypt",
            "pbkdf2_sha512",
            "pbkdf2_sha256",
            "pbkdf2_sha1",
            "ldap_salted_sha512",
            "ldap_salted_sha256",
            "ldap_salted_sha1",
            "ldap_sha1",
            "ldap_salted_md5",
            "ldap_md5",
        ],
        deprecated="auto",
        argon2__type="ID",
        argon2__memory_cost=_MEMORY_KIB,
        argon2__time_cost=_PASSES,
        argon2__parallelism=1,
        argon2__salt_size=_SALT_OCTETS,
        argon2__digest_size=_DIGEST_OCTETS,
    )


@cache
def nobodys_hash() -> str:
    """A hash that no password fits: checking it makes an unknown name cost what a known one costs."""
    made = (secrets.token_bytes(octets) for octets in (_SALT_OCTETS, _DIGEST_OCTETS))
    salt, digest = (b64encode(each).decode().rstrip("=") for each in made)
    return f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p=1${salt}${digest}"


def hash_password(secret: str) -> str:
    """A new hash of the secret, in passlib's text form; takes tens of milliseconds and 19 MiB."""
    with suppress(BadPassword):  # what has no other spelling fits itself
        secret = prepare.password(secret)
    return str(context().hash(secret))


def stored(secret: str, *, iterations: int = scram.ITERATIONS) -> Stored:
    """All that is kept of a new password."""
    return Stored(hash_password(secret), _scram_keys(secret, iterations))


def _scram_keys(secret: str, iterations: int) -> str | None:
    try:
        return str(scram.keys(secret, iterations=iterations))
    except BadPassword:
        return None


def verify(secret: str, password_hash: str) -> bool:
    """Whether the secret fits; what a scheme cannot take (a NUL, too many octets) is a wrong password.

    It is tried as SASLprep has it, then as it came: hashes from elsewhere may be of any spelling.
    """
    try:
        spellings = dict.fromkeys((prepare.password(secret), secret))
    except BadPassword:
        spellings = {secret: None}
    return any(_fits(each, password_hash) for each in spellings)


def _fits(secret: str, password_hash: str) -> bool:
    if "\0" in secret:  # which HMAC, and so PBKDF2, takes for the same secret where it is the end
        return False
    try:
        if ours := _OURS.fullmatch(password_hash):
            salt, digest = (b64decode(each + "==") for each in ours.groups())
            return hmac.compare_digest(_digest(secret, salt), digest)
        return bool(context().verify(secret, password_hash))
    except (ValueError, TypeError):
        return False


def _digest(secret: str, salt: bytes) -> bytes:
    """argon2id by libsodium, which uses all that the processor has: 40 % of the CPU time of libpass's.

    Raises RuntimeError where there is no memory, which is nobody's wrong password.
    """
    from nacl.pwhash import argon2id

    octets = secret.encode()
    return argon2id.kdf(_DIGEST_OCTETS, octets, salt, opslimit=_PASSES, memlimit=_MEMORY_KIB * 1024)


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made by an older scheme or with weaker parameters than new ones are."""
    return not _OURS.fullmatch(password_hash) and bool(context().needs_update(password_hash))


def generate_password() -> str:
    """A password of 79 bits in four groups that a person can copy by hand."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))


class Verifier:
    """Checks passwords off the event loop; at most one hash a core at a time, in all of the `processes`."""

    def __init__(self, processes: int = 1) -> None:
        threads = max((os.cpu_count() or 1) // processes, 1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="hash")

    async def verify(self, secret: str, password_hash: str) -> bool:
        """Whether the secret fits the hash."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, verify, secret, password_hash)

    async def renewed(
        self, secret: str, password_hash: str, scram_keys: str | None, *, iterations: int
    ) -> Stored | None:
        """What should be stored instead of this, the secret having just been found right; None: nothing."""
        fresh = not needs_rehash(password_hash)
        if fresh and scram_keys is not None:
            return None

        def renew() -> Stored | None:
            keys = scram_keys or _scram_keys(secret, iterations)
            if fresh and keys is None:
                return None  # there cannot be any
            return Stored(password_hash if fresh else hash_password(secret), keys)

        return await asyncio.get_running_loop().run_in_executor(self._threads, renew)

    async def load_scram(self) -> None:
        """Import what SCRAM's arithmetic is in: a quarter of a second that the loop must not wait."""
        await asyncio.get_running_loop().run_in_executor(self._threads, scram.load)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()
