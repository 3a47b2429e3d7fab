"""Password hashes: made by argon2id, older schemes still checked, on a few threads of their own."""

from __future__ import annotations

import asyncio
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

from passlib.context import CryptContext

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

    async def verify(self, secret: str, password_hash: str) -> bool:
        """Whether the secret fits the hash."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, verify, secret, password_hash)

    async def rehash(self, secret: str) -> str:
        """A hash by today's scheme."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, hash_password, secret)

    async def nobodys_hash(self) -> str:
        """See the function of that name."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, nobodys_hash)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()
