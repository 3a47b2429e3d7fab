"""Logins that have succeeded lately, so that polling costs no hash.

A POP3 client logs in every few minutes with the same password, and hashing it each time would cost
19 MiB and tens of milliseconds. What is kept is a digest under a key that dies with the process,
and the stored hash that the password fitted: whoever opens the maildrop compares that with the
hash in force, so a changed password or a disabled account is noticed at once. A login name that was the
account's own address is good as long as that is its address; where any other one leads is looked up anew.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from typing import Final, NamedTuple

REMEMBERED_SECONDS: Final = 600.0
_MOST: Final = 10_000


class Known(NamedTuple):
    """Whose login it was, and the stored hash that its secret fitted."""

    account_id: int
    name: str
    password_hash: str
    address: str = ""
    """What the account was called, if that was the login name; aliases may change behind other names."""


class LoginMemory:
    """The latest successes; belongs to one event loop."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[float, Known]] = OrderedDict()

    def remember(self, name: str, secret: str, known: Known) -> None:
        """The name and the secret have just been checked."""
        digest = self._digest(name, secret)
        self._known[digest] = (time.monotonic() + REMEMBERED_SECONDS, known)
        self._known.move_to_end(digest)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)

    def recall(self, name: str, secret: str) -> Known | None:
        """What was remembered of just this name and this secret, if that is not too long ago."""
        until, known = self._known.get(self._digest(name, secret), (0.0, None))
        return known if until > time.monotonic() else None

    def _digest(self, name: str, secret: str) -> bytes:
        text = f"{len(name)} {name} {secret}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._key, digest_size=16).digest()
