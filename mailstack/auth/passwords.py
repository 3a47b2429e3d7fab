"""Password hashes: made by argon2id, checked on a few threads, remembered for a while.

A POP3 client logs in every few minutes with the same password. Hashing it each time would cost 19
MiB and tens of milliseconds; so a success is remembered under a keyed digest that includes the
stored hash, and a changed password forgets it by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

from passlib.context import CryptContext

REMEMBERED_SECONDS: Final = 600.0
_REMEMBERED: Final = 10_000

_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
"""No letters that look alike in print: a generated password is read aloud or typed from paper."""


@cache
def _context() -> CryptContext:
    # Parameters of the OWASP password storage advice for argon2id: 19 MiB, two passes, one lane.
    return CryptContext(
        schemes=["argon2", "pbkdf2_sha256", "pbkdf2_sha512", "sha512_crypt", "sha256_crypt"],
        deprecated="auto",
        argon2__type="ID",
        argon2__memory_cost=19 * 1024,
        argon2__time_cost=2,
        argon2__parallelism=1,
    )


@cache
def nobodys_hash() -> str:
    """A hash that no password fits: checking it makes an unknown name cost what a known one costs."""
    return hash_password(secrets.token_urlsafe())


def hash_password(secret: str) -> str:
    """A new hash of the secret, in passlib's text form; takes tens of milliseconds and 19 MiB."""
    return str(_context().hash(secret))


def verify(secret: str, password_hash: str) -> bool:
    """Whether the secret fits; what a scheme cannot take (a NUL, too many octets) is a wrong password."""
    try:
        return bool(_context().verify(secret, password_hash))
    except (ValueError, TypeError):
        return False


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made by an older scheme or with weaker parameters than new ones are."""
    return bool(_context().needs_update(password_hash))


def generate_password() -> str:
    """A password of 79 bits in four groups that a person can copy by hand."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))


class Verifier:
    """Checks passwords off the event loop; at most one hash a core at a time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="hash")
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()

    def remembers(self, secret: str, password_hash: str) -> bool:
        """Whether just this secret has fitted just this hash lately."""
        until = self._remembered.get(self._digest(secret, password_hash))
        return until is not None and until > time.monotonic()

    async def verify(self, secret: str, password_hash: str) -> bool:
        """Whether the secret fits the hash; a success is remembered."""
        if self.remembers(secret, password_hash):
            return True
        loop = asyncio.get_running_loop()
        fits = await loop.run_in_executor(self._threads, verify, secret, password_hash)
        if fits:
            digest = self._digest(secret, password_hash)
            self._remembered[digest] = time.monotonic() + REMEMBERED_SECONDS
            self._remembered.move_to_end(digest)
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return fits

    async def rehash(self, secret: str) -> str:
        """A hash by today's scheme."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, hash_password, secret)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _digest(self, secret: str, password_hash: str) -> bytes:
        text = f"{password_hash}\0{secret}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._key, digest_size=16).digest()
